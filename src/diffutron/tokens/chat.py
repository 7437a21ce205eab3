"""Conversations to ids. A template says what stands around the turns; the turns themselves never pass through it.

A chat template is a program from a stranger, and a turn is a text from another. So the template is rendered, in
transformers' sandbox, with stand-ins for the turns; its own words may hold special tokens, and mark what is generated.
The turns are put in afterwards, as plain text: nothing that somebody types is executed, or becomes a token that ends a
turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from diffutron.corpus.conversations import Turn
from diffutron.errors import InputError, ModelError
from diffutron.tokens.codec import TextCodec

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'assistant' %}"
    "Yanıt:{% generation %} {{ message.content }}{{ eos_token }}{% endgeneration %}"
    "{% elif message.role == 'system' %}Yönerge: {{ message.content }}{{ eos_token }}"
    "{% else %}Soru: {{ message.content }}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}Yanıt:{% endif %}"
)
"""Ours: every turn ends with the token that ends a text, which nobody can type."""

TAGS = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}"
    "[Answer]\n{% generation %}{{ message.content }}\n[/Answer]{% endgeneration %}{{ '\n\n' }}"
    "{% elif message.role == 'system' %}[SYS]\n{{ message.content }}\n[/SYS]\n\n"
    "{% else %}[Question]\n{{ message.content }}\n[/Question]\n\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}[Answer]\n{% endif %}"
)
"""The text tags with which Diffutron's instruction-tuned checkpoints were trained; no special token at all."""

TEMPLATES = {"turkish": TEMPLATE, "tags": TAGS}

# From a private-use plane: no text that was read holds them after this, and no tokenizer has them.
_STAND_IN = re.compile("\U000f0000([0-9]+)\U000f0001")


def template_of(name: str, own: str | None) -> str:
    """The Jinja text of a template.

    Args:
        name: one of :data:`TEMPLATES`; ``model`` for the model's own, which is ours if it has none; or a file.
        own: the model's.

    Raises:
        InputError: there is no such template, and no such file.
    """
    if name == "model":
        return own or TEMPLATE
    if name in TEMPLATES:
        return TEMPLATES[name]
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, ValueError):
        known = ", ".join(TEMPLATES)
        raise InputError(f"the chat template {name!r} is none of {known}, model, or a file that can be read") from None


@dataclass(frozen=True)
class ChatIds:
    """A conversation as ids, and which of them the model is to write itself."""

    ids: tuple[int, ...]
    is_answer: tuple[bool, ...]


class ChatFormat:
    """Encodes conversations with one template.

    Args:
        template: Jinja, with ``{% generation %}`` around what is learned.

    Raises:
        ModelError: the template cannot be used.
    """

    def __init__(self, codec: TextCodec, template: str = TEMPLATE) -> None:
        self.codec, self.template = codec, template
        self._special_ids = {str(codec.tokenizer.convert_ids_to_tokens(index)): index for index in codec.special_ids}
        longest_first = sorted(self._special_ids, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)))

    def encode(self, turns: Sequence[Turn], *, ask: bool = False) -> ChatIds:
        """The ids of a conversation; with ``ask``, up to where the next answer begins.

        Only pieces that lie wholly inside what is generated are the answer's.
        """
        rendered, spans = self._rendered(turns, ask)
        ids, is_answer = list[int](), list[bool]()
        for literal, special in self._parts(rendered):
            start, end = literal
            if special is not None:
                ids.append(special)
                is_answer.append(any(low <= start and end <= high for low, high in spans))
                continue
            text, inner = _filled(rendered, start, end, spans, turns)
            for token, low, high in self.codec.cut(text):
                ids.append(token)
                is_answer.append(any(left <= low and high <= right for left, right in inner))
        return ChatIds(tuple(ids), tuple(is_answer))

    @cached_property
    def marks_answers(self) -> bool:
        """Whether the template says what of an answer is generated; unless it does, nothing can be learned with it."""
        return bool(self._rendered((Turn("user", ""), Turn("assistant", "")), ask=False)[1])

    @cached_property
    def stop(self) -> str:
        """The text with which the template ends an answer; empty if a special token does."""
        turns = (Turn("user", ""), Turn("assistant", ""))
        rendered, spans = self._rendered(turns, ask=False)
        end = max((high for _, high in spans), default=len(rendered))
        begun = max((found.end() for found in _STAND_IN.finditer(rendered)), default=end)
        return self._special.sub("", rendered[begun:end]).strip()

    def _rendered(self, turns: Sequence[Turn], ask: bool) -> tuple[str, list[tuple[int, int]]]:
        """What the template makes of stand-ins, and from where to where it is generated."""
        messages = [
            {"role": turn.role, "content": f"\U000f0000{number}\U000f0001"} for number, turn in enumerate(turns)
        ]
        names: dict[str, Any] = {f"{name}_token": token for name, token in _named_tokens(self.codec).items()}
        found: Any
        try:
            found = render_jinja_template(
                conversations=[messages], chat_template=self.template, return_assistant_tokens_mask=True,
                add_generation_prompt=ask, **names,
            )  # fmt: skip
        except (TemplateError, TypeError, ValueError) as error:
            raise ModelError(f"the chat template cannot be used: {' '.join(str(error).split())}") from None
        [rendered], [spans] = found
        missing = set(range(len(turns))) - set(map(int, _STAND_IN.findall(rendered)))
        if missing:
            raise ModelError(f"the chat template leaves out turn {min(missing) + 1} of {len(turns)}")
        return rendered, list(spans)

    def _parts(self, rendered: str) -> Iterator[tuple[tuple[int, int], int | None]]:
        """Special tokens of the template's own, with their ids, and what stands between them."""
        end = 0
        for found in self._special.finditer(rendered):
            if found.start() > end:
                yield (end, found.start()), None
            yield found.span(), self._special_ids[found.group()]
            end = found.end()
        if end < len(rendered):
            yield (end, len(rendered)), None


def _filled(
    rendered: str, start: int, end: int, spans: Sequence[tuple[int, int]], turns: Sequence[Turn]
) -> tuple[str, list[tuple[int, int]]]:
    """A part of the rendered text with the turns in their places, and where in it the generated spans lie."""
    # What is generated begins and ends at characters of the rendered text; those move as turns take the place of
    # stand-ins.
    moved, text = {}, ""
    borders = sorted({min(max(border, start), end) for span in spans for border in span} | {start, end})
    for low, high in pairwise(borders):
        moved[low] = len(text)
        text += _STAND_IN.sub(lambda found: turns[int(found.group(1))].text, rendered[low:high])
    moved[end] = len(text)
    inner = [
        (moved[min(max(low, start), end)], moved[min(max(high, start), end)])
        for low, high in spans if low < end and high > start
    ]  # fmt: skip
    return text, inner


def _named_tokens(codec: TextCodec) -> dict[str, str]:
    tokenizer = codec.tokenizer
    kinds = ("bos", "eos", "cls", "sep", "pad", "mask", "unk")
    found = {kind: getattr(tokenizer, f"{kind}_token") for kind in kinds}
    found["bos"] = found["bos"] or found["cls"]
    found["eos"] = found["eos"] or found["sep"]
    return {kind: token for kind, token in found.items() if token}
