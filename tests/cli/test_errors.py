"""Whatever the user gets wrong, the command line says in one line on stderr, and exits 1."""

import json
import os
import re
import shutil

import pytest

from diffutron.cli.main import main
from diffutron.testing import tiny_folder

FILL = ("fill", "Ankara [MASK].")


@pytest.fixture(autouse=True)
def in_a_bare_place(tmp_path, monkeypatch):
    """No hub, and nothing lying about that a relative path could meet."""
    monkeypatch.chdir(tmp_path)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")


@pytest.fixture
def error_of(monkeypatch, capfd):
    """Run the command line; its error without ``error: ``. Nothing else may be printed, on either stream."""

    def error_of(*arguments):
        monkeypatch.setattr("sys.argv", ["diffutron", *map(str, arguments)])
        monkeypatch.setattr("diffutron.cli.console.ProgressLine.show", lambda *_, **__: None)  # on a slow machine
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capfd.readouterr()
        assert caught.value.code == 1
        assert printed.out == ""
        assert printed.err.startswith("error: ")
        assert printed.err.endswith("\n")
        assert len(printed.err.splitlines()) == 1
        assert "Traceback" not in printed.err
        return printed.err.removeprefix("error: ").rstrip("\n")

    return error_of


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def model(tiny, tmp_path):
    """A copy of a tiny model, to be damaged."""
    return shutil.copytree(tiny, tmp_path / "model")


def change_config(model, **changes):
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")


def weights_of(model):
    [weights] = model.glob("*.safetensors")
    return weights


# a folder to write into


@pytest.mark.parametrize("command", [
    ("demo",), ("train", "demo"), ("data", "build", "r.yaml"), ("eval", "tasks", "--data", "xcopa_tr=a.jsonl"),
    ("eval", "report", "mini", "--data", "a.jsonl"),
])  # fmt: skip
def test_a_file_where_a_folder_is_to_be_is_told_before_any_work(error_of, tmp_path, command):
    (tmp_path / "r.yaml").write_text("sources: [{path: a.jsonl}]\n")
    (tmp_path / "a.jsonl").write_text('{"text": "Bir varmış bir yokmuş."}\n', encoding="utf-8")
    (tmp_path / "notlar").write_text("benim", encoding="utf-8")
    assert error_of(*command, "--out", "notlar") == "notlar is a file; choose another folder"
    assert error_of(*command, "--out", "notlar/bu") == (
        "notlar is a file, and notlar/bu cannot lie in it; choose another folder"
    )
    assert (tmp_path / "notlar").read_text(encoding="utf-8") == "benim"


# data build


def test_data_build_of_a_missing_recipe(error_of):
    assert error_of("data", "build", "yok.yaml") == (
        "recipe yok.yaml does not exist; `diffutron recipe ls` lists the ones that ship"
    )


def test_data_build_of_a_recipe_with_an_unknown_key(error_of, tmp_path):
    (tmp_path / "r.yaml").write_text("sources: [{path: a.jsonl, sampel: 0.1}]\n")
    assert error_of("data", "build", "r.yaml") == "r.yaml: sources.0 has no setting 'sampel'; did you mean 'sample'?"
    assert not (tmp_path / "runs").exists()


def test_data_build_of_a_recipe_that_is_no_yaml(error_of, tmp_path):
    (tmp_path / "r.yaml").write_text("sources:\n  - {path: a.jsonl\n")
    assert error_of("data", "build", "r.yaml").startswith("r.yaml:3: not a valid recipe: ")


def test_data_build_from_a_missing_file(error_of, tmp_path):
    (tmp_path / "r.yaml").write_text("sources: [{path: yok.jsonl}]\n")
    assert error_of("data", "build", "r.yaml") == "data file yok.jsonl does not exist"
    assert not (tmp_path / "runs").exists()


def test_data_build_into_a_folder_of_something_else(error_of, tmp_path):
    (tmp_path / "a.txt").write_text("Yeterince uzun bir metin, kırk harften de uzun.")
    (tmp_path / "r.yaml").write_text("sources: [{path: a.txt}]\n")
    (tmp_path / "thesis").mkdir()
    message = error_of("data", "build", "r.yaml", "--out", "thesis")
    assert message == "thesis exists and is not a corpus; choose another folder"


def test_data_build_where_nothing_is_left(error_of, tmp_path):
    (tmp_path / "a.txt").write_text("kısa")
    (tmp_path / "r.yaml").write_text("sources: [{path: a.txt}]\n")
    assert error_of("data", "build", "r.yaml").startswith("no document is left of 1 read: ")


def test_data_build_with_a_bad_set(error_of, tmp_path):
    (tmp_path / "r.yaml").write_text("sources: [{path: a.txt}]\n")
    assert error_of("data", "build", "r.yaml", "--set", "seed") == "--set 'seed' is not of the form section.key=value"


# eval ppl


def test_eval_ppl_of_a_missing_file(error_of):
    assert error_of("eval", "ppl", "--data", "yok.jsonl") == "data file yok.jsonl does not exist"


def test_eval_ppl_of_an_unknown_kind_of_file(error_of, tmp_path):
    (tmp_path / "a.doc").write_text("text\nbir\n")
    assert error_of("eval", "ppl", "--data", "a.doc").startswith("a.doc: unknown kind of file; readable are .jsonl, ")


@pytest.mark.parametrize("rate", ["0", "1.5", "-0.1", "nan"])
def test_eval_ppl_at_an_impossible_mask_rate(error_of, rate):
    message = error_of("eval", "ppl", "--data", "yok.jsonl", "--mask-rate", rate)
    assert message == f"--mask-rate must be above 0 and at most 1, not {float(rate)}"


def test_eval_ppl_of_no_text(error_of, tmp_path, tiny):
    (tmp_path / "a.txt").write_text("\n\n")
    assert error_of("eval", "ppl", "--data", "a.txt", "--model", tiny).startswith(
        "a.txt: no record has a text in the field"
    )


def test_eval_ppl_of_a_broken_parquet_file(error_of, tmp_path, tiny):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 rotten PAR1")
    assert error_of("eval", "ppl", "--data", "a.parquet", "--model", tiny).startswith("data file a.parquet ")


# eval bound


def test_eval_bound_of_a_missing_file(error_of):
    assert error_of("eval", "bound", "--data", "yok.jsonl") == "data file yok.jsonl does not exist"


@pytest.mark.parametrize("draws", ["0", "1", "7"])
def test_eval_bound_with_draws_that_are_no_pairs(error_of, draws):
    message = error_of("eval", "bound", "--data", "yok.jsonl", "--draws", draws)
    assert message == f"--draws must be an even number, at least 2, not {draws}"


def test_eval_bound_of_no_text(error_of, tmp_path, tiny):
    (tmp_path / "a.txt").write_text(" \n")
    assert error_of("eval", "bound", "--data", "a.txt", "--model", tiny).startswith("a.txt: no record has a text")


# trim


def test_trim_to_a_missing_corpus(error_of, tiny, tmp_path):
    message = error_of("trim", tiny, "--corpus", "yok.jsonl", "--out", "small")
    assert message == "data file yok.jsonl does not exist"
    assert not (tmp_path / "small").exists()


def test_trim_to_a_corpus_without_text(error_of, tiny, tmp_path):
    (tmp_path / "a.txt").write_text(" \n")
    message = error_of("trim", tiny, "--corpus", "a.txt", "--out", "small")
    assert message == "no text to trim to: every text of the corpus is empty"


def test_trim_with_a_missing_file_to_measure(error_of, tiny, tmp_path):
    (tmp_path / "a.txt").write_text("Ankara")
    message = error_of("trim", tiny, "--corpus", "a.txt", "--out", "small", "--measure", "yok.txt")
    assert message == "data file yok.txt does not exist"


def test_trim_to_too_few_pieces(error_of, tiny, tmp_path):
    (tmp_path / "a.txt").write_text("Ankara")
    message = error_of("trim", tiny, "--corpus", "a.txt", "--out", "small", "--pieces", "20")
    assert re.fullmatch(
        r"20 pieces are too few: \d+ must stay \(special tokens, single characters, bytes\); ask for more", message
    )
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize("share", ["0", "-0.5", "1.01"])
def test_trim_to_an_impossible_coverage(error_of, tiny, share):
    message = error_of("trim", tiny, "--corpus", "a.txt", "--out", "small", "--coverage", share)
    assert message == f"--coverage must be above 0 and at most 1, not {float(share)}"


def test_trim_into_a_folder_of_something_else(error_of, tiny, tmp_path):
    (tmp_path / "a.txt").write_text("Ankara")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.md").write_text("…")
    message = error_of("trim", tiny, "--corpus", "a.txt", "--out", "thesis")
    assert message == "thesis exists and is not empty; choose another folder"


# fill and generate


def test_fill_without_a_mask(error_of):
    message = error_of("fill", "Ankara başkenttir.")
    assert message == "the text has no mask: 'Ankara başkenttir.'; put [MASK] where a word is to be filled in"


@pytest.mark.parametrize("text", ["", "  \n "])
def test_fill_of_an_empty_text(error_of, text):
    assert error_of("fill", text) == "the text is empty; give a text with [MASK]"


def test_fill_of_a_text_longer_than_the_model_reads(error_of, tiny):
    message = error_of("fill", "Ankara " * 200 + "[MASK]", "--model", tiny)
    assert message.endswith("but the model reads at most 64; shorten it")


def test_generate_from_a_missing_file_of_prompts(error_of):
    assert error_of("generate", "--prompts", "yok.txt") == "prompt file yok.txt does not exist"


@pytest.mark.parametrize(("arguments", "message"), [
    (("--steps", 0), "steps"),
    (("--steps", -3), "steps"),
    (("--temperature", "nan"), "temperature"),
    (("--temperature", -1), "temperature"),
    (("--max-new-tokens", 0), "--max-new-tokens must be at least 1, not 0"),
    (("--max-new-tokens", 900), "shorten the prompt or lower --max-new-tokens"),
    (("--top-p", 0), "top_p"),
    (("--regex", "(a"), "'(a'"),
    (("--regex", "[^\\x00-\U0010ffff]"), "no text that the vocabulary can write matches it"),
    (("--contains", "deniz", "--letters", "abc"), "the constraints contradict"),
    (("--contains", "iki söz"), "is one word, not 'iki söz'"),
    (("--contains", "鼎"), "the vocabulary cannot spell '鼎'"),
    (("--syllables", 0), "at least 1 of the"),
    (("--lines", 4), "--lines counts the lines of --syllables or --words"),
    (("--inflected",), "--inflected belongs to --contains"),
    (("--syllables", 40, "--max-new-tokens", 2), "no text of 2 tokens can be written that keeps the constraints"),
    (("--num-samples", 0), "the number of samples must be at least 1, not 0"),
    (("--bias", "ev"), "--bias takes PIECE=NATS"),
    (("--dictionary", "tr.dic"), "set it above 0"),
    (("--well-formed", 4, "--dictionary", "tr.dic"), "dictionary file tr.dic does not exist"),
    (("--well-formed", -1), "well_formed"),
    (("--shortlist", "yok.txt"), "yok.txt"),
    (("--revise", "--words", 3), "--revise keeps a draft as it is"),
    (("--revise", "--share", 0), "must be above 0 and at most 1, not 0"),
    (("--pace", "slow"), "pace"),
    (("--revision", "p3"), "revision"),
    (("--trace", "yok/adımlar.jsonl"), "yok"),
])  # fmt: skip
def test_generate_of_what_makes_no_sense(error_of, tiny, arguments, message):
    assert message in error_of("generate", "ev ve", "--model", tiny, "--max-new-tokens", 8, *arguments)


@pytest.mark.parametrize(("arguments", "message"), [
    (("Ankara",), "the text has no mask: 'Ankara'"),
    ((" ",), "the text is empty; give a text with [MASK]"),
    (("ev [MASK:0]",), "[MASK:0] has room for nothing"),
    (("ev [MASK:99]",), "but the model reads at most 64"),
    (("ev [MASK]", "--regex", "2=a"), "there is no gap 2: the text has 1"),
    (("ev [MASK]", "--choices", "ev"), "takes the number of a gap"),
    (("ev [MASK:?]", "--letters", "1=鼎"), "the vocabulary has none of the characters '鼎'"),
    (("ev [MASK:2]", "--choices", "1=" + "deniz" * 20), "no text of 2 tokens can be written"),
    (("ev [MASK:?]", "--max-gap", 0), "the longest gap must be at least 1, not 0"),
    (("ev [MASK]", "--steps", 0), "steps"),
])  # fmt: skip
def test_infill_of_what_makes_no_sense(error_of, tiny, arguments, message):
    assert message in error_of("infill", *arguments, "--model", tiny)


@pytest.mark.parametrize(("arguments", "message"), [
    (("yok.txt",), "the text yok.txt cannot be read: No such file or directory"),
    (("metin.txt", "--fault", "spelling"), "faults are letters, ocr, typing, not spelling"),
    (("metin.txt", "--confidence", 1), "the confidence must be at least 0 and below 1, not 1"),
    (("metin.txt", "--out", "yok/metin.txt"), "there is no folder yok"),
    (("metin.txt", "--dictionary", "tr.dic"), "dictionary file tr.dic does not exist"),
    (("metin.txt", "--lexicon", "yok.jsonl"), "yok.jsonl"),
    (("bozuk.txt",), "the text bozuk.txt is not UTF-8: byte 0 is 0xff"),
])  # fmt: skip
def test_restore_of_what_makes_no_sense(error_of, tiny, tmp_path, arguments, message):
    (tmp_path / "metin.txt").write_text("Dun aksam", encoding="utf-8")
    (tmp_path / "bozuk.txt").write_bytes(b"\xff\xfe")
    assert message in error_of("restore", *arguments, "--model", tiny)


def test_render_of_what_is_no_trace(error_of, tmp_path):
    assert "yok.jsonl" in error_of("render", "yok.jsonl")
    (tmp_path / "metin.jsonl").write_text('{"text": "ev"}\n', encoding="utf-8")
    assert "metin.jsonl" in error_of("render", "metin.jsonl")


# models


def test_a_misspelt_model_name_gets_the_nearest_one(error_of):
    message = error_of(*FILL, "--model", "mimi")
    assert message == "model 'mimi' is neither an embedded model, a folder, nor a hub id; did you mean 'mini'?"


def test_an_unknown_model_name_gets_the_known_ones(error_of):
    message = error_of(*FILL, "--model", "zzz")
    assert message.startswith("model 'zzz' is neither an embedded model, a folder, nor a hub id; embedded are mini, ")


def test_a_model_that_is_a_file(error_of, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert error_of(*FILL, "--model", "model.safetensors").endswith("is a file; give the folder that holds config.json")


def test_a_hub_model_that_is_not_here_and_must_not_be_asked_for(error_of):
    message = error_of(*FILL, "--model", "nobody/nothing-of-this-name", "--offline")
    assert "'nobody/nothing-of-this-name' cannot be loaded" in message
    assert "--offline forbids the hub" in message


def test_a_folder_without_a_config(error_of, tmp_path):
    (tmp_path / "empty").mkdir()
    assert error_of(*FILL, "--model", "empty").startswith("model 'empty' cannot be loaded")


def test_a_decoder(error_of, model):
    change_config(model, model_type="gpt2", architectures=["GPT2LMHeadModel"])
    message = error_of(*FILL, "--model", model)
    assert "architecture 'gpt2' is a decoder, which cannot look to the right; usable are: " in message
    assert "modernbert" in message


def test_an_encoder_that_is_configured_as_a_decoder(error_of, model):
    change_config(model, is_decoder=True)
    assert "configured as a decoder" in error_of(*FILL, "--model", model)


def test_an_encoder_without_a_head_for_masks(error_of, model):
    change_config(model, architectures=["BertForSequenceClassification"])
    message = error_of(*FILL, "--model", model)
    assert "holds BertForSequenceClassification, which has no MLM head; BertForMaskedLM is needed" in message


def test_an_architecture_that_nobody_knows(error_of, model):
    change_config(model, model_type="nobodyknows", architectures=["NobodyKnowsForMaskedLM"])
    message = error_of(*FILL, "--model", model)
    assert str(model) in message
    assert "nobodyknows" in message


def test_an_encoder_that_transformers_knows_and_we_do_not(error_of, model):
    change_config(model, model_type="albert", architectures=["AlbertForMaskedLM"])
    assert "architecture 'albert' is not an encoder known here; usable are: " in error_of(*FILL, "--model", model)


@pytest.mark.parametrize("config", ["{", "[]", '"bert"', "", "{}"])
def test_a_config_that_is_no_config(error_of, model, config):
    (model / "config.json").write_text(config)
    assert str(model) in error_of(*FILL, "--model", model)


def test_a_model_without_weights(error_of, model):
    weights_of(model).unlink()
    assert str(model) in error_of(*FILL, "--model", model)


@pytest.mark.parametrize("keep", [0, 7, 200, -100])
def test_weights_that_are_cut_off(error_of, model, keep):
    weights = weights_of(model)
    weights.write_bytes(weights.read_bytes()[:keep])
    assert str(model) in error_of(*FILL, "--model", model)


def test_weights_that_are_garbage(error_of, model):
    weights_of(model).write_bytes(os.urandom(4096))
    assert str(model) in error_of(*FILL, "--model", model)


def test_weights_of_another_shape(error_of, model):
    change_config(model, intermediate_size=80)
    assert str(model) in error_of(*FILL, "--model", model)


def test_weights_of_which_a_layer_is_missing(error_of, model):
    change_config(model, num_hidden_layers=3)
    message = error_of(*FILL, "--model", model)
    assert message.startswith(f"{model}: weights are missing, for one 'bert.encoder.layer.2.")


def test_a_model_without_a_tokenizer(error_of, model):
    (model / "tokenizer.json").unlink()
    assert str(model) in error_of(*FILL, "--model", model)


def test_a_tokenizer_that_is_garbage(error_of, model):
    (model / "tokenizer.json").write_text("{")
    assert str(model) in error_of(*FILL, "--model", model)


def test_an_adapter_that_names_no_base(error_of, tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    assert error_of(*FILL, "--model", "adapter") == "adapter: adapter_config.json names no base model"


# train and recipes


def test_train_with_an_unknown_recipe_key(error_of, tmp_path):
    (tmp_path / "r.yaml").write_text(
        "model: mini\ndata: {corpus: c}\nobjective: {kind: mlm}\nepochs: 1\noptimizer: {learning_rte: 1e-4}\n"
    )
    message = error_of("train", "r.yaml")
    assert message == "r.yaml: optimizer has no setting 'learning_rte'; did you mean 'learning_rate'?"
    assert not (tmp_path / "runs").exists()


def test_train_on_a_corpus_that_is_not_there(error_of, tmp_path):
    (tmp_path / "r.yaml").write_text("model: mini\ndata: {corpus: c}\nobjective: {kind: mlm}\nepochs: 1\n")
    assert error_of("train", "r.yaml") == "c is not a corpus; make it with `diffutron data build RECIPE --out c`"


def test_train_with_an_unknown_way_to_resume(error_of):
    assert error_of("train", "r.yaml", "--resume", "maybe") == "--resume is auto, never or anyway, not 'maybe'"


@pytest.mark.parametrize("command", ["check", "show"])
def test_recipe_commands_on_a_missing_recipe(error_of, command):
    assert "yok.yaml" in error_of("recipe", command, "yok.yaml")


@pytest.mark.parametrize("command", ["check", "show"])
def test_recipe_commands_on_a_file_that_is_no_text(error_of, tmp_path, command):
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00")
    assert "r.yaml" in error_of("recipe", command, "r.yaml")


# whatever the command


def test_a_name_that_holds_a_line_end_does_not_break_the_line(error_of):
    assert error_of("eval", "ppl", "--data", "a\nb.jsonl") == "data file a b.jsonl does not exist"


def test_an_interrupt_is_one_line_too(error_of, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("diffutron.recipe.load_recipe", interrupt)
    assert error_of("data", "build", "r.yaml") == "interrupted"


def test_a_full_disk_is_one_line_too(error_of, monkeypatch):
    def refuse(*_, **__):
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr("diffutron.recipe.load_recipe", refuse)
    assert error_of("data", "build", "r.yaml") == "somewhere: No space left on device"


def test_an_argument_in_another_encoding_is_one_line(error_of):
    message = error_of("fill", "\udce7ocuk [MASK]")
    assert message.startswith("character 1 of the text is a lone surrogate ('\\udce7')")


@pytest.mark.parametrize(("targets", "says"), [
    ("çok erken", "a target is one word, not 'çok erken'; infill fills gaps of several"),
    (",", "there is no target; give the words to rank"),
])  # fmt: skip
def test_fill_with_targets_that_are_none(error_of, targets, says):
    assert error_of("fill", "Sabah [MASK] kalktım.", "--targets", targets) == says


@pytest.mark.parametrize("command", ["restore", "render"])
def test_a_folder_as_the_file_to_write_is_told_before_any_work_and_nothing_is_left(error_of, tmp_path, command):
    (tmp_path / "in.txt").write_text("cok guzel", encoding="utf-8")
    (tmp_path / "out").mkdir()
    assert error_of(command, "in.txt", "--out", "out") == "out is a folder; give the file to write"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "out"]


def test_texts_that_are_not_there_are_told_with_their_file_and_field(error_of, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": " ", "body": "Bir metin."}\n', encoding="utf-8")
    says = "a.jsonl: every text is empty; --text-field names another field"
    for command in (("ppl",), ("compare", "mini", "mini-base"), ("report", "mini")):
        assert error_of("eval", *command, "--data", "a.jsonl").endswith(says)
    message = error_of("eval", "ppl", "--data", "a.jsonl", "--text-field", "body", "--by", "yok")
    assert message == "--by yok: no record of a.jsonl has that field"


def test_a_second_model_that_is_not_there_is_told_before_the_first_is_measured(error_of, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("Bir metin.", encoding="utf-8")
    monkeypatch.setattr("diffutron.evaluation.side_by_side.load_model", lambda *_: pytest.fail("it was loaded first"))
    assert error_of("eval", "compare", "mini", "yok", "--data", "a.txt").startswith("model 'yok' is neither")


def test_an_empty_name_is_no_model(error_of):
    assert error_of("fill", "[MASK]", "--model", "").startswith("no model is named")


@pytest.mark.parametrize(("options", "says"), [
    (("--syllables", 5, "--lines", 100_000), "500000 syllables in all are more than a text can be asked for"),
    (("--regex", "[0-9]{2000}"), "repeats more than 1000 times"),
    (("--regex", "[0-9]{1,1000000}"), "repeats more than 1000 times"),
])  # fmt: skip
def test_constraints_beyond_any_context_are_refused_before_any_work(error_of, options, says):
    assert says in error_of("generate", "Bir gün", "--max-new-tokens", 8, *options)


def test_word_lists_without_a_word_are_refused_and_change_nothing(error_of, tmp_path):
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    (tmp_path / "in.txt").write_text("cok guzel", encoding="utf-8")
    assert error_of("restore", "in.txt", "--lexicon", "empty.txt").startswith("the lexicon holds no word")
    message = error_of("eval", "ppl", "--data", "in.txt", "--frequency", "empty.txt")
    assert message.startswith("empty.txt: no record has a text")
    message = error_of("eval", "generation", "--reference", "in.txt", "--texts", "empty.txt")
    assert message.startswith("empty.txt: no record has a text")
