"""What is published: a training run, an adapter or a model, and what is known of how it came to be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffutron.corpus import read_texts
from diffutron.errors import ModelError
from diffutron.model.names import resolve_model


@dataclass(frozen=True)
class Source:
    """A folder to publish from.

    Attributes:
        weights: where the model or adapter lies.
        manifest: the run's, empty if there is none.
        corpus: what the corpus report counts, empty if there is none.
        recipe: the run's recipe as YAML.
        train: the corpus's training part, if it is still there.
    """

    weights: Path
    manifest: dict[str, Any]
    corpus: dict[str, Any]
    recipe: str | None
    train: Path | None

    @classmethod
    def of(cls, name: str) -> Source:
        """
        Raises:
            ModelError: there is no such folder, or nothing in it to publish.
        """
        place = resolve_model(name)
        if not isinstance(place, Path):
            raise ModelError(f"{name} is on the hub already; publish a folder")
        weights = next((place / each for each in ("adapter", "model") if (place / each).is_dir()), place)
        if not any((weights / each).is_file() for each in ("config.json", "adapter_config.json")):
            raise ModelError(f"{name} holds neither a model nor an adapter: there is no config.json")
        manifest = _json(place / "run.json") or _json(weights / "training.json")
        corpus = _json(place / "corpus" / "report.json") or manifest.get("corpus") or {}
        recipe = next((each for each in (place / "recipe.yaml", weights / "recipe.yaml") if each.is_file()), None)
        train = place / "corpus" / "train.jsonl.gz"
        return cls(
            weights, {key: value for key, value in manifest.items() if key not in ("command", "corpus")}, corpus,
            recipe.read_text(encoding="utf-8") if recipe else None, train if train.is_file() else None,
        )  # fmt: skip

    @property
    def is_adapter(self) -> bool:
        return (self.weights / "adapter_config.json").is_file()

    @property
    def base(self) -> str | None:
        """What an adapter adapts, by its name."""
        if not self.is_adapter:
            return None
        base = _json(self.weights / "adapter_config.json").get("base_model_name_or_path")
        return Path(str(base)).name if base and Path(str(base)).is_absolute() else base

    def training_texts(self) -> Iterator[str]:
        return read_texts(self.train) if self.train is not None else iter(())


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
