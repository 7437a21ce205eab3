"""The seed's own row: ids, revisions, columns and windows, with the hub's cache made of tiny folders."""

import csv
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM

from diffutron.corpus import build_corpus
from diffutron.evaluation import masked_perplexity
from diffutron.evaluation.hiding import AtRate
from diffutron.evaluation.perplexity import compare
from diffutron.model import Denoiser, load_model, save_model
from diffutron.recipe import load_recipe
from diffutron.testing import TINY_TEXTS, tiny_codec, tiny_config, tiny_tokenizer
from diffutron.training.estimate import estimate
from diffutron.training.recipe import TrainRecipe

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "reproduce.yaml"
WRITINGS = [" ".join(TINY_TEXTS * 6), "", *TINY_TEXTS]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("reproduce", ROOT / "scripts" / "reproduce.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["reproduce"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two models of mmBERT's kind, with room for windows of 512."""
    place = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("before", "after")):
        torch.manual_seed(seed)
        model = AutoModelForMaskedLM.from_config(tiny_config("modernbert", max_position_embeddings=1024))
        save_model(place / name, Denoiser(model).eval(), tiny_tokenizer(), {})
    return place


@pytest.fixture
def hub(tmp_path, monkeypatch, folders):
    """The published names in the hub's cache, at ``main`` only; and what the data set was asked for."""
    for name, folder in (("jhu-clsp--mmBERT-base", "before"), ("diffutron--DiffutronLM-0.3B-Base", "after")):
        home = tmp_path / f"models--{name}"
        shutil.copytree(folders / folder, home / "snapshots" / "0123abcd")
        (home / "refs").mkdir()
        (home / "refs" / "main").write_text("0123abcd")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    asked = []

    def load_dataset(*names, **options):
        asked.append((*names, options))
        return [{"title": "başlık", "text": text} for text in WRITINGS]

    monkeypatch.setattr("datasets.load.load_dataset", load_dataset)
    return asked


@pytest.fixture
def run(script, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["reproduce.py", *map(str, arguments)])
        script.main()
        return capsys.readouterr().out

    return run


def test_one_command_measures_the_published_checkpoints_on_the_published_data(run, hub, folders):
    found = json.loads(run("--json"))
    assert hub == [("selimfirat/bilkent-turkish-writings-dataset", "v2", {"split": "train", "revision": "main"})]
    assert (found["before"], found["after"]) == ("jhu-clsp/mmBERT-base@main", "diffutron/DiffutronLM-0.3B-Base@main")
    assert [row["before"]["replace"] for row in found["rows"]] == ["mask", "80-10-10"]

    denoisers = [load_model(str(folders / name)).denoiser for name in ("before", "after")]
    for row in found["rows"]:
        hiding = AtRate(0.15, replace=row["before"]["replace"])
        before, after = (
            masked_perplexity(each, tiny_codec(), sorted_by_hash(WRITINGS), hiding=hiding) for each in denoisers
        )
        assert row["before"] == before.as_dict()
        assert row["after"] == after.as_dict()
        assert row["difference"]["value"] == compare(before, after).value
        assert (before.num_texts, before.mask_rate) == (len(TINY_TEXTS) + 1, 0.15)


def sorted_by_hash(texts):
    from diffutron.corpus.draws import text_digest

    return sorted(texts, key=text_digest)


def test_texts_are_read_in_windows_of_512_and_nothing_is_cut_off(run, hub, monkeypatch):
    lengths, features = [], Denoiser.features

    def spy(self, xt, *, segments, **rest):
        lengths.append(segments.lengths)
        return features(self, xt, segments=segments, **rest)

    monkeypatch.setattr(Denoiser, "features", spy)
    run("--json")
    seen = sorted(length for batch in lengths for length in batch)
    # <s> and 510 tokens; </s> as well where a text ends.
    long = len(tiny_codec().encode(WRITINGS[0]))
    windows = [511] * (long // 510) + [long % 510 + 2]
    short = [len(tiny_codec().encode(text)) + 2 for text in TINY_TEXTS]
    assert long > 1020
    assert seen == sorted(4 * [*windows, *short])


def test_told_are_the_published_numbers_beside_ours(run, hub):
    told = run("--limit", 5)
    assert "published  3.42 -> 2.75, -19.6 %" in told
    assert told.count(" -> ") == 4


def test_a_revision_that_is_not_there_is_one_line(run, hub):
    with pytest.raises(SystemExit) as stop:
        run("--before", "jhu-clsp/mmBERT-base@v9")
    assert str(stop.value).startswith("error: model 'jhu-clsp/mmBERT-base@v9' cannot be loaded")
    run("--data-revision", "abc", "--data-config", "v1", "--limit", 3)
    assert hub[-1][1:] == ("v1", {"split": "train", "revision": "abc"})


def test_the_release_as_a_file_gives_what_the_hub_gives(run, hub, tmp_path):
    with open(tmp_path / "texts.csv", "w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["title", "text"])
        rows.writerows([["a\0", text] for text in WRITINGS])
    lines = "".join(json.dumps({"text": text}) + "\n" for text in reversed(WRITINGS))
    (tmp_path / "texts.jsonl").write_text(lines, encoding="utf-8")
    first, second, third = (run("--json", *data) for data in ((), ("--data", tmp_path / "texts.csv"),
                                                              ("--data", tmp_path / "texts.jsonl")))  # fmt: skip
    assert first == second == third
    assert len(hub) == 1


@pytest.mark.parametrize(("name", "says"), [("gone.csv", "gone.csv"), ("other.csv", "has no column 'text'")])
def test_a_file_that_does_not_serve_is_one_line(run, hub, tmp_path, name, says):
    (tmp_path / "other.csv").write_text("title\nbir\n", encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        run("--data", tmp_path / name)
    assert str(stop.value).startswith("error: ")
    assert says in str(stop.value)


def test_an_unreachable_hub_names_the_way_out(run, hub, monkeypatch):
    def load_dataset(*names, **options):
        raise ConnectionError("no route")

    monkeypatch.setattr("datasets.load.load_dataset", load_dataset)
    with pytest.raises(SystemExit, match="cannot be read from the hub: no route; give --data FILE"):
        run()


def test_another_vocabulary_is_refused(run, hub, folders, tmp_path):
    shutil.copytree(folders / "after", tmp_path / "other")
    layout = json.loads((tmp_path / "other" / "tokenizer.json").read_text(encoding="utf-8"))
    pieces = layout["model"]["vocab"]
    pieces[-1], pieces[-2] = pieces[-2], pieces[-1]
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(layout), encoding="utf-8")
    with pytest.raises(SystemExit, match="has another vocabulary than"):
        run("--after", tmp_path / "other")


def test_the_recipe_is_the_published_run(hub, tmp_path):
    recipe = load_recipe(RECIPE, TrainRecipe)
    assert (recipe.model, recipe.data.max_tokens, recipe.data.long_texts) == ("jhu-clsp/mmBERT-base", 512, "drop")
    assert (recipe.lora.r, recipe.lora.alpha, recipe.objective.kind) == (256, 256, "mlm")
    assert estimate(recipe.model_copy(update={"train_tokens": 1, "epochs": None})).trainable_percent == 14.9417
    built = build_corpus(recipe.data.build, tmp_path / "corpus")
    [asked] = hub
    assert asked == (
        "diffutron/DiffutronLM-Pretraining-Corpus",
        None,
        {"split": "train", "revision": "main", "streaming": True},
    )
    assert built.report["kept"] == len(TINY_TEXTS) + 1


def test_the_notebook_is_valid_stripped_and_its_code_compiles():
    notebook = json.loads((ROOT / "notebooks" / "reproduce.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 4)
    assert set(notebook) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code
    for cell in notebook["cells"]:
        assert all(isinstance(line, str) for line in cell["source"])
        assert cell["metadata"] == {}
    for cell in code:
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
        compile("".join(cell["source"]), "notebook", "exec")


@pytest.mark.parametrize("whole", [False, True])
def test_the_notebook_asks_only_for_what_the_commands_know(script, monkeypatch, whole):
    """Its cells, run, with commands noted instead of started."""
    import subprocess

    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command[1:]))
    notebook = json.loads((ROOT / "notebooks" / "reproduce.ipynb").read_text(encoding="utf-8"))
    names = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            text = "".join(cell["source"])
            if whole:
                text = text.replace("LIMIT = 1000", "LIMIT = None").replace("TOKENS = 20_000_000", "TOKENS = None")
            exec(compile(text, "notebook", "exec"), names)
    _, measure, train, again = commands
    limit = [] if whole else ["--limit", "1000"]
    assert measure == ["scripts/reproduce.py", *limit]
    assert again == ["scripts/reproduce.py", "--after", "runs/reproduce/adapter", *limit]
    assert train[:4] == ["-m", "diffutron", "train", "reproduce"]
    recipe = load_recipe(RECIPE, TrainRecipe, train[5::2])
    assert (recipe.train_tokens, recipe.epochs) == ((None, 1) if whole else (20_000_000, None))
    [source] = recipe.data.build.sources
    assert (source.hub, source.max_documents) == (
        "diffutron/DiffutronLM-Pretraining-Corpus",
        None if whole else 200_000,
    )
