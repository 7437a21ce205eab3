"""What a build counts: every document with its end, and a few of each kind to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

SAMPLES = 20
"""texts shown of each kind"""
EXCERPT = 400
"""characters shown of each"""


class Sample(NamedTuple):
    """A text to look at; those with the smallest ``draw`` are shown, so the choice depends on nothing but the texts."""

    draw: int
    place: str
    detail: str
    text: str


def _counters() -> dict[str, Counter[str]]:
    return {}


@dataclass
class Tally:
    """Counts that add up over tasks: ``read == kept + sum(dropped) + quarantined``."""

    read: int = 0
    quarantined: int = 0
    kept: int = 0
    characters: int = 0
    bytes_read: int = 0
    bytes_kept: int = 0
    train: int = 0
    heldout: int = 0
    conversations: int = 0
    """of the documents that are kept"""
    copies: int = 0
    """further copies of training documents, made by weights above 1"""
    dropped: dict[str, Counter[str]] = field(default_factory=_counters)
    """reason to source to documents"""
    dropped_bytes: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    by_source: Counter[str] = field(default_factory=Counter)
    read_by_source: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    license_bytes: Counter[str] = field(default_factory=Counter)
    domains: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    lengths: Counter[str] = field(default_factory=Counter)
    """kept documents by the power of two below their characters"""
    contamination: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def drop(self, reason: str, source: str, size: int) -> None:
        self.dropped.setdefault(reason, Counter())[source] += 1
        self.dropped_bytes[reason] += size

    def show(self, kind: str, sample: Sample) -> None:
        """Offer a text for the report."""
        shown = self.samples.setdefault(kind, [])
        if len(shown) < SAMPLES or sample.draw < shown[-1].draw:
            shown.append(sample._replace(text=sample.text[:EXCERPT]))
            shown.sort()
            del shown[SAMPLES:]

    @property
    def num_dropped(self) -> int:
        return sum(count.total() for count in self.dropped.values())

    def add(self, other: Tally) -> None:
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if isinstance(value, int):
                setattr(self, name, mine + value)
            elif isinstance(value, Counter):
                mine.update(value)
        for reason, counts in other.dropped.items():
            self.dropped.setdefault(reason, Counter()).update(counts)
        for kind, samples in other.samples.items():
            for sample in samples:
                self.show(kind, sample)

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Tally:
        counters = {name: Counter(value) for name, value in values.items() if isinstance(value, dict)}
        return cls(**{
            **values, **counters,
            "dropped": {reason: Counter(counts) for reason, counts in values["dropped"].items()},
            "samples": {kind: [Sample(*each) for each in samples] for kind, samples in values["samples"].items()},
        })  # fmt: skip

    @classmethod
    def sum(cls, tallies: Iterable[Tally]) -> Tally:
        total = cls()
        for tally in tallies:
            total.add(tally)
        return total
