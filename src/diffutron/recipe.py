"""Recipes: strict YAML read into the frozen pydantic models that stand beside the classes they configure.

This module knows YAML, pydantic and good error messages; it knows no machine learning.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from diffutron.errors import RecipeError


class Settings(BaseModel):
    """Base of every settings model: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


S = TypeVar("S", bound=Settings)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but ``1e-4`` is the number it looks like and a repeated key is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)  # type: ignore[no-untyped-call]
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 wants a dot and a signed exponent; people write 1e-4.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def parse_yaml(text: str, *, place: str) -> Any:
    """Parse YAML with the safe loader.

    Raises:
        RecipeError: not YAML, or a key stands twice; names ``place`` and the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise RecipeError(f"{place}{line}: not a valid recipe: {problem}") from None


def load_recipe(path: Path | str, schema: type[S], overrides: Iterable[str] = ()) -> S:
    """Read a recipe file, apply ``--set a.b=value`` overrides and check it against ``schema``.

    Raises:
        RecipeError: names the file, the key or value, and the nearest known key.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"recipe {path} does not exist; `diffutron recipe ls` lists the ones that ship") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} cannot be read: {error}") from None
    values = parse_yaml(text, place=str(path)) or {}
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of settings, not a {type(values).__name__}")
    for override in overrides:
        _apply_override(values, override)
    return check(values, schema, place=str(path))


def check(values: dict[str, Any], schema: type[S], *, place: str) -> S:
    """Validate ``values`` against ``schema``; the first fault becomes one clear line."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{place}: {_explain(error, schema)}") from None


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise RecipeError(f"--set {override!r} is not of the form section.key=value")
    *sections, last = key.split(".")
    node = values
    for section in sections:
        child = node.setdefault(section, {})
        if not isinstance(child, dict):
            raise RecipeError(f"--set {override!r}: {section!r} is not a section")
        node = child
    node[last] = parse_yaml(text, place=f"--set {key}")


def _explain(error: ValidationError, schema: type[BaseModel]) -> str:
    first = error.errors()[0]
    # Discriminated unions put their tag into the location; only names the user wrote are worth printing.
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        *parents, key = first["loc"]
        section = ".".join(str(part) for part in parents) or "the recipe"
        nearest = difflib.get_close_matches(str(key), list(_field_names(schema, parents)), n=1, cutoff=0.5)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        return f"{section} has no setting {key!r}{hint}"
    if first["type"] == "missing":
        return f"the setting {where!r} is missing"
    value = first.get("input")
    shown = f" (got {value!r})" if not isinstance(value, dict) else ""
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message[:1].lower()}{message[1:]}{shown}"


def _field_names(schema: type[BaseModel], parents: Iterable[Any]) -> set[str]:
    """The names a section knows; the last section's own where it can be found, else every name in the schema."""
    models: list[type[BaseModel]] = [schema]
    for part in parents:
        deeper = [
            inner
            for model in models
            if part in model.model_fields
            for inner in _models_in(model.model_fields[part].annotation)
        ]
        models = deeper or models  # a list index or a union tag: stay where we are
    return {name for model in models for name in model.model_fields}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)
