"""``diffutron trim`` and ``diffutron eval bound`` from the shell."""

import json

import pytest

from diffutron.model import LoraSettings, add_lora, load_model, save_adapter
from diffutron.testing import TINY_TEXTS, tiny_folder
from diffutron.tokens.codec import TextCodec


@pytest.fixture
def output_of(cli, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    texts = [json.dumps({"text": text}) for text in TINY_TEXTS]
    (tmp_path / "corpus.jsonl").write_text("\n".join(texts[:4]))
    (tmp_path / "rest.jsonl").write_text("\n".join(texts[4:]))

    return lambda *arguments: cli(*arguments).out


def test_trim_writes_a_model_and_says_what_it_cost(output_of, tmp_path):
    model = tiny_folder(tmp_path / "tiny")
    out = output_of("trim", model, "--corpus", "corpus.jsonl", "--out", "small", "--measure", "rest.jsonl", "--json")
    report = json.loads(out)
    small = load_model("small", device="cpu")
    assert len(TextCodec(small.tokenizer)) == report["pieces_after"] < report["pieces_before"]
    assert sum(param.numel() for param in small.denoiser.parameters()) == report["parameters_after"]
    assert report["num_texts"] == 4
    assert report["num_changed"] == 0
    assert report["bound_before"]["num_characters"] == report["bound_after"]["num_characters"]
    assert report["bound_before"]["num_tokens"] < report["bound_after"]["num_tokens"]
    # What is told is what the saved folder gives.
    measured = json.loads(output_of("eval", "bound", "--data", "rest.jsonl", "--model", "small", "--json"))
    assert measured["bits_per_character"] == pytest.approx(report["bound_after"]["bits_per_character"])


def test_an_adapter_is_merged_and_trimmed(output_of, tmp_path):
    loaded = load_model(str(tiny_folder(tmp_path / "tiny")), device="cpu")
    peft_model = add_lora(loaded.denoiser, LoraSettings(r=2, alpha=2), seed=0, base_name="../tiny")
    save_adapter(tmp_path / "adapter", peft_model, {"format": 1})
    out = output_of("trim", "adapter", "--corpus", "corpus.jsonl", "--out", "small", "--min-count", "2")
    assert out.startswith("small: ")
    assert "% of their tokens stayed" in out
    assert not list((tmp_path / "small").glob("adapter*"))
    load_model("small", device="cpu")


def test_eval_bound_says_bits_and_how_sure_it_is(output_of, tmp_path):
    model = tiny_folder(tmp_path / "tiny")
    out = output_of("eval", "bound", "--data", "rest.jsonl", "--model", model, "--draws", "4", "--seed", "3")
    assert "bits a character  (95 % " in out
    assert "standard error from the draws 0." in out
    assert "4 texts" in out
    assert "4 draws | seed 3" in out
