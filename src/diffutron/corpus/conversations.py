"""Records of instruction sets to conversations: Alpaca's columns, chat messages, ShareGPT's, questions and answers.

A record tells its kind by the names of its fields, in any case of letters; :data:`COLUMNS` says what they hold. Nothing
is guessed: a record that fits no kind, or whose turns make no conversation, is named with its reason.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from diffutron.corpus.read import Fault, OnFault, read_all, warn_of_fault
from diffutron.text import normalise

Role = Literal["system", "user", "assistant"]
ROLES: dict[str, Role] = {
    "system": "system", "sistem": "system", "user": "user", "human": "user", "kullanıcı": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant", "asistan": "assistant",
}  # fmt: skip
"""what sets call the roles"""
COLUMNS: tuple[tuple[str, str], ...] = (
    ("instruction", "output"), ("instruction", "response"),  # Alpaca, LlamaTurk; Dolly
    ("input", "output"),  # InstrucTurca
    ("prompt", "response"), ("prompt", "completion"), ("question", "answer"), ("soru", "cevap"), ("soru", "yanıt"),
    ("talimat", "çıktı"), ("talimat", "yanıt"),
)  # fmt: skip
"""names of what is asked and of the answer; the first pair that a record has counts"""
ABOUT = ("input", "context", "metin", "girdi", "giriş", "bağlam")
"""names of what a question is about; it follows the question"""
_LISTS = ("messages", "conversations", "conversation")


@dataclass(frozen=True)
class Turn:
    """What somebody said."""

    role: Role
    text: str


@dataclass(frozen=True)
class Conversation:
    """Turns of a user and an assistant by turns, ending with the assistant; before them, if at all, one of the system.

    Attributes:
        place: where it was read, ``file:line``.
        source, license: as the record has them; empty if it does not.
        group: what those about one thing share, e.g. a passage; empty if it stands alone.
    """

    turns: tuple[Turn, ...]
    place: str = ""
    source: str = ""
    license: str = ""
    group: str = ""

    @property
    def text(self) -> str:
        return text_of(self.messages)

    @property
    def messages(self) -> list[dict[str, str]]:
        """As chat templates take it."""
        return messages_of(self.turns)


def messages_of(turns: Iterable[Turn]) -> list[dict[str, str]]:
    """Turns as chat templates take them, and as corpora keep them."""
    return [{"role": turn.role, "content": turn.text} for turn in turns]


def text_of(messages: Iterable[Mapping[str, str]]) -> str:
    """All that was said, for what reads texts: filters, and whatever finds repetitions."""
    return "\n\n".join(message["content"] for message in messages)


def read_conversations(path: Path | str, *, on_fault: OnFault = warn_of_fault) -> Iterator[Conversation]:
    """The conversations of a file or folder; records that are none go to ``on_fault`` with the reason.

    Raises:
        DataError: there is no such file, or one of which nothing can be read.
    """
    for place, record in read_all(path, on_fault):
        try:
            turns = turns_of(record)
        except ValueError as error:
            on_fault(Fault(place, str(error)))
            continue
        yield Conversation(turns, place, *(str(record.get(name) or "") for name in ("source", "license", "group")))


def turns_of(record: Mapping[str, Any]) -> tuple[Turn, ...]:
    """The turns of a record, each in its normal form and without blanks around it.

    Raises:
        ValueError: it is of no known kind, or no conversation; says why.
    """
    fields = {_known(str(name)): None if _is_empty_cell(value) else value for name, value in record.items()}
    for name in _LISTS:
        if name in fields:
            return checked(turns_in(fields[name], name))
    for asked, answer in COLUMNS:
        if asked in fields and answer in fields:
            others = [name for name in ABOUT if name != asked and fields.get(name) not in (None, "")]
            texts = [_text(fields[name], name) for name in (asked, *others)]
            question = "\n\n".join(text for text in texts if text)
            system = _text(fields.get("system") or "", "system")
            opening = [Turn("system", system)] if system else []
            return checked([*opening, Turn("user", question), Turn("assistant", _text(fields[answer], answer))])
    known = ", ".join(f"{asked} and {answer}" for asked, answer in COLUMNS)
    raise ValueError(f"has neither messages nor any of {known}; it has {', '.join(map(str, record)) or 'nothing'}")


def checked(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The same turns, if they are a conversation to learn an answer from.

    Raises:
        ValueError: says what is wrong.
    """
    spoken = list(turns[1:] if turns and turns[0].role == "system" else turns)
    if any(turn.role == "system" for turn in spoken):
        raise ValueError("has a system text after the first turn")
    if not any(turn.role == "assistant" for turn in spoken):
        raise ValueError("has no answer")
    for number, turn in enumerate(turns, 1):
        if not turn.text:
            raise ValueError(f"has an empty {turn.role} turn, number {number}")
    for number, turn in enumerate(spoken):
        if turn.role != ("user", "assistant")[number % 2]:
            raise ValueError("its turns are not those of a user and an assistant by turns")
    if spoken[-1].role != "assistant":
        raise ValueError("ends with a question that nobody answers")
    return tuple(turns)


def turns_in(value: Any, name: str = "messages") -> list[Turn]:
    """The turns of a list of messages, whatever their order.

    Raises:
        ValueError: a message has no role that is known, or no text.
    """
    if not isinstance(value, list):
        raise ValueError(f"its {name} are a {type(value).__name__}, not a list")
    turns = []
    for number, message in enumerate(value, 1):
        if not isinstance(message, dict):
            raise ValueError(f"message {number} is a {type(message).__name__}, not an object")
        role = message.get("role", message.get("from"))
        if not isinstance(role, str) or _folded(role) not in _ROLES:
            raise ValueError(f"message {number} has the unknown role {role!r}")
        content = message.get("content", message.get("value"))
        turns.append(Turn(_ROLES[_folded(role)], _text(_joined(content), f"message {number}")))
    return turns


def _folded(name: str) -> str:
    """In NFC and small letters, whatever the case and by whose rules: I, İ and ı give i here, so ÇIKTI is çıktı."""
    return unicodedata.normalize("NFC", name).strip().casefold().replace("\u0307", "").replace("ı", "i")


_ROLES = {_folded(name): role for name, role in ROLES.items()}
_FIELDS = {_folded(name): name for name in (*_LISTS, "system", *ABOUT, *(name for pair in COLUMNS for name in pair))}


def _known(name: str) -> str:
    """The name that a field has here, whatever the case of its letters."""
    return _FIELDS.get(_folded(name), name)


def _is_empty_cell(value: Any) -> bool:
    """Not a number, as libraries read the empty cell of a table."""
    return isinstance(value, float) and value != value


def _joined(content: Any) -> Any:
    """The text of parts, as some APIs send it; what is no text is not read over."""
    if not isinstance(content, list):
        return content
    parts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content]
    if not all(isinstance(part, str) for part in parts):
        return None
    return "".join(cast(list[str], parts))


def _text(value: Any, name: str) -> str:
    if isinstance(value, bool | int | float):
        value = str(value)  # an answer may be a number
    if not isinstance(value, str):
        raise ValueError(f"its {name} is {'missing' if value is None else f'a {type(value).__name__}, not a text'}")
    return normalise(value).strip()
