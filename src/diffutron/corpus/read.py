"""Raw files to records: JSONL, text and parquet, compressed or not. What cannot be read is reported, the rest is."""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from diffutron.errors import DataError

log = logging.getLogger(__name__)

SUFFIXES = (".jsonl", ".jsonl.gz", ".txt", ".txt.gz", ".parquet")


@dataclass(frozen=True)
class Fault:
    """A record that could not be read, and why."""

    place: str
    reason: str


OnFault = Callable[[Fault], None]


def warn_of_fault(fault: Fault) -> None:
    log.warning("%s: %s; left out", fault.place, fault.reason)


def files_of(path: Path | str) -> list[Path]:
    """``path`` itself, or the readable files in a folder and below it, in order of name.

    Raises:
        DataError: nothing there, or nothing of a known kind.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file() and file.name.endswith(SUFFIXES))
        if not found:
            raise DataError(f"{path} holds no {', '.join(SUFFIXES)} file")
        return found
    if not path.is_file():
        raise DataError(f"data file {path} does not exist")
    if not path.name.endswith(SUFFIXES):
        raise DataError(f"{path}: unknown kind of file; readable are {', '.join(SUFFIXES)}")
    return [path]


def read_records(file: Path, on_fault: OnFault = warn_of_fault) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each record of a file with its place (``file:line``).

    A line of JSONL is a record; in a text file blank lines separate texts, each a record ``{"text": ...}``; a parquet
    row is a record. Broken lines go to ``on_fault``; a file that breaks off gives what stood before.

    Raises:
        DataError: the file cannot be opened at all.
    """
    try:
        if file.name.endswith(".parquet"):
            yield from _read_parquet(file, on_fault)
        elif file.name.endswith((".jsonl", ".jsonl.gz")):
            yield from _read_jsonl(file, on_fault)
        else:
            yield from _read_text(file, on_fault)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        on_fault(Fault(str(file), f"compressed data ends or breaks off: {error}"))
    except OSError as error:
        raise DataError(f"data file {file} cannot be read: {error.strerror or ' '.join(str(error).split())}") from None


def read_texts(path: Path | str, *, text_field: str = "text", on_fault: OnFault = warn_of_fault) -> Iterator[str]:
    """The texts of a file or folder, as they stand; records without a text go to ``on_fault``."""
    for file in files_of(path):
        for place, record in read_records(file, on_fault):
            text = record.get(text_field)
            if isinstance(text, str):
                yield text
            else:
                on_fault(Fault(place, f"has no text in the field {text_field!r}"))


def _lines(file: Path, on_fault: OnFault) -> Iterator[tuple[int, str]]:
    with _open(file) as stream:
        for number, raw in enumerate(stream, start=1):
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                on_fault(Fault(f"{file}:{number}", "is not UTF-8"))


def _open(file: Path) -> IO[bytes]:
    return gzip.open(file, "rb") if file.name.endswith(".gz") else open(file, "rb")  # type: ignore[return-value]


def _read_jsonl(file: Path, on_fault: OnFault) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in _lines(file, on_fault):
        if not line.strip():
            continue
        place = f"{file}:{number}"
        try:
            record = json.loads(line)
            # A lone surrogate is legal JSON and no text: it cannot be written or tokenised.
            json.dumps(record, ensure_ascii=False).encode("utf-8")
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", None) or getattr(error, "reason", None) or type(error).__name__
            on_fault(Fault(place, f"broken JSON ({reason})"))
            continue
        if isinstance(record, dict):
            yield place, record
        else:
            on_fault(Fault(place, f"is a JSON {type(record).__name__}, not an object"))


def _read_text(file: Path, on_fault: OnFault) -> Iterator[tuple[str, dict[str, Any]]]:
    start, lines = 1, list[str]()
    for number, line in _lines(file, on_fault):
        if line.strip():
            if not lines:
                start = number
            lines.append(line)
        elif lines:
            yield f"{file}:{start}", {"text": "".join(lines)}
            lines = []
    if lines:
        yield f"{file}:{start}", {"text": "".join(lines)}


def _read_parquet(file: Path, on_fault: OnFault) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow.parquet
    from pyarrow.lib import ArrowException

    try:
        row = 0
        with pyarrow.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=1024):
                for record in _rows(batch):
                    row += 1
                    if record is None:
                        on_fault(Fault(f"{file}:{row}", "is not UTF-8"))
                    else:
                        yield f"{file}:{row}", record
    except ArrowException as error:
        raise DataError(f"data file {file} is not readable parquet: {' '.join(str(error).split())[:120]}") from None


def _rows(batch: Any) -> list[dict[str, Any] | None]:
    """The rows of an Arrow batch, None for those that are not UTF-8: Arrow does not check its strings."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [None]
        return [row for index in range(batch.num_rows) for row in _rows(batch.slice(index, 1))]
