"""Raw files to records: JSONL, JSON, CSV, text, parquet and Wikipedia dumps, compressed or not. What cannot be read is
reported, the rest is."""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import io
import itertools
import json
import logging
import lzma
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import zstandard

from diffutron.errors import DataError
from diffutron.storage import file_digest

log = logging.getLogger(__name__)

PACKINGS = ("", ".gz", ".zst", ".xz", ".bz2")
SUFFIXES = (
    *(kind + packing for kind in (".jsonl", ".json", ".csv", ".txt", ".xml") for packing in PACKINGS),
    ".parquet",
)
_NOT_IN_FOLDERS = tuple(".json" + packing for packing in PACKINGS)
"""read where it is named; in a folder it is more often about the data than data"""
_READABLE = ".jsonl, .json, .csv, .txt and .xml, plain or as .gz, .zst, .xz or .bz2, and .parquet"
LONGEST_LINE = 64 * 2**20
"""in bytes; a longer line is no document, and would not fit into memory beside its copies"""

_BROKEN = (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)
# Of UTF-16 and UTF-32, in either order of bytes.
_OTHER_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
"""bytes that Python's ``surrogateescape`` has kept"""


@dataclass(frozen=True)
class Fault:
    """A record that could not be read, and why."""

    place: str
    reason: str
    is_fatal: bool = False
    """nothing of the file can be read"""


@dataclass(frozen=True)
class Stripe:
    """Every ``of``-th run of 64 records, from run ``index`` on: how several tasks share a file that has no seams."""

    index: int = 0
    of: int = 1

    def holds(self, number: int) -> bool:
        """Whether record ``number``, counted from 1, belongs to it."""
        return (number - 1) // 64 % self.of == self.index


class Place:
    """How far a file has been read."""

    def __init__(self) -> None:
        self._stream: IO[bytes] | None = None
        self._size = 1
        self._share = 0.0

    def follow(self, file: Path) -> IO[bytes]:
        """Open a file, as it lies on the disk, and look at its position from now on."""
        self._size = max(file.stat().st_size, 1)
        self._stream = open(file, "rb")  # noqa: SIM115 - the caller closes it
        return self._stream

    def reach(self, share: float) -> None:
        self._share = share

    @property
    def share(self) -> float:
        """Between 0 and 1."""
        if self._stream is None or self._stream.closed:
            return self._share
        return min(self._stream.tell() / self._size, 1.0)


WHOLE = Stripe()
OnFault = Callable[[Fault], None]


def warn_of_fault(fault: Fault) -> None:
    log.warning("%s: %s; left out", fault.place, fault.reason)


def files_of(path: Path | str) -> list[Path]:
    """``path`` itself, or the readable files in a folder and below it, in order of name, hidden ones left out.

    Links to folders are followed; a folder to which several lead is read once. Suffixes may be in capitals.

    Raises:
        DataError: nothing there, nothing of a known kind, or a name that is not UTF-8.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(
            file for file in _below(path)
            if file.is_file() and file.name.lower().endswith(SUFFIXES)
            and not file.name.lower().endswith(_NOT_IN_FOLDERS)
        )  # fmt: skip
        if not found:
            raise DataError(f"{path} holds no file of a known kind; readable are {_READABLE}")
    elif not path.is_file():
        raise DataError(f"data file {path} does not exist")
    elif not path.name.lower().endswith(SUFFIXES):
        raise DataError(f"{path}: unknown kind of file; readable are {_READABLE}")
    else:
        found = [path]
    for file in found:
        if _NOT_UTF8.search(str(file)):
            name = os.fsencode(file).decode("utf-8", "backslashreplace")
            raise DataError(f"data file {name}: its name is not UTF-8, so that no report could tell it; rename it")
    return found


def _below(folder: Path) -> Iterator[Path]:
    """The files below a folder that are not hidden."""
    visited = set[str]()
    for here, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(here)) in visited:
            folders.clear()
            continue
        visited.add(real)
        # In order, so that of two ways into one folder it is always the same that counts.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here, name) for name in files if not name.startswith("."))


def digest_of(file: Path) -> str:
    """SHA-256 of a data file's bytes.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return file_digest(file)
    except OSError as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: OSError) -> DataError:
    return DataError(f"data file {file} cannot be read: {error.strerror or ' '.join(str(error).split())}")


def read_records(
    file: Path, on_fault: OnFault = warn_of_fault, stripe: Stripe = WHOLE, place: Place | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each record of a file with its place (``file:line``).

    A line of JSONL is a record, an object in a list of JSON, and a row of CSV under a row of names, between commas,
    semicolons or tabs; in a text file blank lines separate texts, each a record ``{"text": ...}``; a parquet row and an
    article of a Wikipedia dump is one. Broken lines, rows and texts go to ``on_fault``, and so does a file that breaks
    off, after what stood before: to the first stripe's, if several read it.

    Raises:
        DataError: the file cannot be opened at all.
    """
    place = place or Place()
    name = file.name.lower()
    kind = name.removesuffix(Path(name).suffix) if name.endswith(PACKINGS[1:]) else name
    try:
        if kind.endswith(".parquet"):
            yield from _read_parquet(file, on_fault, stripe, place)
        elif kind.endswith(".jsonl"):
            yield from _read_jsonl(file, on_fault, stripe, place)
        elif kind.endswith(".json"):
            yield from _read_json(file, on_fault, stripe, place)
        elif kind.endswith(".csv"):
            yield from _read_csv(file, on_fault, stripe, place)
        elif kind.endswith(".xml"):
            yield from _read_dump(file, on_fault, stripe, place)
        else:
            yield from _read_text(file, on_fault, stripe, place)
    except (*_BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's; those of packed data have no number
            raise _unreadable(file, error) from None
        if stripe.index == 0:
            on_fault(Fault(str(file), f"compressed data ends or breaks off: {error}"))


def read_all(path: Path | str, on_fault: OnFault = warn_of_fault) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of a file or folder with their places.

    Raises:
        DataError: there is no such file, or one of which nothing can be read.
    """

    def refuse_or_tell(fault: Fault) -> None:
        if fault.is_fatal:
            raise DataError(f"data file {fault.place} {fault.reason}")
        on_fault(fault)

    for file in files_of(path):
        yield from read_records(file, refuse_or_tell)


def read_texts(path: Path | str, *, text_field: str = "text", on_fault: OnFault = warn_of_fault) -> Iterator[str]:
    """The texts of a file or folder, as they stand; records without a text go to ``on_fault``.

    Raises:
        DataError: there is no such file, or one of which nothing can be read.
    """
    for place, record in read_all(path, on_fault):
        text = record.get(text_field)
        if isinstance(text, str):
            yield text
        else:
            on_fault(Fault(place, f"has no text in the field {text_field!r}"))


def _lines(file: Path, reached: Place) -> Iterator[tuple[int, bytes]]:
    """Numbered lines; of a line above LONGEST_LINE only the beginning, longer than that by a byte."""
    with _open(file, reached) as stream:
        number = 0
        while raw := stream.readline(LONGEST_LINE + 1):
            number += 1
            yield number, raw
            while len(raw) > LONGEST_LINE and not raw.endswith(b"\n"):
                raw = stream.readline(LONGEST_LINE + 1)


def _decode(raw: bytes, number: int) -> str:
    """Raises ValueError with the fault."""
    if len(raw) > LONGEST_LINE:
        raise ValueError(f"is longer than {LONGEST_LINE >> 20} MB")
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None


class _Zst(io.RawIOBase):
    """What zstandard's own reader is not: it has lines, and a frame that is cut short is an error."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed, self._frame = packed, zstandard.ZstdDecompressor().decompressobj()
        self._has_begun, self._ready = False, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            rest = b""
            if self._frame.eof:
                rest, self._has_begun = self._frame.unused_data, False
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            chunk = rest or self._packed.read(1 << 16)
            if not chunk:
                if self._has_begun:
                    raise EOFError("the last frame of zstandard is not whole")
                return 0
            self._has_begun = True
            self._ready = memoryview(self._frame.decompress(chunk))
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size


def _open_zst(packed: IO[bytes], mode: str) -> IO[bytes]:
    return io.BufferedReader(_Zst(packed), 1 << 16)


@contextlib.contextmanager
def _open(file: Path, reached: Place) -> Iterator[IO[bytes]]:
    unpackers: dict[str, Any] = {".gz": gzip.open, ".zst": _open_zst, ".xz": lzma.open, ".bz2": bz2.open}
    unpack = unpackers.get(file.suffix.lower())
    with reached.follow(file) as raw:
        if unpack is None:
            yield raw
        else:
            with unpack(raw, "rb") as stream:
                yield cast(IO[bytes], stream)


def _read_jsonl(file: Path, on_fault: OnFault, stripe: Stripe, reached: Place) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, raw in _lines(file, reached):
        if not stripe.holds(number) or not raw.strip():
            continue
        place = f"{file}:{number}"
        try:
            line = _decode(raw, number)
        except ValueError as error:
            on_fault(Fault(place, str(error)))
            continue
        try:
            record = _loaded(line)
        except ValueError as error:
            on_fault(Fault(place, str(error)))
            continue
        if fault := _fault_of(record, may_hold_surrogates="\\u" in line):
            on_fault(Fault(place, fault))
        else:
            yield place, record


def _read_json(file: Path, on_fault: OnFault, stripe: Stripe, reached: Place) -> Iterator[tuple[str, dict[str, Any]]]:
    """A list of objects; its records are numbered, for they have no lines. The whole file is in memory."""
    with _open(file, reached) as stream:
        raw = stream.read()
    try:
        text = raw.decode("utf-8-sig")
        found, told = (_loaded(text) if text.strip() else []), ""
    except UnicodeDecodeError:
        found, told = None, "is not UTF-8"
    except ValueError as error:
        found, told = None, str(error)
    if not isinstance(found, list):
        if stripe.index == 0:
            on_fault(
                Fault(str(file), told or f"is a JSON {type(found).__name__}, not a list of objects", is_fatal=True)
            )
        return
    for number, record in enumerate(found, 1):
        if not stripe.holds(number):
            continue
        place = f"{file}:{number}"
        if fault := _fault_of(record, may_hold_surrogates="\\u" in text):
            on_fault(Fault(place, fault))
        else:
            yield place, record


def _loaded(text: str) -> Any:
    """Raises ValueError with the fault."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"broken JSON ({getattr(error, 'msg', None) or type(error).__name__})") from None


def _fault_of(record: Any, *, may_hold_surrogates: bool) -> str | None:
    """What keeps a JSON value from being a record. A lone surrogate is legal JSON and no text: it cannot be written or
    tokenised."""
    if may_hold_surrogates:
        try:
            json.dumps(record, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            return f"broken JSON ({error.reason})"
        except RecursionError as error:
            return f"broken JSON ({type(error).__name__})"
    return None if isinstance(record, dict) else f"is a JSON {type(record).__name__}, not an object"


def _read_csv(file: Path, on_fault: OnFault, stripe: Stripe, reached: Place) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(LONGEST_LINE)
    with _open(file, reached) as stream:
        lines = io.TextIOWrapper(cast(Any, stream), encoding="utf-8-sig", errors="surrogateescape", newline="")
        number = skipped = 0
        try:
            while (head := lines.readline()) and not head.strip():
                skipped += 1
            mark = max(",;\t", key=head.count)
            rows = csv.DictReader(itertools.chain([head], lines), delimiter=mark, strict=True)
            names = rows.fieldnames or ()
            if told := _fault_of_names(names):
                if stripe.index == 0:
                    on_fault(Fault(str(file), told, is_fatal=True))
                return
            for number, row in enumerate(rows, 1):
                place = f"{file}:{skipped + rows.line_num}"
                if not stripe.holds(number):
                    continue
                if None in row or None in row.values():
                    on_fault(Fault(place, f"has not as many fields as the {len(names)} names above"))
                elif any(map(_NOT_UTF8.search, row.values())):
                    on_fault(Fault(place, "is not UTF-8"))
                else:
                    yield place, dict(row)
        except csv.Error as error:
            if stripe.index == 0:
                told = f"broken CSV ({error}); nothing more of the file can be read"
                on_fault(Fault(f"{file}, after row {number}", told))


def _fault_of_names(names: Sequence[str]) -> str:
    """What keeps a row from being the names of columns; a column without a name is none that anybody asks for."""
    if any(map(_NOT_UTF8.search, names)):
        return "has names of columns that are not UTF-8"
    twice = [name for name, count in Counter(filter(None, names)).items() if count > 1]
    return f"has several columns of the name {twice[0]!r}" if twice else ""


def _read_text(file: Path, on_fault: OnFault, stripe: Stripe, reached: Place) -> Iterator[tuple[str, dict[str, Any]]]:
    texts, start, lines, fault = 0, 1, list[str](), None
    for number, raw in itertools.chain(_lines(file, reached), [(0, b"")]):  # a blank line ends the last text
        # In UTF-16 the first text would never end; a NUL byte in a later one is a stray.
        if (number == 1 and raw.startswith(_OTHER_MARKS)) or (texts == 0 and b"\0" in raw):
            if stripe.index == 0:
                on_fault(Fault(str(file), "is not UTF-8 (UTF-16, perhaps); save it as UTF-8", is_fatal=True))
            return
        try:
            line = _decode(raw, number)
        except ValueError as error:
            line = "?"
            fault = fault or Fault(f"{file}:{number}", f"{error}, so that the text around it is left out")
        if line.strip():
            start = start if lines else number
            lines.append(line)
        elif lines:
            texts += 1
            if stripe.holds(texts):
                if fault is None:
                    yield f"{file}:{start}", {"text": "".join(lines)}
                else:
                    on_fault(fault)
            lines, fault = [], None


def _read_dump(file: Path, on_fault: OnFault, stripe: Stripe, reached: Place) -> Iterator[tuple[str, dict[str, Any]]]:
    from diffutron.corpus.wikipedia import DumpError, articles

    with _open(file, reached) as stream:
        try:
            for number, title, text in articles(stream, stripe.holds):
                yield f"{file}:{number}", {"title": title, "text": text}
        except DumpError as error:
            if stripe.index == 0:
                on_fault(Fault(str(file), str(error)))


def _read_parquet(
    file: Path, on_fault: OnFault, stripe: Stripe, reached: Place
) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow.parquet
    from pyarrow.lib import ArrowException

    row = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=64):
                start, row = row, row + batch.num_rows
                reached.reach(row / table.metadata.num_rows)
                if not any(stripe.holds(number) for number in (start + 1, row)):
                    continue
                for number, record in enumerate(_rows(batch), start + 1):
                    if not stripe.holds(number):
                        continue
                    if isinstance(record, str):
                        on_fault(Fault(f"{file}:{number}", record))
                    else:
                        yield f"{file}:{number}", record
    except (FileNotFoundError, PermissionError):
        raise
    except (ArrowException, OSError) as error:  # rotten pages come as OSError
        if stripe.index == 0:
            line = " ".join(str(error).split())[:120]
            on_fault(Fault(str(file), f"is not readable parquet: {line}", is_fatal=True))


def _rows(batch: Any) -> list[dict[str, Any] | str]:
    """The rows of an Arrow batch; of one that Python cannot hold, why: Arrow does not check its strings, knows years
    beyond 9999, and takes any name for a time zone."""
    try:
        return list(batch.to_pylist())
    except (ValueError, ArithmeticError, LookupError) as error:
        if batch.num_rows > 1:
            return [row for index in range(batch.num_rows) for row in _rows(batch.slice(index, 1))]
        if isinstance(error, UnicodeDecodeError):
            return ["is not UTF-8"]
        return [f"holds a value that Python cannot ({' '.join(str(error).split())})"]
