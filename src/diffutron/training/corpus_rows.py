"""The rows of a recipe's corpus: of texts everything is learned, of conversations what the assistant says."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffutron.corpus import BuiltCorpus
from diffutron.corpus.conversations import Conversation
from diffutron.corpus.read import read_all
from diffutron.tokens.chat import ChatFormat
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.instructions import make_mixed_rows
from diffutron.tokens.rows import Rows, make_rows
from diffutron.tokens.shards import Origin, ensure_shards
from diffutron.training.recipe import TrainData

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CorpusRows:
    """Makes rows of records of a corpus.

    Attributes:
        chat: how conversations are put; None for a corpus without any, whose rows are plain.
        lost: conversations that had to be cut or left out, by the reason.
    """

    data: TrainData
    codec: TextCodec
    seed: int
    chat: ChatFormat | None = None
    lost: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, data: TrainData, codec: TextCodec, corpus: BuiltCorpus, *, seed: int) -> CorpusRows:
        """
        Raises:
            InputError: the recipe names no template there is.
        """
        return cls(data, codec, seed, data.chat.format(codec) if corpus.report.get("conversations") else None)

    def make(self, records: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[list[int]]:
        """Rows of records with their places."""
        shape: Any = {"max_tokens": self.data.max_tokens, "long_texts": self.data.long_texts}
        if self.chat is None:
            return make_rows((record["text"] for _, record in records), self.codec, **shape)
        ending = self.data.chat.ending
        return make_mixed_rows(records, self.chat, **shape, ending=ending, seed=self.seed, on_loss=self._lose)

    def ensure(self, corpus: BuiltCorpus, folder: Path) -> Rows:
        """Rows of the training part on the disk, made unless they are there.

        Raises:
            DataError: no row is left. StorageError: the disk refused.
        """
        origin = Origin.of(
            self.codec, corpus=corpus.report["fingerprint"], max_tokens=self.data.max_tokens,
            long_texts=self.data.long_texts, chat=self._identity,
        )  # fmt: skip
        rows = ensure_shards(self.make(read_all(corpus.train)), self.codec, folder, origin)
        for reason, number in self.lost.items():
            log.warning("of %d conversations: %s", number, reason)
        return rows

    @property
    def _identity(self) -> str | None:
        if self.chat is None:
            return None
        how = f"{self.chat.template}\0{self.data.chat.ending.model_dump_json()}\0{self.seed}"
        return hashlib.sha256(how.encode("utf-8")).hexdigest()[:16]

    def _lose(self, conversation: Conversation, reason: str) -> None:
        self.lost[reason] += 1
