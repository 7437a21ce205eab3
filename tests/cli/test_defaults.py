"""The command line's defaults are the settings' own, and names of recipes are names."""

import inspect
from pathlib import Path

import pytest

from diffutron.cli.demo import _own
from diffutron.cli.generate import generate
from diffutron.cli.quality import generation
from diffutron.cli.recipes import find_recipe, recipe_folder
from diffutron.errors import InputError
from diffutron.generation import SamplerSettings


def test_generate_and_eval_generation_have_the_samplers_defaults():
    defaults = SamplerSettings().model_dump()
    for command in (generate, generation):
        told = {name: each.default for name, each in inspect.signature(command).parameters.items()}
        for name in set(told) & set(defaults) - {"pace"}:
            assert told[name] == defaults[name], f"{command.__name__} --{name}"
    assert inspect.signature(generate).parameters["pace"].default == SamplerSettings().pace.kind


def test_a_name_is_a_recipe_that_ships_and_a_file_that_is_not_there_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe(Path("mini")) == recipe_folder() / "mini.yaml"
    assert find_recipe(Path("mini.yaml")) == Path("mini.yaml")  # one's own, and missing: not another in its place
    Path("mini").mkdir()
    assert find_recipe(Path("mini")) == recipe_folder() / "mini.yaml"


def test_demo_takes_the_place_of_nothing_but_a_demo(tmp_path):
    run, corpus = tmp_path / "run", tmp_path / "corpus"
    assert _own(run, corpus) == run
    run.mkdir()
    (run / "recipe.yaml").write_text(f"data: {{corpus: {corpus}}}")
    assert _own(run, corpus) == run
    (run / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="no demo has made"):
        _own(run, corpus)
