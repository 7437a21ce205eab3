"""``diffutron eval probes`` as a user calls it."""

import json

import pytest

from diffutron.testing import TINY_TEXTS, tiny_folder


@pytest.fixture
def place(tmp_path, monkeypatch):
    tiny_folder(tmp_path / "one")
    tiny_folder(tmp_path / "other", seed=1)
    lines = [
        {"first": f"{TINY_TEXTS[number % 8].split()[0]} {number}", "second": f"{TINY_TEXTS[number % 3].split()[0]} 7",
         "kind": "even" if number % 2 else "odd", "degree": number % 5}
        for number in range(40)
    ]  # fmt: skip
    for name, part in (("train", lines[:25]), ("test", lines[25:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in part), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(cli, place, monkeypatch):
    monkeypatch.setattr("diffutron.evaluation.probes.PERMUTATIONS", 100)

    def run(*arguments, model="one", train="train.jsonl", code=0):
        files = ("--train", train, "--test", "test.jsonl")
        printed = cli("eval", "probes", "--model", model, *files, "--text", "first", *arguments, code=code)
        return printed.err if code else printed.out

    return run


def test_labels_of_texts_and_of_pairs(run):
    for pair in ((), ("--text-pair", "second")):
        found = json.loads(run("--label", "kind", *pair, "--json"))
        assert (found["accuracy"]["num_train"], found["accuracy"]["num_test"]) == (25, 15)
        assert found["accuracy"]["low"] <= found["accuracy"]["value"] <= found["accuracy"]["high"]
        assert "is_right" not in found["accuracy"]
        told = run("--label", "kind", *pair)
        assert f"accuracy {found['accuracy']['value']:.4f}" in told
        assert "chance 0.5000, majority 0.4667 of 2 labels" in told
        assert found["accuracy"]["fingerprint"] in told


def test_similarity_of_pairs_with_and_without_training(run):
    found = json.loads(run("--text-pair", "second", "--score", "degree", "--json"))
    assert found["cosine"]["penalty"] is None
    assert found["ridge"]["penalty"] > 0
    told = run("--text-pair", "second", "--score", "degree")
    assert f"cosine {found['cosine']['value']:.4f}" in told
    assert f"ridge {found['ridge']['value']:.4f}" in told


def test_against_gives_the_difference_of_the_same_questions_asked_twice(run):
    pair = ("--text-pair", "second", "--score", "degree", "--json")
    both = json.loads(run(*pair, "--against", "other"))
    one, other = json.loads(run(*pair)), json.loads(run(*pair, model="other"))
    for name in ("cosine", "ridge"):
        assert both[name]["difference"]["value"] == pytest.approx(one[name]["value"] - other[name]["value"])
    label = ("--text-pair", "second", "--label", "degree")
    found = json.loads(run(*label, "--against", "other", "--json"))["accuracy"]
    one, other = (json.loads(run(*label, "--json", model=model))["accuracy"]["value"] for model in ("one", "other"))
    assert (found["value"], found["difference"]["value"]) == (one, pytest.approx(one - other))
    assert one != other
    assert "against other: " in run(*label, "--against", "other")


def test_where_texts_give_nothing_away_the_score_is_the_majority_and_is_called_that(run, place):
    lines = [{"first": "Bir", "kind": "even" if number % 3 else "odd"} for number in range(30)]
    (place / "same.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    options = ("--label", "kind", "--test", "same.jsonl")
    found = json.loads(run(*options, "--json", train="same.jsonl"))["accuracy"]
    assert found["value"] == found["majority"] == pytest.approx(2 / 3)
    assert "not told apart from them" in run(*options, train="same.jsonl")
    # Asked what it learned by heart, it is above.
    assert "not told apart" not in run("--label", "first", train="test.jsonl")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "give either --label FIELD or --score FIELD"),
        (("--label", "kind", "--score", "degree"), "give either --label FIELD or --score FIELD"),
        (("--score", "degree"), "give --text-pair FIELD too"),
        (("--label", "gone"), "train.jsonl: no record has the fields 'first', 'gone'"),
    ],
)
def test_options_that_make_no_sense_are_one_line(run, options, says):
    assert says in run(*options, code=1)
