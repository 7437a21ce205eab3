"""How a build is cut into tasks, and where their results lie. Nothing here depends on who works, or how many do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffutron.corpus.read import WHOLE, Stripe, files_of
from diffutron.corpus.settings import CorpusSettings
from diffutron.errors import DataError

TASK_BYTES = 8 * 2**20
"""of a file, as it lies on the disk, to a task"""
KEYS_A_PARTITION = 2_000_000
"""duplicate keys, by estimate, that are resolved at a time: some 200 MB of memory"""


@dataclass(frozen=True)
class Task:
    """Which records of which source a task reads."""

    source: int
    file: Path | None = None
    """None: the hub's stream"""
    stripe: Stripe = WHOLE


@dataclass(frozen=True)
class Plan:
    """The tasks of a build and the files it keeps while it works."""

    settings: CorpusSettings
    folder: Path
    """hidden, beside the corpus; removed when that stands"""
    out: Path
    tasks: tuple[Task, ...]
    num_partitions: int

    def file(self, kind: str, number: int, suffix: str) -> Path:
        return self.folder / kind / f"{number:05d}.{suffix}"

    def files(self, kind: str, suffix: str) -> Iterator[Path]:
        """One for each task."""
        return (self.file(kind, number, suffix) for number in range(len(self.tasks)))

    def partitions(self, kind: str) -> Iterator[Path]:
        """One for each partition of the keys."""
        return (self.file(kind, number, "npy") for number in range(self.num_partitions))


def plan_build(settings: CorpusSettings, out: Path) -> Plan:
    """Cut the sources into tasks.

    Raises:
        DataError: a source or an evaluation set is missing, or ``out`` lies inside one, or one inside ``out``: before
            a long read, not after.
    """
    for texts in settings.evaluation_sets:
        _refuse_overlap(out, texts.path, files_of(texts.path))
    tasks, size = list[Task](), 0
    for index, source in enumerate(settings.sources):
        if source.path is None:
            tasks.append(Task(index))
            size += 2**30  # unknown; only how finely keys are cut depends on it
            continue
        files = files_of(source.path)
        _refuse_overlap(out, source.path, files)
        for file in files:
            stored = file.stat().st_size
            size += stored * (1 if file.suffix.lower() in (".jsonl", ".txt", ".xml") else 4)
            of = max(1, -(-stored // TASK_BYTES))
            tasks += [Task(index, file, Stripe(number, of)) for number in range(of)]
    # A document of a thousand bytes has a key of its own, one for each band, and a few for its paragraphs.
    bands = 0 if settings.duplicates == "none" else settings.duplicates.bands
    keys = size // 1000 * (bands + 3)
    # Absolute, for whoever keeps a path longer than the current folder, as fsspec does.
    folder = out.absolute().parent / f".{out.name}.build"
    return Plan(settings, folder, out, tuple(tasks), max(1, -(-keys // KEYS_A_PARTITION)))


def _refuse_overlap(out: Path, place: Path | str, files: list[Path]) -> None:
    if Path(place).is_dir() and out.resolve().is_relative_to(Path(place).resolve()):
        raise DataError(f"{out} lies inside {place}, and would be read too; choose another folder")
    for file in files:
        if file.resolve().is_relative_to(out.resolve()):
            raise DataError(f"{file} lies inside {out}, and would be lost; choose another folder")


def identity(plan: Plan, versions: dict[str, str]) -> dict[str, Any]:
    """What must be unchanged for finished tasks to be worth keeping."""
    files = [task.file for task in plan.tasks if task.file is not None]
    files += [file for texts in plan.settings.evaluation_sets for file in files_of(texts.path)]
    files += judging_files(plan.settings)
    states = {str(file): state_of(file) for file in files}
    return {"recipe": plan.settings.identity(), "files": states, "versions": versions, "tasks": len(plan.tasks)}


def judging_files(settings: CorpusSettings) -> list[Path]:
    """What texts are judged by and may change without the recipe: dictionaries and a tokenizer, as far as they are
    files here."""
    files = list[Path]()
    for filters in map(settings.filters_of, settings.sources):
        if filters is not None and filters.dictionary is not None:
            files += [filters.dictionary.with_suffix(suffix) for suffix in (".dic", ".aff")]
    if settings.token_length is not None:
        files.append(Path(settings.token_length.tokenizer) / "tokenizer.json")
    return [file for file in dict.fromkeys(files) if file.is_file()]


def state_of(file: Path) -> list[int] | None:
    """What changes when a file does, without reading it; None if there is none."""
    try:
        stat = os.stat(file)
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]
