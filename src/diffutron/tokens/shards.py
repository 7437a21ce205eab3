"""Token rows on disk: written as they are made, opened in no time, and read a page at a time whatever their number.

A folder holds ``tokens-00000.bin`` and so on, ids of 2 or 4 bytes end to end, where no row crosses two files;
``offsets.bin``, where each row begins and the last one ends, 8 bytes each, counted over all files; and ``shards.json``.
All numbers are little-endian.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffutron.errors import DataError
from diffutron.storage import appearing, file_digest, strangers, write_json
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.rows import NOTHING_LEFT, LongTexts, Rows

log = logging.getLogger(__name__)

FORMAT = 2
SHARD_TOKENS = 2**27
_MANIFEST, _OFFSETS = "shards.json", "offsets.bin"
_PARTS = re.compile(rf"{re.escape(_MANIFEST)}|{re.escape(_OFFSETS)}|tokens-.*\.bin")
_LITTLE_ENDIAN = {"uint16": "<u2", "uint32": "<u4"}
_OFFSET = "<i8"


@dataclass(frozen=True)
class Origin:
    """What rows depend on. ``corpus`` and ``tokenizer`` are fingerprints."""

    corpus: str
    tokenizer: str
    start_id: int
    end_id: int
    max_tokens: int
    long_texts: LongTexts
    chat: str | None = None
    """how conversations are put, as a fingerprint; rows are marked then"""

    @classmethod
    def of(
        cls, codec: TextCodec, *, corpus: str, max_tokens: int, long_texts: LongTexts = "split", chat: str | None = None
    ) -> Origin:
        return cls(corpus, codec.fingerprint, codec.start_id, codec.end_id, max_tokens, long_texts, chat)


class ShardedTokens:
    """Several files of ids that read like one array; a part must lie in one of them."""

    def __init__(self, shards: Sequence[NDArray[Any]]) -> None:
        self._shards = shards
        self._starts = [0, *np.cumsum([len(shard) for shard in shards]).tolist()]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, part: slice, /) -> NDArray[np.int32]:
        number = bisect.bisect_right(self._starts, part.start, hi=len(self._shards)) - 1
        start = self._starts[number]
        return self._shards[number][part.start - start : part.stop - start].astype(np.int32)


def ensure_shards(rows: Iterable[Sequence[int]], codec: TextCodec, folder: Path, origin: Origin) -> Rows:
    """The rows in ``folder``, if they are whole and of this origin; else :func:`write_shards`.

    ``rows`` are asked for only if they are needed.
    """
    try:
        if folder.exists() and _read_manifest(folder).get("origin") == asdict(origin):
            return open_shards(folder, verify=True)
    except DataError as error:
        log.warning("%s; that is done now", error)
    return write_shards(rows, codec, folder, origin)


def write_shards(
    rows: Iterable[Sequence[int]], codec: TextCodec, folder: Path, origin: Origin, *, shard_tokens: int = SHARD_TOKENS
) -> Rows:
    """Write rows into a folder that appears whole, instead of older ones; memory does not grow with them.

    Args:
        rows: with :data:`~diffutron.tokens.rows.LEARNED` on what is learned, if the origin is one of conversations.
        shard_tokens: most tokens of a file, unless a row alone has more.

    Raises:
        DataError: there is no row, or ``folder`` holds something else. StorageError: the disk refused.
    """
    if others := strangers(folder, _PARTS):
        raise DataError(f"{others[0]} is no part of token rows and would be lost; choose another folder for the rows")
    dtype = "uint16" if len(codec.starts_word) <= 2**16 and origin.chat is None else "uint32"
    with appearing(folder) as draft:
        written = _write_files(rows, draft, _LITTLE_ENDIAN[dtype], shard_tokens)
        write_json(draft / _MANIFEST, {"format": FORMAT, "dtype": dtype, **written, "origin": asdict(origin)})
    return open_shards(folder)


def open_shards(folder: Path, *, verify: bool = False) -> Rows:
    """The rows of a folder, mapped into memory.

    Args:
        verify: read everything and compare digests; else only the files' sizes are looked at.

    Raises:
        DataError: a file is missing, cut off or altered, or of a format that we do not know.
    """
    manifest = _read_manifest(folder)
    try:
        files, dtype = manifest["files"], _LITTLE_ENDIAN[manifest["dtype"]]
        for name, expected in files.items():
            _check(folder / name, expected, verify=verify)
        maps = {
            name: np.asarray(np.memmap(folder / name, _OFFSET if name == _OFFSETS else dtype, "r")) for name in files
        }
        offsets = maps.pop(_OFFSETS)
        tokens = ShardedTokens(list(maps.values()))
        if (len(offsets) - 1, len(tokens)) != (manifest["rows"], manifest["tokens"]):
            raise ValueError("it contradicts itself")
        marked = manifest["origin"]["chat"] is not None
        return Rows(tokens, offsets, known_fingerprint=manifest["fingerprint"], marked=marked)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _broken(folder / _MANIFEST, f"cannot be used ({error})") from None


def _write_files(rows: Iterable[Sequence[int]], folder: Path, dtype: str, shard_tokens: int) -> dict[str, Any]:
    """Write tokens and offsets; what the manifest says of them."""
    digest = hashlib.sha256()  # of what Rows.fingerprint reads
    files: dict[str, _File] = {}
    num_rows = num_tokens = room = 0
    with contextlib.ExitStack() as stack:
        offsets = files[_OFFSETS] = stack.enter_context(_File(folder / _OFFSETS))
        offsets.write(np.zeros(1, _OFFSET).tobytes())
        for row in rows:
            if num_rows == 0 or len(row) > room:
                shard = _File(folder / f"tokens-{len(files) - 1:05d}.bin")
                files[shard.path.name] = stack.enter_context(shard)
                room = shard_tokens
            ids = np.asarray(row, dtype=dtype)
            shard.write(ids.tobytes())
            digest.update(ids.astype(np.int32).tobytes())
            room -= len(row)
            num_rows, num_tokens = num_rows + 1, num_tokens + len(row)
            offsets.write(num_tokens.to_bytes(8, "little"))
    if num_rows == 0:
        raise DataError(NOTHING_LEFT)
    with open(folder / _OFFSETS, "rb") as stream:
        while part := stream.read(2**16):
            digest.update(part)
    return {
        "rows": num_rows, "tokens": num_tokens, "fingerprint": digest.hexdigest()[:16],
        "files": {name: {"bytes": file.bytes, "sha256": file.digest.hexdigest()} for name, file in files.items()},
    }  # fmt: skip


class _File:
    """A file that counts and digests what is written into it."""

    def __init__(self, path: Path) -> None:
        self.path, self.bytes, self.digest = path, 0, hashlib.sha256()
        self._stream = open(path, "wb")  # noqa: SIM115 - closed with the block that it opens

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def write(self, data: bytes) -> None:
        self._stream.write(data)
        self.digest.update(data)
        self.bytes += len(data)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / _MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found = manifest["format"]
    except OSError as error:
        raise _broken(path, f"cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError):
        raise _broken(path, "does not describe token rows") from None
    if found != FORMAT:
        raise _broken(path, f"has format {found!r}, and {FORMAT} is what this version reads")
    return dict(manifest)


def _check(path: Path, expected: dict[str, Any], *, verify: bool) -> None:
    try:
        size = path.stat().st_size
        if size != expected["bytes"]:
            raise _broken(path, f"has {size} bytes of {expected['bytes']}")
        if verify and file_digest(path) != expected["sha256"]:
            raise _broken(path, "was altered: its digest is another")
    except OSError as error:
        raise _broken(path, f"cannot be read ({error.strerror})") from None


def _broken(path: Path, what: str) -> DataError:
    return DataError(f"{path} {what}; the rows must be made again")
