"""What the steps of a build hand to each other in files, each whole or not there."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import zstandard
from datatrove.data import Document
from numpy.typing import NDArray

from diffutron.corpus.plan import Plan
from diffutron.storage import write_json, writing

KEY = np.dtype([("key", "<u8"), ("id", "<u8")])
"""a key of a document, and the document's id"""
END = np.dtype([("id", "<u8"), ("reason", "u1")])
REASONS = ("exact duplicate", "near duplicate", "above the cap")


def document_ids(task: int, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The ids of a task's documents by their numbers: ordered as sources, files and records are."""
    return numbers | np.uint64(task << 32)


def number_in_task(document_id: int) -> int:
    return document_id & 0xFFFFFFFF


class Part:
    """A gzip file of records, written whole or not at all; equal records make equal bytes."""

    def __init__(self, path: Path) -> None:
        self.path, self._digest = path, hashlib.sha256()

    def __enter__(self) -> Part:
        self._stack = contextlib.ExitStack()
        raw = self._stack.enter_context(writing(self.path))
        # No name and no time in the header.
        self._stream = self._stack.enter_context(gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def write(self, record: dict[str, Any]) -> None:
        line = (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8")
        self._digest.update(line)
        self._stream.write(line)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()


class Beat:
    """Says at most once a second, in a file, how far a task is."""

    def __init__(self, path: Path) -> None:
        self.path, self._next = path, 0.0

    def __call__(self, share: float, read: int, *, last: bool = False) -> None:
        if last or time.monotonic() >= self._next:
            self._next = time.monotonic() + 1
            write_json(self.path, [share, read], indent=None)


def write_array(path: Path, values: NDArray[Any]) -> None:
    with writing(path) as stream:
        np.save(stream, values, allow_pickle=False)


def packing(raw: IO[bytes]) -> Any:
    return zstandard.ZstdCompressor(level=1).stream_writer(raw, closefd=False)


def read_texts_of(plan: Plan, rank: int) -> Iterator[Document]:
    """The documents that a task's :class:`KeepTexts` wrote."""
    with zstandard.open(plan.file("texts", rank, "jsonl.zst"), "rb") as stream:
        for line in io.BufferedReader(stream):
            record = json.loads(line)
            yield Document(record.pop("text"), "", metadata=record)


def keys_of_partition(plan: Plan, kind: str, partition: int) -> NDArray[Any]:
    """The keys of all tasks that lie in one of the plan's equal parts of the 64-bit numbers."""
    low, high = ((partition + step) * 2**64 // plan.num_partitions for step in (0, 1))
    parts = [np.empty(0, dtype=KEY)]
    for file in plan.files(f"keys-{kind}", "npy"):
        table = np.load(file, mmap_mode="r") if file.stat().st_size > 4096 else np.load(file)
        keys = table["key"]
        start = int(np.searchsorted(keys, np.uint64(low)))
        end = len(keys) if high == 2**64 else int(np.searchsorted(keys, np.uint64(high)))
        parts.append(np.array(table[start:end]))
    return np.concatenate(parts)


def rows_of_task(ids: NDArray[np.uint64], rank: int) -> slice:
    firsts = [document_ids(task, np.zeros(1, np.uint64)) for task in (rank, rank + 1)]
    return slice(*np.searchsorted(ids, np.concatenate(firsts)).tolist())
