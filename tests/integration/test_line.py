"""Raw text to generated text through the command line, on a tiny model: the main job in seconds."""

import gzip
import json

import pytest

from diffutron.testing import TINY_TEXTS, tiny_folder

RECIPE = """
model: {model}
data:
  build:
    sources: [{{path: {texts}}}]
    heldout_share: 0.2
    min_characters: 10
    filters: none
    duplicates: {{near: false, paragraphs: false}}
    decontaminate: none
  max_tokens: 48
lora: {{r: 4, alpha: 4}}
objective: {{kind: mlm, mask_rate: 0.3}}
optimizer: {{learning_rate: 1e-2}}
batch_tokens: 200
train_tokens: 2000
checkpoint_every_tokens: 1000
evaluate_every_tokens: 1000
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    tiny_folder(folder / "base")
    with gzip.open(folder / "texts.jsonl.gz", "wt", encoding="utf-8") as stream:
        for number in range(60):
            text = " ".join(TINY_TEXTS[(number * step) % len(TINY_TEXTS)] for step in (1, 3, 5)) + f" {number}"
            stream.write(json.dumps({"text": text, "license": "CC0"}) + "\n")
    (folder / "recipe.yaml").write_text(RECIPE.format(model=folder / "base", texts=folder / "texts.jsonl.gz"))
    return folder


@pytest.fixture
def run(cli):
    return cli


def test_from_raw_text_to_generated_text(work, run):
    out, err = run("train", work / "recipe.yaml", "--out", work / "run", "--json", "--offline")
    adapter = json.loads(out)["model"]
    assert "loss" in err
    records = [json.loads(line) for line in (work / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "loss" in record] == list(
        range(1, sum("loss" in record for record in records) + 1)
    )
    assert sum("perplexity" in record for record in records) >= 2
    manifest = json.loads((work / "run" / "run.json").read_text())
    assert manifest["trainable_parameters"] < manifest["parameters"]
    report = json.loads((work / "run" / "corpus" / "report.json").read_text())
    assert report["read"] == 60 == report["train"] + report["heldout"] + sum(report["dropped"].values())

    heldout = work / "run" / "corpus" / "heldout.jsonl.gz"
    scores = {}
    for model in (work / "base", adapter):
        out, _ = run("eval", "ppl", "--model", model, "--data", heldout, "--mask-rate", "0.15", "--json", "--offline")
        scores[model] = json.loads(out)
    keys = {"perplexity", "low", "high", "nll", "top1", "num_texts", "num_tokens", "num_masked", "mask_rate", "seed",
            "fingerprint"}  # fmt: skip
    before, after = scores.values()
    assert keys <= before.keys()
    assert before["num_masked"] == after["num_masked"]
    assert after["perplexity"] < before["perplexity"]
    assert after["low"] <= after["perplexity"] <= after["high"]

    # The same command again finds the run finished and changes nothing.
    weights = (work / "run" / "adapter" / "adapter_model.safetensors").read_bytes()
    run("train", work / "recipe.yaml", "--out", work / "run", "--offline")
    assert (work / "run" / "adapter" / "adapter_model.safetensors").read_bytes() == weights

    run("merge", adapter, "--out", work / "merged", "--offline")
    answers = []
    for model in (adapter, work / "merged"):
        out, _ = run("fill", "Ankara [MASK] evde.", "--model", model, "--top-k", "3", "--json", "--offline")
        answers.append(json.loads(out))
        assert [set(way) for way in answers[-1]] == [{"text", "tokens", "score"}] * 3
    assert [way["text"] for way in answers[0]] == [way["text"] for way in answers[1]]

    (work / "prompts.txt").write_text("Ankara\nBir varmış\n", encoding="utf-8")
    out, _ = run("generate", "--prompts", work / "prompts.txt", "--num-samples", "2", "--model", work / "merged",
                 "--max-new-tokens", "8", "--seed", "3", "--json", "--offline")  # fmt: skip
    texts = json.loads(out)
    assert len(texts) == 4
    assert {"prompt", "completion", "text", "finish_reason", "num_steps", "seed"} == set(texts[0])
    assert all(each["text"] == each["prompt"] + each["completion"] for each in texts)
    assert texts[0]["text"] != texts[1]["text"]
    out, _ = run("generate", "Ankara", "--model", work / "merged", "--max-new-tokens", "8", "--seed", "3", "--json")
    assert json.loads(out) == texts[:1]


def test_text_and_parquet_give_the_score_of_jsonl(work, run):
    import pyarrow
    import pyarrow.parquet

    texts = [text.replace("\n", " ") for text in TINY_TEXTS]
    (work / "same.txt").write_text("\n\n".join(texts), encoding="utf-8")
    (work / "same.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), work / "same.parquet")
    scores = []
    for suffix in ("txt", "jsonl", "parquet"):
        out, _ = run("eval", "ppl", "--model", work / "base", "--data", work / f"same.{suffix}", "--json")
        scores.append({key: value for key, value in json.loads(out).items() if key != "data"})
    assert scores[0] == scores[1] == scores[2]


def test_broken_line_is_named_and_the_rest_is_read(work, run, caplog):
    lines = [json.dumps({"text": text}) for text in TINY_TEXTS]
    (work / "broken.jsonl").write_text("\n".join([*lines[:2], '{"text": "unfinished', *lines[2:]]))
    out, _ = run("eval", "ppl", "--model", work / "base", "--data", work / "broken.jsonl", "--json")
    assert json.loads(out)["num_texts"] == len(TINY_TEXTS)
    assert "broken.jsonl:3" in caplog.text


def test_python_interface_matches_the_command_line(work, run):
    import diffutron

    model = diffutron.load(str(work / "base"))
    out, _ = run("fill", "Ankara [MASK].", "--model", work / "base", "--json")
    assert [way.text for way in model.fill("Ankara [MASK].")] == [way["text"] for way in json.loads(out)]
    [completion] = model.generate("Ankara", max_new_tokens=8, seed=1)
    *_, last = model.stream("Ankara", max_new_tokens=8, seed=1)
    assert last == completion
    assert model.perplexity(list(TINY_TEXTS)).num_texts == len(TINY_TEXTS)
