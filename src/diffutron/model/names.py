"""From what a user calls a model to where it lies: an embedded name, a folder, or a hub id."""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
import json
import os
import re
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from diffutron.errors import ModelError

EMBEDDED = ("mini", "mini-base", "mini-instruct")
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+(@[\w.-]+)?$")


def is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")


def go_offline() -> None:
    """No hub from here on: Hugging Face's libraries read these when they are imported or asked."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ[name] = "1"


def resolve_model(name: str) -> Path | str:
    """A folder for embedded models and local folders, the id itself for the hub.

    Raises:
        ModelError: no such folder, and not a hub id either; or an embedded model that is not installed.
    """
    if not name.strip():
        raise ModelError(f"no model is named; embedded are {', '.join(EMBEDDED)}")
    if name in EMBEDDED:
        folder = embedded_file(name)
        if folder is None:
            raise ModelError(f"model {name!r} is not among the models installed; pip install -U 'diffutron[mini]' "
                             "brings those that ship, and in a checkout pip install ./models/mini")  # fmt: skip
        return folder
    path = Path(name)
    if path.is_dir():
        return path
    if path.exists():
        raise ModelError(f"model {name!r} is a file; give the folder that holds config.json")
    if _HUB_ID.match(name) and not name.startswith("."):
        return name
    nearest = difflib.get_close_matches(name, EMBEDDED, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else f"; embedded are {', '.join(EMBEDDED)}"
    raise ModelError(f"model {name!r} is neither an embedded model, a folder, nor a hub id{hint}")


def split_revision(name: str) -> tuple[str, str | None]:
    """A hub id without its revision, and the revision: ``org/name@rev``."""
    repository, _, revision = name.partition("@")
    return repository, revision or None


def weights_in(place: Path) -> Path:
    """Where a model or an adapter lies in ``place``: there, or in a training run's folder of the result."""
    if any((place / name).is_file() for name in ("config.json", "adapter_config.json")):
        return place
    return next((place / name for name in ("adapter", "model") if (place / name).is_dir()), place)


def embedded_file(name: str) -> Path | None:
    """A file or folder among what ships beside the code: in ``diffutron-mini``, else in the checkout that pip installed
    diffutron from."""
    spec = importlib.util.find_spec("diffutron_mini")
    roots = [Path(root) for root in (spec.submodule_search_locations or [] if spec else [])]
    checkout = _checkout()
    if checkout is not None:
        roots.append(checkout / "models" / "mini" / "src" / "diffutron_mini")
    return next((root / name for root in roots if (root / name).exists()), None)


def _checkout() -> Path | None:
    """The folder of ``pip install .``, as pip records it (PEP 610)."""
    try:
        record = importlib.metadata.distribution("diffutron").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    url = urlparse(json.loads(record or "{}").get("url", ""))
    return Path(url2pathname(url.path)) if url.scheme == "file" else None
