"""``diffutron recipe ls | show | check | schema``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffutron.cli.console import JsonOption, SetOption, print_json
from diffutron.recipe import Settings

app = typer.Typer(help="Look at recipes.", no_args_is_help=True)


@app.command("ls")
def ls(json: JsonOption = False) -> None:
    """List the recipes that ship."""
    found = {path.stem: purpose_of(path) for path in sorted(recipe_folder().glob("*.yaml"))}
    if json:
        print_json([{"name": name, "purpose": purpose} for name, purpose in found.items()])
    else:
        for name, purpose in found.items():
            print(f"{name:<18} {purpose}")


@app.command("show")
def show(recipe: Path) -> None:
    """Print a recipe as it is written."""
    from diffutron.errors import RecipeError

    path = find_recipe(recipe)
    try:
        print(path.read_text(encoding="utf-8"), end="")
    except FileNotFoundError:
        raise RecipeError(f"recipe {recipe} does not exist; `diffutron recipe ls` lists the ones that ship") from None
    except UnicodeDecodeError:
        raise RecipeError(f"recipe {path} is not UTF-8") from None


@app.command("check")
def check(recipe: Path, set_: SetOption = None, json: JsonOption = False) -> None:
    """Check a recipe and print every setting with its value."""
    import yaml

    from diffutron.recipe import load_recipe

    path = find_recipe(recipe)
    values: dict[str, object] = load_recipe(path, _schema_of(path), set_ or ()).model_dump(mode="json")
    if json:
        print_json(values)
    else:
        print(yaml.safe_dump(values, allow_unicode=True, sort_keys=False), end="")


@app.command("schema")
def schema(kind: Annotated[str, typer.Argument(help="train or corpus.")] = "train") -> None:
    """Print the JSON schema, for editors."""
    from diffutron.corpus import CorpusSettings
    from diffutron.errors import InputError
    from diffutron.training.recipe import TrainRecipe

    schemas: dict[str, type[Settings]] = {"train": TrainRecipe, "corpus": CorpusSettings}
    if kind not in schemas:
        raise InputError(f"no schema {kind!r}; there are {', '.join(schemas)}")
    print_json(schemas[kind].model_json_schema())


def recipe_folder() -> Path:
    """Where the recipes lie: in the installed package, or in the checkout."""
    installed = Path(__file__).parents[1] / "recipes"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "recipes"


def find_recipe(recipe: Path) -> Path:
    """A path as it is, or the name of a recipe that ships."""
    shipped = recipe_folder() / f"{recipe.name}.yaml"
    is_name = recipe.parent == Path(".") and not recipe.is_file()
    return shipped if is_name and shipped.is_file() else recipe


def _schema_of(path: Path) -> type[Settings]:
    from diffutron.corpus import CorpusSettings
    from diffutron.recipe import parse_yaml
    from diffutron.training.recipe import TrainRecipe

    if not path.is_file():
        return TrainRecipe
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"), place=str(path))
    except UnicodeDecodeError:
        return TrainRecipe  # load_recipe says what is wrong
    return CorpusSettings if isinstance(values, dict) and "sources" in values else TrainRecipe


def purpose_of(path: Path) -> str:
    """What a recipe says of itself in its first line."""
    first, *_ = [*path.read_text(encoding="utf-8").splitlines(), ""]
    return first.removeprefix("#").strip()
