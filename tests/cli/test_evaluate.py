"""``diffutron eval ppl`` and ``compare`` as a user calls them."""

import gc
import json
import math
import weakref
from pathlib import Path

import numpy as np
import pytest

from diffutron.cli.console import ProgressLine, as_json
from diffutron.cli.evaluation_report import body_of, names_of
from diffutron.cli.report_sections import read_result
from diffutron.errors import InputError, ModelError
from diffutron.evaluation.side_by_side import side_by_side
from diffutron.evaluation.tasks import TaskScore
from diffutron.model import Loaded, LoraSettings, add_lora, load_model, save_adapter, save_model
from diffutron.model.checkpoint import weights_digest
from diffutron.testing import TINY_TEXTS, tiny_denoiser, tiny_folder, tiny_tokenizer


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
def run(cli, place):
    def run(*arguments, code=0):
        printed = cli(*arguments, code=code)
        return printed.out if code == 0 else printed.err

    return run


PPL = ("eval", "ppl", "--data", "texts.jsonl", "--model", "one")


def test_a_curve_has_a_score_for_each_rate_and_the_single_scores_are_its_points(run):
    curve = json.loads(run(*PPL, "--curve", "--json"))["curve"]
    assert [each["mask_rate"] for each in curve] == pytest.approx([0.05 + 0.1 * step for step in range(10)])
    single = json.loads(run(*PPL, "--mask-rate", "0.45", "--json"))
    assert single["perplexity"] == pytest.approx(curve[4]["perplexity"])
    told = run(*PPL, "--mask-rate", 0.2, "--mask-rate", 0.4)
    assert told.count("masked perplexity") == 2
    for rate in (0.2, 0.4):
        hidden = json.loads(run(*PPL, "--mask-rate", rate, "--json"))["num_masked"]
        assert f"mask rate {rate} | {hidden} hidden" in told


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
        (("--curve", "--mask-rate", 0.2), "--curve has mask rates of its own"),
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
    assert one["characters_per_second"] > 0
    assert one["weight_bytes"] == 4 * one["num_parameters"]
    assert [each["num_lossy"] for each in (one, other, modern)] == [0, 0, 0]
    told = run("eval", "compare", "one", "other", "--data", "texts.jsonl")
    assert told.count("bits a character") == 2
    assert "from one" in told


def test_what_a_tokenizer_loses_is_told_beside_the_bound_that_gains_by_it(run, place):
    layout = json.loads((place / "other" / "tokenizer.json").read_text(encoding="utf-8"))
    layout["normalizer"] = {"type": "Lowercase"}
    (place / "other" / "tokenizer.json").write_text(json.dumps(layout), encoding="utf-8")
    one, other = json.loads(run("eval", "compare", "one", "other", "--data", "texts.jsonl", "--json"))["models"]
    assert (one["num_lossy"], other["num_lossy"]) == (0, other["bound"]["num_texts"])
    told = run("eval", "compare", "one", "other", "--data", "texts.jsonl")
    assert told.count("the tokenizer loses something (case, accents, unknown characters)") == 1


def test_the_time_that_is_left_is_told_by_the_pace_since_the_first_step(monkeypatch, capsys):
    now = iter((100.0, 110.0, 120.0, 130.0))
    monkeypatch.setattr("diffutron.cli.console.time.monotonic", lambda: next(now))
    line = ProgressLine(every_seconds=0)
    monkeypatch.setattr(line, "show", lambda text, last=False: print(text))
    show = line.counter("reading", "rows")
    for done in (2, 4, 8, 10):
        show(done, 10)
    etas = [each.rpartition("eta ")[2] for each in capsys.readouterr().out.splitlines()]
    assert etas == ["unknown", "30s", "7s", "0s"]


def test_masked_scores_of_two_tokenizers_are_not_compared(run, place, monkeypatch):
    layout = json.loads((place / "other" / "tokenizer.json").read_text(encoding="utf-8"))
    layout["model"]["vocab"][-1][1] -= 5.0
    (place / "other" / "tokenizer.json").write_text(json.dumps(layout), encoding="utf-8")
    told = run("eval", "compare", "one", "other", "--data", "texts.jsonl")
    assert "another tokenizer than one's: not comparable with it" in told
    found = json.loads(run("eval", "compare", "one", "other", "--data", "texts.jsonl", "--json"))
    assert "nll_difference" not in found["models"][1]
    assert "bits_difference" in found["models"][1]

    def measured(*arguments, **options):
        pytest.fail("it was measured first")

    monkeypatch.setattr("diffutron.evaluation.report.masked_perplexity", measured)
    report = ("eval", "report", "one", "--data", "texts.jsonl", "--before", "other")
    assert "other has another tokenizer than one" in run(*report, code=1)


def test_masked_scores_of_texts_that_are_cut_elsewhere_are_not_compared(run, place):
    short = tiny_denoiser(max_position_embeddings=32)
    save_model(place / "short", short, tiny_tokenizer(), {"format": 1, "learned_end": True})
    (place / "long.jsonl").write_text(json.dumps({"text": " ".join(TINY_TEXTS)}) + "\n", encoding="utf-8")
    (place / "short.jsonl").write_text(json.dumps({"text": "Tren gece kalktı."}) + "\n", encoding="utf-8")
    compare = ("eval", "compare", "one", "short", "--data", "long.jsonl")
    assert "nll_difference" not in json.loads(run(*compare, "--json"))["models"][1]
    assert "texts cut elsewhere than one's: not comparable with it" in run(*compare)
    ppl = ("eval", "ppl", "--model", "one", "--against", "short", "--mask-rate", 0.5, "--data")
    assert "window is 32 and 64" in run(*ppl, "long.jsonl", code=1)
    assert json.loads(run(*ppl, "short.jsonl", "--json"))["window"] is None
    report = ("eval", "report", "one", "--before", "short", "--seeds", 1, "--draws", 2, "--json", "--data")
    assert json.loads(run(*report, "long.jsonl"))["sets"][0]["difference"] is None


def test_only_one_of_the_compared_models_is_in_memory(monkeypatch):
    alive = list[weakref.ref]()

    def load(name):
        gc.collect()
        assert [each() for each in alive] == [None] * len(alive)
        denoiser = tiny_denoiser()
        alive.append(weakref.ref(denoiser))
        return Loaded(name, denoiser, tiny_tokenizer(), {})

    monkeypatch.setattr("diffutron.evaluation.side_by_side.load_model", load)
    for name in ("resolve_model", "weights_digest"):
        monkeypatch.setattr(f"diffutron.evaluation.side_by_side.{name}", lambda name: name)
    assert len(list(side_by_side(["a", "b", "c"], TINY_TEXTS[:2], mask_rate=0.5, num_draws=2))) == 3


def test_one_text_has_no_interval_and_json_has_null_for_it(run, place):
    (place / "one.jsonl").write_text(json.dumps({"text": " ".join(TINY_TEXTS[:3])}) + "\n", encoding="utf-8")
    for command, value in (("ppl", "perplexity"), ("bound", "bits_per_character")):
        asked = ("eval", command, "--model", "one", "--data", "one.jsonl")
        found = json.loads(run(*asked, "--json"), parse_constant=pytest.fail)
        assert (found["low"], found["high"]) == (None, None)
        assert found[value] > 0
        assert "(one text: no interval)" in run(*asked)
    assert "one text: no interval" in run("eval", "compare", "one", "other", "--data", "one.jsonl")
    run("eval", "report", "one", "--before", "other", "--data", "one.jsonl", "--out", "out", "--seeds", 1, "--draws", 2)
    content = (place / "out" / "report.json").read_text(encoding="utf-8")
    [texts] = json.loads(content, parse_constant=pytest.fail)["sets"]
    assert texts["bound"]["low"] is None
    assert "no interval" in (place / "out" / "report.html").read_text(encoding="utf-8")
    run("publish", "one", "--out", "card", "--license", "mit", "--report", "out/report.json")
    assert f"| one | {texts['score']['perplexity']:.2f} | ? – ? | " in (place / "card" / "README.md").read_text()


def test_numbers_that_are_not_finite_are_null_wherever_they_stand():
    told = as_json({"one": math.nan, "some": [math.inf, 1.5, (np.float64("-inf"), "NaN", None, True)]}, indent=None)
    assert told == '{"one": null, "some": [null, 1.5, [null, "NaN", null, true]]}'


def test_a_report_of_a_broken_model_is_a_page_all_the_same(run, place):
    found = json.loads(
        run("eval", "report", "one", "--before", "other", "--data", "texts.jsonl", "--seeds", 1, "--draws", 2, "--json")
    )

    def broken(value):
        if isinstance(value, dict):
            return {name: broken(each) for name, each in value.items()}
        if isinstance(value, list):
            return [broken(each) for each in value]
        return None if isinstance(value, float) else value

    sets = [{**broken(each), "curve": [{**broken(score), "mask_rate": score["mask_rate"]} for score in each["curve"]],
             "curve_before": [{**broken(score), "mask_rate": score["mask_rate"]} for score in each["curve_before"]]}
            for each in found["sets"]]  # fmt: skip
    estimators = [{**broken(each), "looks": each["looks"]} for each in found["estimators"]]
    assert "no interval" in body_of({**found, "sets": sets, "estimators": estimators})


def test_sets_of_one_name_are_told_apart_by_their_folders(run, place):
    paths = [Path(each) for each in ("runs/a/corpus/heldout.jsonl.gz", "runs/b/corpus/heldout.jsonl.gz", "x/own.txt")]
    assert names_of(paths) == ["a/corpus/heldout", "b/corpus/heldout", "own"]
    assert names_of([Path("heldout.jsonl"), Path("a/heldout.jsonl")])[1] == "a/heldout"
    with pytest.raises(InputError, match=r"--data x/one\.txt and --data x/one\.jsonl would have one name"):
        names_of([Path("x/one.txt"), Path("x/one.jsonl")])
    for name, text in (("a", TINY_TEXTS[0]), ("b", TINY_TEXTS[1])):
        (place / name).mkdir()
        (place / name / "heldout.txt").write_text(text, encoding="utf-8")
    report = ("eval", "report", "one", "--seeds", 1, "--draws", 2, "--json")
    found = json.loads(run(*report, "--data", "a/heldout.txt", "--data", "b/heldout.txt"))
    assert [each["name"] for each in found["sets"]] == ["a/heldout", "b/heldout"]


def test_instructions_that_do_not_fit_into_the_context_are_counted_and_told(run):
    asked = ("eval", "chat", "--model", "one", "--max-new-tokens", 45, "--steps", 1)
    found = json.loads(run(*asked, "--json"))["models"]["one"]["followed"]
    assert 0 < found["unread"] <= found["num"] == 40
    assert f"one: {found['unread']} instructions do not fit into the context, and count as not followed" in run(*asked)
    with_room = ("eval", "chat", "--model", "one", "--max-new-tokens", 2, "--json")
    assert json.loads(run(*with_room))["models"]["one"]["followed"]["unread"] < found["unread"]


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
    at_15 = texts["score"]
    assert at_15 in texts["curve"]
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


TASK = TaskScore(
    "xcopa_tr", "acc", value=0.55, standard_error=0.05, low=0.452, high=0.644, mc_standard_error=0.012, chance=0.5,
    majority=None, one_answer=0.5, num_documents=100, num_cut=0, estimator="bound", num_draws=128, seed=0,
    fingerprint="ad68a3764728737e",
)  # fmt: skip


def test_what_other_commands_measured_becomes_sections_of_the_report(run, place):
    pairs = [{"text": text, "pair": text[::-1], "near": number / 9} for number, text in enumerate(TINY_TEXTS * 2)]
    (place / "pairs.jsonl").write_text("".join(json.dumps(each) + "\n" for each in pairs), encoding="utf-8")
    probe = ("--train", "pairs.jsonl", "--test", "pairs.jsonl", "--text-pair", "pair", "--score", "near")
    kept = {
        "ppl": run(*PPL, "--mask-rate", 0.5, "--by", "kind", "--json"),
        "compare": run("eval", "compare", "one", "other", "--data", "texts.jsonl", "--json"),
        "generation": run("eval", "generation", "--model", "one", "--texts", "texts.jsonl",
                          "--reference", "texts.jsonl", "--json"),
        "probes": run("eval", "probes", "--model", "one", "--against", "other", *probe, "--json"),
        "chat": run("eval", "chat", "--model", "one", "--max-new-tokens", 2, "--steps", 1, "--json"),
        "tasks": json.dumps({"kind": "tasks", "model": "one", "weights": weights_digest("one"),
                             "tasks": [TASK.as_dict()]}),
    }  # fmt: skip
    found = {name: json.loads(text) for name, text in kept.items()}
    report = ["eval", "report", "one", "--data", "texts.jsonl", "--out", "out", "--seeds", 1, "--draws", 2]
    for name, text in kept.items():
        (place / f"{name}.json").write_text(text, encoding="utf-8")
        report += ["--with", f"{name}.json"]
    run(*report)
    page = (place / "out" / "report.html").read_text(encoding="utf-8")
    for number in (
        f"{found['ppl']['by kind'][0]['perplexity']:.2f}",
        f"{found['compare']['models'][1]['bits_difference']['value']:+.3f}",
        f"{found['generation']['texts']['samples']['distinct_1']['value']:.3f}",
        f"{found['probes']['cosine']['difference']['value']:+.3f}",
        f"{found['chat']['models']['one']['followed']['value']:.1%}",
        "55.0%", "45.2% to 64.4%", "1.2%", "50.0%", "at chance",
    ):  # fmt: skip
        assert number in page
    written = json.loads((place / "out" / "report.json").read_text(encoding="utf-8"))
    assert [each["kind"] for each in written["others"]] == list(kept)
    assert written["command"].count("--with") == len(kept)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "x.json cannot be read: "),
        ("[]", "x.json is nothing that diffutron eval ppl, tasks, generation, probes, chat, compare printed"),
        ('{"kind": "tasks", "model": "one", "tasks": [{}]}', "x.json is nothing that diffutron eval"),
        ('{"kind": "tasks", "model": "two", "tasks": []}', "x.json measures 'two', not 'one'"),
        ('{"kind": "tasks", "model": "one", "weights": "0123", "tasks": []}', "measured other weights of 'one', 0123"),
    ],
)
def test_what_no_other_command_measured_of_the_model_is_refused_at_once(run, place, content, says):
    (place / "x.json").write_text(content, encoding="utf-8")
    assert says in run("eval", "report", "one", "--data", "gone.jsonl", "--with", "x.json", code=1)


def test_answers_are_counted_in_a_report_and_not_kept(place):
    own = {"followed": {"value": 0.5, "low": 0.4, "high": 0.6}, "answers": ["as in somebody's text"]}
    chat = {"kind": "chat", "num": 1, "seed": 0, "models": {"one": own}}
    (place / "chat.json").write_text(json.dumps(chat), encoding="utf-8")
    assert read_result(place / "chat.json", model="one", weights=None)["models"] == {
        "one": {"followed": own["followed"]}
    }


def test_report_of_a_run_shows_its_loss_and_a_folder_without_one_is_an_error(run, place):
    (place / "run").mkdir()
    assert "--run run has no metrics.jsonl" in run(
        "eval", "report", "one", "--data", "texts.jsonl", "--run", "run", code=1
    )
    lines = [json.dumps({"step": step, "tokens": 100 * step, "loss": 5.0 - step}) for step in range(1, 4)]
    (place / "run" / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    run("eval", "report", "one", "--data", "texts.jsonl", "--run", "run", "--out", "out", "--seeds", 1, "--draws", 2)
    assert (place / "out" / "report.html").read_text(encoding="utf-8").count("<svg") == 3


def test_another_tokenizer_is_told_before_anything_is_measured(run, place, monkeypatch):
    layout = json.loads((place / "other" / "tokenizer.json").read_text(encoding="utf-8"))
    layout["model"]["vocab"][-1][1] -= 5.0
    (place / "other" / "tokenizer.json").write_text(json.dumps(layout), encoding="utf-8")
    monkeypatch.setattr("diffutron.api.masked_perplexity", lambda *_, **__: pytest.fail("it was measured first"))
    assert "other has another tokenizer than one" in run(*PPL, "--against", "other", code=1)


def test_another_models_weights_have_another_digest_and_an_adapters_are_its_bases_too(place):
    assert weights_digest("one") != weights_digest("other")
    denoiser = tiny_denoiser()
    peft_model = add_lora(denoiser, LoraSettings(r=2, alpha=2), seed=0, base_name="../one")
    save_adapter(place / "adapter", peft_model, {})
    on_one, stacked = weights_digest("adapter"), weights_digest("other", ["adapter"])
    assert len({weights_digest("one"), on_one, stacked}) == 3
    (place / "one" / "model.safetensors").write_bytes((place / "other" / "model.safetensors").read_bytes())
    assert weights_digest("one") == weights_digest("other")
    assert weights_digest("adapter") != on_one
    assert weights_digest("org/name") is None
    config = json.loads((place / "adapter" / "adapter_config.json").read_text())
    (place / "adapter" / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "."}))
    with pytest.raises(ModelError, match="names the adapter itself as its base"):
        load_model("adapter")
