"""Recipes: strict YAML read into the frozen pydantic models that stand beside the classes they configure.

This module knows YAML, pydantic and good error messages; it knows no machine learning.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from diffutron.errors import RecipeError


class Settings(BaseModel):
    """Base of every settings model: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


S = TypeVar("S", bound=Settings)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but ``1e-4`` is the number it looks like, ``12:00:00`` is none, and a repeated key is an
    error."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node, seen = super().compose_mapping_node(anchor), set[str]()
        for key, _ in node.value:
            fault = None
            if not isinstance(key, yaml.ScalarNode):
                fault = f"a key is a name, not a {'list' if isinstance(key, yaml.SequenceNode) else 'dict'}"
            elif key.value in seen:
                fault = f"the key {key.value!r} stands twice"
            if fault:
                raise yaml.constructor.ConstructorError(None, None, fault, key.start_mark)
            seen.add(key.value)
        return node


# YAML 1.1 wants a dot and a signed exponent; people write 1e-4.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)
# YAML 1.1 takes 12:00:00 for a number to the base of 60.
for _first in "-+0123456789":
    _Loader.yaml_implicit_resolvers[_first].insert(
        0, ("tag:yaml.org,2002:str", re.compile(r"^[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?$"))
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
        raise RecipeError(f"{place}{line}: not a valid recipe: {' '.join(problem.split())}") from None
    except (ValueError, RecursionError) as error:  # PyYAML lets these through: the day 2024-13-45, a thousand brackets
        raise RecipeError(f"{place}: not a valid recipe: {error}") from None


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
    except (OSError, ValueError) as error:  # no UTF-8, or no path that there can be
        raise RecipeError(f"recipe {path} cannot be read: {error}") from None
    values = parse_yaml(text, place=str(path))
    if values is None:
        values = {}
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
        raise RecipeError(f"{place}: {_explain(error, schema, values)}") from None


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise RecipeError(f"--set {override!r} is not of the form section.key=value")
    *sections, last = key.split(".")
    node = values
    for section in sections:
        child = node.get(section)
        if child is None:  # left out, or written as null
            child = node[section] = {}
        if not isinstance(child, dict):
            raise RecipeError(f"--set {override!r}: {section!r} is not a section")
        node = child
    node[last] = parse_yaml(text, place=f"--set {key}")


def _explain(error: ValidationError, schema: type[BaseModel], values: dict[str, Any]) -> str:
    # An unknown key explains a missing one, so it goes first.
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    kind, location = first["type"], first["loc"]
    if kind == "extra_forbidden":
        *parents, key = location
        section = _as_written(parents, values) or "the recipe"
        nearest = difflib.get_close_matches(str(key), list(_field_names(schema, parents)), n=1, cutoff=0.5)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        return f"{section} has no setting {key!r}{hint}"
    if kind in ("missing", "union_tag_not_found"):
        if kind == "union_tag_not_found":
            location = (*location, first["ctx"]["discriminator"].strip("'"))
        *parents, key = location
        missing = ".".join(filter(None, (_as_written(parents, values), str(key))))
        return f"the setting {missing!r} is missing"
    where = _as_written(location, values)
    place = f"{where}: " if where else ""
    value = first.get("input")
    shown = f" (got {value!r})" if not isinstance(value, dict) else ""
    message = first["msg"].removeprefix("Value error, ")
    # 7654e21 is a number to YAML, and a commit's id to whoever wrote it.
    hint = "; put it in quotes" if kind == "string_type" and not isinstance(value, list | dict | None) else ""
    return f"{place}{message[:1].lower()}{message[1:]}{shown}{hint}"


def _as_written(location: Iterable[Any], values: Any) -> str:
    """A location by the names the user wrote: pydantic puts the tag of a discriminated union into it as well."""
    names = []
    for part in location:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            continue
        names.append(str(part))
    return ".".join(names)


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
        tagged = [model for model in models if part in _tags(model)]
        models = deeper or tagged or models  # a list index: stay where we are
    return {name for model in models for name in model.model_fields}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


def _tags(model: type[BaseModel]) -> set[Any]:
    return {
        value
        for field in model.model_fields.values()
        if get_origin(field.annotation) is Literal
        for value in get_args(field.annotation)
    }
