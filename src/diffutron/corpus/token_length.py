"""Texts by their length in a tokenizer's pieces."""

from __future__ import annotations

from pathlib import Path

from diffutron.corpus.settings import TokenLengthSettings
from diffutron.errors import DataError


class TokenLength:
    """Finds texts that are too short or too long for a tokenizer.

    Raises:
        DataError: there is no such tokenizer.
    """

    name = "token length"

    def __init__(self, settings: TokenLengthSettings) -> None:
        from tokenizers import Tokenizer

        self.settings = settings
        file = Path(settings.tokenizer) / "tokenizer.json"
        name, _, revision = settings.tokenizer.partition("@")
        try:
            if file.is_file():
                self._tokenizer = Tokenizer.from_file(str(file))
            else:
                self._tokenizer = Tokenizer.from_pretrained(name, revision=revision or "main")
        except Exception as error:  # the library raises plain Exceptions
            line = " ".join(str(error).split())[:120]
            raise DataError(
                f"tokenizer {settings.tokenizer} is no folder with tokenizer.json, and no hub id: {line}"
            ) from None

        # What a tokenizer.json may ask for.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def fault(self, text: str) -> str | None:
        """What is wrong with the text's length."""
        pieces = len(self._tokenizer.encode(text, add_special_tokens=False).ids)
        if pieces < self.settings.low:
            return f"{pieces} pieces < {self.settings.low}"
        if self.settings.high is not None and pieces > self.settings.high:
            return f"{pieces} pieces > {self.settings.high}"
        return None
