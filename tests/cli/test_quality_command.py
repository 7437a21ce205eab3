"""``diffutron eval generation`` as a user calls it."""

import json

import pytest
import typer

from diffutron.cli.generate import read_prompts
from diffutron.cli.quality import generation
from diffutron.errors import InputError
from diffutron.model import load_model
from diffutron.testing import TINY_TEXTS, tiny_folder
from diffutron.text import spelling
from diffutron.tokens.codec import TextCodec

app = typer.Typer()
app.command("generation")(generation)
SHORT = ("--model", "one", "--max-new-tokens", "12", "--num-samples", "3")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    tiny_folder(tmp_path / "one")
    write(tmp_path / "real.jsonl", TINY_TEXTS)
    (tmp_path / "prompts.txt").write_text("Bir varmış\nAnkara'da\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(spelling, "DICTIONARIES", ())

    def run(*arguments):
        app([*arguments, "--reference", "real.jsonl"], standalone_mode=False)
        return capsys.readouterr().out

    return run


def write(file, texts):
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def test_real_text_measured_beside_itself_is_as_good(run, tmp_path):
    write(tmp_path / "texts.jsonl", TINY_TEXTS)
    found = json.loads(run("--model", "one", "--texts", "texts.jsonl", "--json"))["texts"]
    assert found["samples"] == found["real"]
    assert found["samples"]["num_texts"] == len(TINY_TEXTS)
    for line in run("--model", "one", "--texts", "texts.jsonl").splitlines():
        if line.startswith(("  words a text", "  distinct-2", "  entropy")):
            assert line.endswith(" 1.00")


def test_a_text_that_repeats_itself_is_seen_beside_real_text(run, tmp_path):
    write(tmp_path / "texts.jsonl", ["Ankara'ta Ankara'ta Ankara'ta Ankara'ta Ankara'ta Ankara'ta."] * 2)
    found = json.loads(run("--model", "one", "--texts", "texts.jsonl", "--json"))["texts"]
    assert found["samples"]["repeated_4grams"]["value"] > 0.5
    assert found["samples"]["apostrophe_errors"]["value"] == 1
    assert found["real"]["repeated_4grams"]["value"] == 0
    assert found["samples"]["entropy"]["value"] == 0 < found["real"]["entropy"]["value"]


def test_samples_are_those_that_their_seed_and_prompt_give_alone(run):
    found = json.loads(run(*SHORT, "--prompts", "prompts.txt", "--seed", "5", "--json"))
    assert [each["seed"] for each in found["unconditional"]["texts"]] == [5, 6, 7]
    prompted = found["prompted"]["texts"]
    assert [(each["prompt"], each["seed"]) for each in prompted] == [
        ("Bir varmış", 5), ("Ankara'da", 6), ("Bir varmış", 7),
    ]  # fmt: skip
    alone = json.loads(run(*SHORT[:4], "--num-samples", "1", "--seed", "6", "--json"))
    assert alone["unconditional"]["texts"] == [found["unconditional"]["texts"][1]]
    assert found["sampler"]["no_repeat_ngram"] == 0
    assert json.loads(run(*SHORT, "--no-repeat-ngram", "3", "--json"))["sampler"]["no_repeat_ngram"] == 3


def test_the_prompt_is_not_measured_nor_the_end_of_a_word_that_it_began(run):
    from diffutron.cli.quality import _own_words
    from diffutron.generation import Completion

    def written(prompt, completion):
        return _own_words(Completion(prompt, completion, prompt + completion, "length", 1, 0, 0.0))

    assert written("Dün", " akşam geldi") == "akşam geldi"
    assert written("Dün ak", "şam geldi") == "geldi"
    assert written("Dün", "kü") == ""
    assert written("Dün", "kü\ngeldi") == "geldi"
    assert written("Dün, ", "akşam") == written("", "akşam") == "akşam"


def test_what_cannot_be_measured_says_what_to_install_and_the_rest_is_told(run):
    told = run(*SHORT)
    assert "valid words         not measured (no dictionary: run `make dictionary`" in told
    assert "not measured (--judge names a model)" in told
    texts = json.loads(run(*SHORT, "--json"))["unconditional"]["texts"]
    for number, each in enumerate(texts):
        assert f"{number}: {each['text']}" in told


def test_a_dictionary_of_all_real_words_knows_the_real_text(run, tmp_path):
    pytest.importorskip("hunspell")
    from diffutron.text.words import words

    known = {word.letters for text in TINY_TEXTS for word in words(text)}
    (tmp_path / "own.aff").write_text("SET UTF-8\n", encoding="utf-8")
    (tmp_path / "own.dic").write_text("\n".join([str(len(known)), *sorted(known)]) + "\n", encoding="utf-8")
    found = json.loads(run(*SHORT, "--dictionary", "own.dic", "--json"))
    assert found["dictionary"] == "own.dic"
    assert found["unconditional"]["real"]["valid_words"]["value"] == 1
    assert found["unconditional"]["samples"]["valid_words"]["value"] < 1


def test_a_judge_is_surprised_in_nats_a_character(run, tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    from diffutron.testing import tiny_tokenizer

    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tiny_tokenizer()), n_embd=8, n_layer=1, n_head=1, bos_token_id=0))
    model.transformer.wte.weight.data.zero_()  # the decoder is tied to it: every piece is as probable
    model.save_pretrained(tmp_path / "judge")
    tiny_tokenizer().save_pretrained(tmp_path / "judge")
    write(tmp_path / "texts.jsonl", TINY_TEXTS)
    found = json.loads(run("--model", "one", "--texts", "texts.jsonl", "--judge", "judge", "--json"))["texts"]["real"]
    import math

    tokens = sum(len(TextCodec(load_model("one").tokenizer).encode(text)) for text in TINY_TEXTS)
    uniform = tokens * math.log(len(tiny_tokenizer())) / sum(map(len, TINY_TEXTS))
    assert found["judge_nats"]["value"] == pytest.approx(uniform, rel=1e-5)


def test_texts_and_prompts_together_make_no_sense(run):
    with pytest.raises(InputError, match="give either --texts"):
        run(*SHORT, "--texts", "real.jsonl", "--prompts", "prompts.txt")


def test_an_empty_prompt_of_a_record_is_a_prompt(tmp_path):
    write(tmp_path / "prompts.jsonl", ["ev"])
    with open(tmp_path / "prompts.jsonl", "a", encoding="utf-8") as stream:
        stream.write('{"prompt": "", "text": "başka"}\n{"prompt": null, "text": "deniz"}\n')
    assert read_prompts(tmp_path / "prompts.jsonl") == ["ev", "", "deniz"]
