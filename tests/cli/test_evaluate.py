"""``diffutron eval ppl`` and ``compare`` as a user calls them."""

import json
import sys

import pytest

from diffutron.cli.main import main
from diffutron.testing import TINY_TEXTS, tiny_folder


@pytest.fixture
def place(tmp_path, monkeypatch):
    tiny_folder(tmp_path / "one")
    tiny_folder(tmp_path / "other", seed=1)
    tiny_folder(tmp_path / "modern", "modernbert")
    lines = [{"text": text, "kind": "even" if number % 2 else "odd"} for number, text in enumerate(TINY_TEXTS)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys, place):
    def run(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["diffutron", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        assert (stop.value.code or 0) == code, printed.err
        return printed.out if code == 0 else printed.err

    return run


PPL = ("eval", "ppl", "--data", "texts.jsonl", "--model", "one")


def test_a_curve_has_a_score_for_each_rate_and_the_single_scores_are_its_points(run):
    curve = json.loads(run(*PPL, "--curve", "--json"))["curve"]
    assert [each["mask_rate"] for each in curve] == pytest.approx([0.05 + 0.1 * step for step in range(10)])
    single = json.loads(run(*PPL, "--mask-rate", "0.45", "--json"))
    assert single["perplexity"] == pytest.approx(curve[4]["perplexity"])
    assert run(*PPL, "--mask-rate", 0.2, "--mask-rate", 0.4).count("masked perplexity") == 2


def test_against_gives_the_difference_on_the_same_masks(run):
    found = json.loads(run(*PPL, "--mask-rate", 0.5, "--against", "other", "--json"))
    other = json.loads(run(*PPL[:-1], "other", "--mask-rate", 0.5, "--json"))
    assert found["difference"]["value"] == pytest.approx(found["nll"] - other["nll"])
    assert 0 < found["difference"]["p_value"] <= 1
    assert "against other: " in run(*PPL, "--mask-rate", 0.5, "--against", "other")


def test_scores_by_field_and_by_frequency_are_parts_of_the_whole(run):
    found = json.loads(run(*PPL, "--mask-rate", 0.5, "--by", "kind", "--frequency", "texts.jsonl", "--json"))
    for parts in (found["by kind"], found["by frequency of the word"]):
        assert sum(part["num_masked"] for part in parts) == found["num_masked"]
    assert {part["name"] for part in found["by kind"]} == {"even", "odd"}
    told = run(*PPL, "--mask-rate", 0.5, "--by", "kind", "--frequency", "texts.jsonl")
    assert "by kind:" in told
    assert "1-9" in told


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--unit", "syllable"), "--unit is token, word or morpheme, not 'syllable'"),
        (("--replace", "nothing"), "--replace is mask or 80-10-10, not 'nothing'"),
        (("--curve", "--by", "kind"), "--by and --frequency split the score at one mask rate"),
        (("--frequency", "gone.jsonl"), "gone.jsonl does not exist"),
    ],
)
def test_options_that_make_no_sense_are_one_line(run, options, says):
    assert says in run(*PPL, *options, code=1)


def test_words_and_mixtures_are_measured_too(run):
    found = json.loads(run(*PPL, "--unit", "word", "--replace", "80-10-10", "--json"))
    assert (found["unit"], found["replace"]) == ("word", "80-10-10")


def test_models_stand_side_by_side_with_differences_from_the_first(run):
    found = json.loads(run("eval", "compare", "one", "other", "modern", "--data", "texts.jsonl", "--json"))
    one, other, modern = found["models"]
    assert "bits_difference" not in one
    bits = [each["bound"]["bits_per_character"] for each in (one, other, modern)]
    assert other["bits_difference"]["value"] == pytest.approx(bits[1] - bits[0])
    assert modern["bits_difference"]["value"] == pytest.approx(bits[2] - bits[0])
    assert other["nll_difference"]["value"] == pytest.approx(other["perplexity"]["nll"] - one["perplexity"]["nll"])
    assert one["num_parameters"] == other["num_parameters"] != modern["num_parameters"]
    assert one["tokens_per_second"] > 0
    told = run("eval", "compare", "one", "other", "--data", "texts.jsonl")
    assert told.count("bits a character") == 2
    assert "from one" in told


def test_masked_scores_of_two_tokenizers_are_not_compared(run, place):
    layout = json.loads((place / "other" / "tokenizer.json").read_text(encoding="utf-8"))
    layout["model"]["vocab"][-1][1] -= 5.0
    (place / "other" / "tokenizer.json").write_text(json.dumps(layout), encoding="utf-8")
    told = run("eval", "compare", "one", "other", "--data", "texts.jsonl")
    assert "another tokenizer than one's: not comparable with it" in told
    found = json.loads(run("eval", "compare", "one", "other", "--data", "texts.jsonl", "--json"))
    assert "nll_difference" not in found["models"][1]
    assert "bits_difference" in found["models"][1]
    assert "tokenizer is" in run(*PPL, "--against", "other", code=1)


def test_one_model_is_no_comparison(run):
    assert "at least two models" in run("eval", "compare", "one", "--data", "texts.jsonl", code=1)


def test_report_holds_every_number_twice_as_page_and_as_json(run, place):
    printed = run(
        "eval", "report", "other", "--data", "texts.jsonl", "--before", "one", "--out", "out", "--seeds", 1,
        "--draws", 2,
    )  # fmt: skip
    assert printed.strip() == "out/report.html"
    found = json.loads((place / "out" / "report.json").read_text(encoding="utf-8"))
    page = (place / "out" / "report.html").read_text(encoding="utf-8")
    [texts] = found["sets"]
    at_15 = next(each for each in texts["curve"] if each["mask_rate"] == 0.15)
    single = json.loads(run(*PPL[:-1], "other", "--json"))
    assert single["perplexity"] == pytest.approx(at_15["perplexity"])
    for number in (f"{at_15['perplexity']:.2f}", f"{texts['bound']['bits_per_character']:.3f}", at_15["fingerprint"]):
        assert number in page
    assert len(found["fills"]) == 10
    assert [each["prompt"] for each in found["samples"]] == ["", "Bir varmış bir yokmuş", "Türkiye'nin başkenti",
                                                            "Dün akşam"]  # fmt: skip
    assert page.count("<svg") == 2
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )


def test_report_of_a_run_shows_its_loss_and_a_folder_without_one_is_an_error(run, place):
    (place / "run").mkdir()
    assert "--run run has no metrics.jsonl" in run(
        "eval", "report", "one", "--data", "texts.jsonl", "--run", "run", code=1
    )
    lines = [json.dumps({"step": step, "tokens": 100 * step, "loss": 5.0 - step}) for step in range(1, 4)]
    (place / "run" / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    run("eval", "report", "one", "--data", "texts.jsonl", "--run", "run", "--out", "out", "--seeds", 1, "--draws", 2)
    assert (place / "out" / "report.html").read_text(encoding="utf-8").count("<svg") == 3
