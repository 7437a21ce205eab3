"""Files and folders that are whole or not there: written beside their place, and renamed into it."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import math
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from diffutron.errors import InputError, StorageError


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears whole when the block ends; after an error there is what was there before.

    A link stays one, and what is no file, as ``/dev/stdout``, is written as it is.

    Raises:
        StorageError: the disk refused.
    """
    path = Path(os.path.realpath(path))
    draft = path.with_name(f".{path.name}.tmp")
    try:
        if path.exists() and not path.is_file():
            with open(path, "wb") as stream:
                yield stream
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(draft, "wb") as stream:
            yield stream
        os.replace(draft, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise refused(path, error) from error
        raise


def write_bytes(path: Path, content: bytes) -> None:
    with writing(path) as stream:
        stream.write(content)


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Without numbers that JSON has not (:func:`as_finite`)."""
    write_bytes(
        path, (json.dumps(as_finite(value), ensure_ascii=False, indent=indent, allow_nan=False) + "\n").encode()
    )


def as_finite(value: Any) -> Any:
    """The same dicts, lists and values, with None for numbers that are not finite."""
    match value:
        case dict():
            return {key: as_finite(each) for key, each in value.items()}
        case list() | tuple():
            return [as_finite(each) for each in value]
        case float() if not math.isfinite(value):
            return None
        case _:
            return value


@contextlib.contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A draft folder beside ``folder`` that takes its name, whole, when the block ends, and vanishes if it fails.

    No system can swap two folders everywhere, so the old one steps aside for a moment; :func:`recover` undoes a kill
    in that moment.

    Raises:
        StorageError: the disk refused; what was at ``folder`` before is still there.
    """
    folder = Path(os.path.realpath(folder))  # a link stays one
    draft, old = (folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.{kind}" for kind in ("tmp", "old"))
    try:
        tidy(folder)
        draft.mkdir(parents=True)
        yield draft
        readable = draft.stat().st_mode & 0o666  # safetensors writes files that only their owner can read
        for path in [*draft.rglob("*"), draft]:
            if path.is_file():
                path.chmod(readable)
            _sync(path)
        _exchange(folder, draft, old)
    except StorageError as error:  # of a file in the draft, whose name says nothing to anybody
        raise refused(folder, error.__cause__ or error) from error
    except Exception as error:
        # Libraries in Rust tell the system's refusal in words, and tokenizers with no class of its own.
        if not isinstance(error, OSError | SafetensorError) and "(os error " not in str(error):
            raise
        raise refused(folder, error) from error
    finally:
        tidy(folder)
    with contextlib.suppress(OSError):  # it has its name; whether that survives a power cut is all that is open
        _sync(folder.parent)


def _exchange(folder: Path, draft: Path, old: Path) -> None:
    while True:
        if folder.exists():
            folder.rename(old)
        try:
            draft.rename(folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # A reader met the moment without a folder, and put the old one back.


def refused(place: Path, error: BaseException) -> StorageError:
    """What is raised where the system does not let ``place`` be written, with the way out."""
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())
    return StorageError(
        f"{place} could not be written: {reason}; mend space or permissions, then run the same command again"
    )


def recover(folder: Path) -> None:
    """Give a folder its name back, if its process was killed while :func:`appearing` put a newer one in its place."""
    folder = Path(os.path.realpath(folder))
    with contextlib.suppress(OSError):
        for old in _left_behind(folder, "old"):
            if not folder.exists():
                old.rename(folder)


def tidy(folder: Path) -> None:
    """:func:`recover`, and remove what :func:`appearing` left beside the folder when it was killed or failed."""
    folder = Path(os.path.realpath(folder))
    recover(folder)
    for left in [*_left_behind(folder, "tmp"), *(_left_behind(folder, "old") if folder.exists() else ())]:
        remove(left)


def remove(path: Path) -> None:
    """Delete a folder or a file as far as the disk lets us; whoever needs its name will complain.

    Of a link to a folder, what the folder holds: somebody chose where it lies.
    """
    if path.is_symlink() and path.is_dir():
        for each in path.iterdir():
            remove(each)
    elif path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def check_file(path: Path) -> None:
    """
    Raises:
        InputError: ``path`` can be no file that is to be written: a folder, or in one that is not there.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the file to write")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}")


def check_folder(folder: Path) -> None:
    """
    Raises:
        InputError: ``folder`` can be none: it, or what it would lie in, is a file.
    """
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            within = "" if place == folder else f", and {folder} cannot lie in it"
            raise InputError(f"{place} is a file{within}; choose another folder")


def check_new(folder: Path) -> None:
    """
    Raises:
        InputError: something lies there, or it is the folder that one works in: nothing can take its place.
    """
    if folder.resolve() == Path.cwd():
        raise InputError(f"{folder} is the folder that you are in; name one that is to be made")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty; choose another folder")


def strangers(folder: Path, own: re.Pattern[str]) -> list[Path]:
    """What would be lost if ``folder`` were made anew: a file in its place, or what in it no name of ``own`` fits."""
    if folder.is_dir():
        return sorted(path for path in folder.iterdir() if not own.fullmatch(path.name))
    return [folder] if folder.exists() else []


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _left_behind(folder: Path, kind: str) -> list[Path]:
    return list(folder.parent.glob(f".{glob.escape(folder.name)}.????????.{kind}")) if folder.name else []


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
