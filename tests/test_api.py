"""What Python users hand over by mistake is told in one line, as on the command line."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import diffutron
from diffutron.errors import InputError, ModelError, RecipeError
from diffutron.generation import Contains, Regex
from diffutron.testing import TINY_TEXTS, tiny_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(folder):
    return diffutron.load(folder)  # a Path is as good as its name


@pytest.mark.parametrize(("ask", "says"), [
    (lambda model: model.perplexity(TINY_TEXTS, unit="syllable"), "unit is token, word or morpheme, not 'syllable'"),
    (lambda model: model.perplexity(TINY_TEXTS, replace="yok"), "replace is mask or 80-10-10, not 'yok'"),
    (lambda model: model.perplexity(TINY_TEXTS, seed=-1), "the seed must be 0 or more, not -1"),
    (lambda model: model.score("ev", [" ve"], estimator="yok"), "estimator is bound, pseudo, chain, random-order, not"),
    (lambda model: model.generate("ev", bias={"a": 1e300}), "the bias of 'a' must be from -100 to 100, or -inf"),
    (lambda model: model.generate("ev", seed=-1), "the seed must be 0 or more, not -1"),
    (lambda model: model.generate(["ev", None]), "a prompt is a text, not None"),
    (lambda model: model.generate("ev", constraints=["deniz"]), r"as Contains\('deniz'\) is, not 'deniz'"),
    (lambda model: model.fill("\ud800 [MASK]"), "character 1 of the text is a lone surrogate"),
    (lambda model: model.fill("ev [MASK]", targets="deniz"), "targets is a list of words, not 'deniz'"),
    (lambda model: model.infill("ev [MASK]", num_samples=0), "the number of samples must be at least 1, not 0"),
])  # fmt: skip
def test_arguments_that_make_no_sense_are_told(model, ask, says):
    with pytest.raises(InputError, match=says):
        ask(model)


@pytest.mark.parametrize("device", ["yok", "cuda:99"])
def test_a_device_that_is_not_there_is_told(folder, device):
    with pytest.raises(ModelError, match=f"device '{device}' cannot be used: .*; auto takes what there is"):
        diffutron.load(str(folder), device=device)


def test_paths_may_be_strings(model, tmp_path):
    (tmp_path / "texts.txt").write_text(" ".join(TINY_TEXTS), encoding="utf-8")
    as_text, as_path = str(tmp_path / "texts.txt"), tmp_path / "texts.txt"
    written = [
        model.generate("ev", max_new_tokens=4, shortlist=each, constraints=[Contains("ev")])[0].text
        for each in (as_text, as_path)
    ]
    assert written[0] == written[1]
    assert len(model._generators) <= 2
    assert model.restore("ev", lexicon=as_text).text == model.restore("ev", lexicon=as_path).text


def test_a_gap_holds_what_belongs_there_unless_a_temperature_is_given(model):
    [one], [other] = (model.infill("ev [MASK:3] ve deniz", seed=seed) for seed in (0, 1))
    assert one.text == other.text
    drawn = {model.infill("ev [MASK:3] ve deniz", seed=seed, temperature=1.5)[0].text for seed in range(8)}
    assert len(drawn) > 1


@pytest.mark.parametrize("fast", [False, True])
def test_a_text_does_not_depend_on_what_other_threads_ask_for(model, fast):
    prompts = ["ev", "deniz", "Ankara'da bir köy", "Sabah"]
    settings = {"max_new_tokens": 12, "fast": fast, "block_length": 4, "temperature": 1.0}
    alone = {prompt: model.generate(prompt, **settings)[0].text for prompt in prompts}
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda prompt: (prompt, model.generate(prompt, **settings)[0].text), prompts * 8))
    assert found == [(prompt, alone[prompt]) for prompt, _ in found]


def test_two_streams_that_are_read_in_turns_are_what_each_is_alone(model):
    prompts = ("ev", "deniz")
    alone = [list(model.stream(prompt, max_new_tokens=8)) for prompt in prompts]
    in_turns = zip(*(model.stream(prompt, max_new_tokens=8) for prompt in prompts), strict=True)
    assert list(zip(*in_turns, strict=True)) == [tuple(each) for each in alone]


def test_a_stream_that_is_left_before_its_end_says_nothing_at_exit(folder):
    """Python closes what is still suspended after torch is gone."""
    script = f"""
import diffutron
stream = diffutron.load({str(folder)!r}).stream("ev", max_new_tokens=4)
print(len(next(stream).text) > 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.parametrize("setting", [
    {"guidance": 1e39}, {"end_penalty": -1e39}, {"end_penalty": 1e39}, {"well_formed": 1e39},
    {"repetition_penalty": 1e39},
])  # fmt: skip
def test_settings_that_overflow_are_refused(model, setting):
    with pytest.raises(RecipeError, match=next(iter(setting))):
        model.generate("ev", max_new_tokens=2, **setting)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda lm: lm.infill("ev [MASK:2]", seed=-1), "the seed must be 0 or more, not -1"),
        (lambda lm: lm.rewrite("ev ve deniz", seed=-1), "the seed must be 0 or more, not -1"),
        (lambda lm: lm.infill("ev [MASK:2]", constraints={1: ["x"]}), "a constraint is one of .* not 'x'"),
        (lambda lm: lm.infill("ev [MASK:2]", constraints={1: Regex("a")}), "constraints come in a list"),
        (lambda lm: lm.infill("ev [MASK:2]", constraints={"1": [Regex("a")]}), "under its number, as 1, not under '1'"),
        (lambda lm: lm.generate("ev", constraints=Regex("a")), "constraints come in a list"),
    ],
)
def test_mistakes_in_seeds_and_constraints_are_told(model, call, says):
    with pytest.raises(InputError, match=says):
        call(model)
