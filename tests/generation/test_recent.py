"""A server lives long: what it remembers has an end."""

from diffutron.generation import Canvas, Generator, SamplerSettings
from diffutron.generation.constraints import Choice
from diffutron.generation.recent import Recent
from diffutron.testing import tiny_codec, tiny_denoiser


def test_the_values_asked_for_last_stay_and_are_made_once():
    made, recent = [], Recent(2)

    def get(key):
        return recent.get(key, lambda: made.append(key) or key.upper())

    assert [get(key) for key in "aabac"] == list("AABAC")
    assert made == ["a", "b", "c"]
    get("a")
    assert made == ["a", "b", "c"]  # asked for after b, which had to go
    get("b")
    assert made == ["a", "b", "c", "b"]
    assert len(recent) == 2


def test_a_generator_forgets_settings_and_constraints_of_long_ago():
    generator = Generator(tiny_denoiser(), tiny_codec())
    canvas = Canvas((0, 4), (1,), (0,))
    for number in range(100):
        generator.guided(canvas, SamplerSettings(well_formed=1 + number / 100))
    for number in range(80):
        generator.pieces((Choice(("ev", "e" * (number % 5 + 1) + "v" * (number // 5 + 1))),))
    assert len(generator._forms) == 8
    assert len(generator._automata) == 64
