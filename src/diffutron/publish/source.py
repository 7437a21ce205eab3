"""What is published: a training run, an adapter or a model, and what is known of how it came to be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffutron.corpus import read_texts
from diffutron.errors import ModelError
from diffutron.model.names import EMBEDDED, resolve_model, weights_in


@dataclass(frozen=True)
class Source:
    """A folder to publish from.

    Attributes:
        weights: where the model or adapter lies.
        manifest: the run's, empty if there is none.
        corpus: what the corpus report counts, empty if there is none.
        recipe: the run's recipe as YAML.
        train: the corpus's training part, if it is still there.
        base_id: what the hub calls the model that an adapter adapts, if it is there.
    """

    weights: Path
    manifest: dict[str, Any]
    corpus: dict[str, Any]
    recipe: str | None
    train: Path | None
    base_id: str | None

    @classmethod
    def of(cls, name: str, *, base_id: str | None = None) -> Source:
        """
        Args:
            base_id: the base's name on the hub, if the adapter was trained on a folder.

        Raises:
            ModelError: there is no such folder, or nothing in it to publish.
        """
        place = resolve_model(name)
        if not isinstance(place, Path):
            raise ModelError(f"{name} is on the hub already; publish a folder")
        weights = weights_in(place)
        if not any((weights / each).is_file() for each in ("config.json", "adapter_config.json")):
            raise ModelError(f"{name} holds neither a model nor an adapter: there is no config.json")
        manifest = _json(place / "run.json") or _json(weights / "training.json")
        corpus = _json(place / "corpus" / "report.json") or manifest.get("corpus") or {}
        if sizes := corpus.get("by_source"):  # a source without a name has its path for one
            corpus = {**corpus, "by_source": {_last_of(label): size for label, size in sizes.items()}}
        recipe = next((each for each in (place / "recipe.yaml", weights / "recipe.yaml") if each.is_file()), None)
        train = place / "corpus" / "train.jsonl.gz"
        return cls(
            weights, {key: value for key, value in manifest.items() if key not in ("command", "corpus")}, corpus,
            recipe.read_text(encoding="utf-8") if recipe else None, train if train.is_file() else None,
            base_id or _hub_id_in(weights),
        )  # fmt: skip

    @property
    def hub_sources(self) -> list[dict[str, Any]]:
        """Of the corpus recipe, the sources that are data sets on the hub."""
        sources = (self.corpus.get("recipe") or {}).get("sources", [])
        return [each for each in sources if each.get("hub")]

    @property
    def is_adapter(self) -> bool:
        return (self.weights / "adapter_config.json").is_file()

    @property
    def base(self) -> str | None:
        """What an adapter adapts, by the name that others can use, or at least know it by."""
        if not self.is_adapter:
            return None
        base = _base_in(self.weights)
        return self.base_id or (_last_of(base) if base else None)

    @property
    def has_usable_base(self) -> bool:
        """Whether whoever loads the adapter elsewhere will find its base."""
        return self.base_id is not None or self.base in EMBEDDED

    def training_texts(self) -> Iterator[str]:
        return read_texts(self.train) if self.train is not None else iter(())


def _last_of(name: str) -> str:
    """The end of an absolute path, any other name as it is."""
    return Path(name).name if Path(name).is_absolute() else name


def _base_in(weights: Path) -> str | None:
    base = _json(weights / "adapter_config.json").get("base_model_name_or_path")
    return str(base) if base else None


def _hub_id_in(weights: Path) -> str | None:
    """Folders are recorded as absolute paths, or from the adapter's place; embedded models without a slash."""
    base = _base_in(weights)
    is_folder = base is None or base.startswith(".") or Path(base).is_absolute() or (weights / base).is_dir()
    return base if not is_folder and base is not None and "/" in base else None


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
