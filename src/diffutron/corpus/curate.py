"""Documents in, clean documents out, every drop counted with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from diffutron.corpus.document import Document


@dataclass
class CurationReport:
    """How many documents came, stayed, and left, and why."""

    read: int = 0
    kept: int = 0
    characters: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    by_source: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)

    def drop(self, reason: str) -> None:
        self.dropped[reason] += 1

    def keep(self, document: Document) -> None:
        self.kept += 1
        self.characters += len(document.text)
        self.by_source[document.source] += 1
        self.licenses[document.license or "unknown"] += 1

    def as_dict(self) -> dict[str, object]:
        return {
            "read": self.read,
            "kept": self.kept,
            "characters": self.characters,
            "dropped": dict(self.dropped.most_common()),
            "by_source": dict(self.by_source.most_common()),
            "licenses": dict(self.licenses.most_common()),
        }


def curate(
    documents: Iterable[Document], report: CurationReport, *, min_characters: int, max_characters: int | None
) -> Iterator[Document]:
    """Leave out near-empty texts, texts that are too long, and every repetition of a text (compared by SHA-256)."""
    seen: set[int] = set()
    for document in documents:
        report.read += 1
        letters = sum(character.isalpha() for character in document.text)
        if letters == 0:
            report.drop("no letters")
        elif len(document.text) < min_characters:
            report.drop("near-empty")
        elif max_characters is not None and len(document.text) > max_characters:
            report.drop("too long")
        elif (digest := document.digest) in seen:
            report.drop("exact duplicate")
        else:
            seen.add(digest)
            report.keep(document)
            yield document
