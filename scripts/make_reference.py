"""Write `docs/reference/recipes.md` from the settings themselves: python scripts/make_reference.py

A test compares the file with what this prints, so that a setting cannot change without its page.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffutron.cli.recipes import purpose_of, recipe_folder
from diffutron.corpus import CorpusSettings
from diffutron.training.recipe import TrainRecipe
from diffutron.training.run import MAY_CHANGE

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "recipes.md"

HEAD = """# Recipes: every setting

Made by `python scripts/make_reference.py`; change the settings, not this page.

A recipe is a YAML file. `diffutron recipe check FILE` checks one and prints all its settings with their values;
`diffutron recipe schema train` and `diffutron recipe schema corpus` print the JSON schemas, which many editors use for
completion. Unknown keys and repeated keys are refused. `--set section.key=value` changes one setting on the command
line.

Paths are relative to the folder where the command runs. "required" means that there is no default.

Two kinds of recipe exist: a **corpus recipe** for `diffutron data build` ([CorpusSettings](#corpussettings)), and a
**training recipe** for `diffutron train` and `diffutron estimate` ([TrainRecipe](#trainrecipe)). A training recipe may
hold a corpus recipe under `data.build`. Every command takes the name of a recipe that ships, or a path.

## Recipes that ship

| name | what it does |
|---|---|
{recipes}

The texts of `mini-base`, `mini-base-long`, `mini-base-turkish`, `mini`, `mini-long` and `mini-instruct` are
not in this repository; these recipes need their `path`s changed to run elsewhere. What made the weights that ship is
`recipe.yaml` in the model's folder.

## What may change between two slices of a run

These change a result by no more than rounding:

{may_change}

Any other change makes it another run, and its checkpoints are refused, unless `--resume anyway` is given.
"""


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)


def page() -> str:
    recipes = "\n".join(
        f"| `{path.stem}` | {purpose_of(path).removeprefix(f'{path.stem}: ')} |"
        for path in sorted(recipe_folder().glob("*.yaml"))
    )
    parts = [HEAD.format(recipes=recipes, may_change="\n".join(f"* `{name}`" for name in MAY_CHANGE))]
    described: set[str] = set()
    for settings in (TrainRecipe, CorpusSettings):
        schema = settings.model_json_schema()
        models = {settings.__name__: schema, **schema.get("$defs", {})}
        for name, model in models.items():
            if name not in described and "properties" in model:
                described.add(name)
                parts.append(section(name, model))
    return "\n".join(parts)


def section(name: str, model: dict[str, Any]) -> str:
    required = set(model.get("required", ()))
    rows = [
        f"| `{key}` | {kind(value)} | {default(key, value, required)} | {describe(value)} |"
        for key, value in model["properties"].items()
    ]
    head = f"## {name}\n\n{' '.join(model.get('description', '').split())}\n\n"
    return head + "| setting | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def kind(value: dict[str, Any]) -> str:
    """A JSON schema type as a person would say it."""
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{each}`" for each in value["enum"])
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in value or "oneOf" in value:
        return " or ".join(dict.fromkeys(kind(each) for each in value.get("anyOf", value.get("oneOf"))))
    if value.get("type") == "array":
        if "prefixItems" in value:
            return "pair of numbers"
        return f"list of {kind(value['items'])}"
    if value.get("type") == "object":
        return "field: list of values"
    names = {"integer": "whole number", "number": "number", "string": "text", "boolean": "yes or no", "null": "none"}
    bounds = [
        f"{sign} {value[key]:g}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in value
    ]
    word = "path" if value.get("format") == "path" else names[value["type"]]
    return " ".join([word, *bounds[:1]]) + "".join(f", {bound}" for bound in bounds[1:])


def default(key: str, value: dict[str, Any], required: set[str]) -> str:
    if key in required:
        return "required"
    if "default" not in value or isinstance(value["default"], dict):
        return "its defaults" if "$ref" in value or value.get("default") else "empty"
    if value["default"] is None:
        return "none"
    return f"`{json.dumps(value['default'], ensure_ascii=False).strip(chr(34))}`"


def describe(value: dict[str, Any]) -> str:
    return " ".join(value.get("description", "").split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
