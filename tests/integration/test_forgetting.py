"""What a model forgot, language by language, on tiny models."""

import gzip
import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest

from diffutron.corpus import CorpusSettings, build_corpus
from diffutron.evaluation import masked_perplexity
from diffutron.evaluation.perplexity import compare
from diffutron.model import load_model
from diffutron.testing import PLAIN_CORPUS, TINY_TEXTS, tiny_codec, tiny_folder

ROOT = Path(__file__).parents[2]
LANGUAGES = ("az", "de", "uz")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("measure_forgetting", ROOT / "scripts" / "measure_forgetting.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["measure_forgetting"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def records():
    return [
        {"text": f"{TINY_TEXTS[number % 8]} {number}", "lang": LANGUAGES[number % 3]} for number in range(60)
    ]  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch, records):
    tiny_folder(tmp_path / "one")
    tiny_folder(tmp_path / "other", seed=1)
    write(tmp_path / "data.jsonl.gz", records)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, records):
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(record) + "\n" for record in records)


@pytest.fixture
def run(script, place, monkeypatch, capsys):
    def run(*arguments, data="data.jsonl.gz"):
        options = ["--data", data, "--before", "one", "--after", "other", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", ["measure_forgetting.py", *options])
        script.main()
        return capsys.readouterr().out

    return run


def test_each_language_is_measured_as_if_it_were_alone_and_together_they_are_all(run, records, place):
    found = json.loads(run("--per-language", 100, "--json"))
    assert {row["before"]["name"] for row in found["languages"]} == set(LANGUAGES)
    denoisers = [load_model(name).denoiser for name in ("one", "other")]
    for row in found["languages"]:
        texts = [record["text"] for record in records if record["lang"] == row["before"]["name"]]
        before, after = (masked_perplexity(each, tiny_codec(), texts) for each in denoisers)
        assert row["before"]["num_texts"] == sum(before.texts.num_masked > 0)
        assert (row["before"]["nll"], row["after"]["nll"]) == pytest.approx((before.nll, after.nll), abs=1e-6)
        assert row["difference"]["value"] == pytest.approx(compare(before, after).value, abs=1e-6)
        assert row["difference"]["low"] <= row["difference"]["value"] <= row["difference"]["high"]
    values = [row["difference"]["value"] for row in found["languages"]]
    assert values == sorted(values, reverse=True)
    whole = found["all"]
    assert whole["before"]["num_masked"] == sum(row["before"]["num_masked"] for row in found["languages"])
    assert whole["difference"]["value"] == pytest.approx(
        sum(row["difference"]["value"] * row["before"]["num_masked"] for row in found["languages"])
        / whole["before"]["num_masked"]
    )


def test_a_model_forgets_nothing_of_what_it_is(run):
    found = json.loads(run("--after", "one", "--json"))
    for row in (found["all"], *found["languages"]):
        assert (row["difference"]["value"], row["difference"]["p_value"]) == (0.0, 1.0)


def test_the_sample_depends_neither_on_order_nor_on_other_texts(script, records):
    texts = {record["text"]: record["lang"] for record in records}
    few = script.sample(texts, 4)
    assert sorted(few.values()) == sorted([*LANGUAGES] * 4)
    assert script.sample(dict(reversed(texts.items())), 4) == few
    assert list(script.sample(dict(reversed(texts.items())), 4)) == list(few)
    alone = {text: language for text, language in texts.items() if language == "de"}
    assert script.sample(alone, 4) == {text: language for text, language in few.items() if language == "de"}
    assert script.sample(texts, 2).items() <= few.items()


def test_what_a_run_was_trained_on_is_left_out_and_what_it_held_out_is_taken(run, records, place):
    # The run's corpus: a part of the texts, of which it holds out another part; both are chosen by a hash.
    settings = {"sources": [{"path": "data.jsonl.gz", "sample": 0.5}], "heldout_share": 0.3, **PLAIN_CORPUS}
    corpus = build_corpus(CorpusSettings.model_validate(settings), place / "corpus")
    parts = {}
    for name in ("train", "heldout"):
        with gzip.open(place / "corpus" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as stream:
            parts[name] = {json.loads(line)["text"] for line in stream}
    assert 0 < corpus.report["heldout"] < corpus.report["train"] < 60

    def num_texts(*options):
        return json.loads(run("--per-language", 100, "--json", *options))["all"]["before"]["num_texts"]

    def measured(texts):
        return int((masked_perplexity(load_model("one").denoiser, tiny_codec(), texts).texts.num_masked > 0).sum())

    every = [record["text"] for record in records]
    heldout = [text for text in every if text in parts["heldout"]]
    unseen = [text for text in every if text not in parts["train"]]
    assert num_texts("--heldout", corpus.heldout) == measured(heldout)
    assert num_texts("--trained-on", corpus.train) == measured(unseen)
    assert num_texts("--trained-on", corpus.train, corpus.heldout) < num_texts("--trained-on", corpus.train)


def test_the_table_has_a_line_a_language_and_one_for_all(run):
    header, *lines = run().splitlines()
    assert header.split()[-2:] == ["(95", "%)"]
    assert {line.split()[0] for line in lines} == {*LANGUAGES, "all"}
    found = json.loads(run("--json"))["all"]
    assert f"{math.exp(found['difference']['value']) - 1:+.1%}" in lines[-1]


def test_data_that_does_not_serve_is_one_line(run, place):
    write(place / "bare.jsonl.gz", [{"text": "Bir iki üç."}])
    for arguments, data, says in (
        ((), "gone.jsonl", "gone.jsonl does not exist"),
        ((), "bare.jsonl.gz", "bare.jsonl.gz: no record has a text and a language"),
        (("--trained-on", "data.jsonl.gz"), "data.jsonl.gz", "no text is left to measure"),
    ):
        with pytest.raises(SystemExit) as stop:
            run(*arguments, data=data)
        assert str(stop.value).startswith("error: ")
        assert says in str(stop.value)
