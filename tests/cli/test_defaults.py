"""The command line's defaults are the settings' own."""

import inspect

from diffutron.cli.generate import generate
from diffutron.cli.quality import generation
from diffutron.generation import SamplerSettings


def test_generate_and_eval_generation_have_the_samplers_defaults():
    defaults = SamplerSettings().model_dump()
    for command in (generate, generation):
        told = {name: each.default for name, each in inspect.signature(command).parameters.items()}
        for name in set(told) & set(defaults) - {"pace"}:
            assert told[name] == defaults[name], f"{command.__name__} --{name}"
    assert inspect.signature(generate).parameters["pace"].default == SamplerSettings().pace.kind
