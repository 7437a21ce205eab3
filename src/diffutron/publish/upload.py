"""To the hub, file by file: one that lies there already is passed over, so an upload that broke off goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from httpx import HTTPError
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from diffutron.errors import InputError
from diffutron.storage import file_digest


def check_repository(repository: str) -> None:
    """
    Raises:
        InputError: no repository of the hub can be called that.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise InputError(f"{repository!r} is no hub id: {' '.join(str(error).split())}") from None
    if "/" not in repository:
        raise InputError(f"{repository!r} does not say whose it is; give org/name")


def upload(
    folder: Path, repository: str, *, private: bool = False, api: HfApi | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:  # fmt: skip
    """Make the repository if need be, and put every file of ``folder`` into it.

    Returns:
        The files that had to be sent.

    Raises:
        InputError: the hub cannot be reached, or refuses; or the repository is public where a private one is wanted.
    """
    api = api or HfApi()
    files = sorted(path for path in folder.iterdir() if path.is_file())
    sent = []
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        if private and not api.repo_info(repository).private:
            raise InputError(f"{repository} exists and is public; make it private on the hub, or leave out --private")
        there: dict[str, Any] = {
            each.path: each for each in api.get_paths_info(repository, [path.name for path in files])
        }
        for done, path in enumerate(files):
            on_progress(done, len(files))
            if not _is_same(path, there.get(path.name)):
                api.upload_file(
                    path_or_fileobj=path, path_in_repo=path.name, repo_id=repository, commit_message=f"Add {path.name}"
                )
                sent.append(path.name)
        on_progress(len(files), len(files))
    except (HfHubHTTPError, HTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{repository} could not be written: {reason}; the same command goes on where it stopped"
        ) from None
    return sent


def _is_same(path: Path, there: Any) -> bool:
    """By SHA-256 for large files, and as git names the others."""
    if there is None or there.size != path.stat().st_size:
        return False
    lfs = getattr(there, "lfs", None)
    if lfs is not None:
        return bool(file_digest(path) == lfs.sha256)
    data = path.read_bytes()
    return bool(hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == there.blob_id)
