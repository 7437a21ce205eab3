"""``train --dry-run``: every stage of a run is tried, faults are named, and nothing stays behind."""

import json
import os
import shutil
from collections import namedtuple
from functools import partial

import pytest

from diffutron.testing import TINY_TEXTS, tiny_folder
from diffutron.training import dry_run
from diffutron.training.state import CheckpointStore

RECIPE = """
model: base
data:
  build:
    sources: [{path: texts.jsonl}]
    heldout_share: 0.2
    min_characters: 10
    filters: none
    duplicates: {near: false, paragraphs: false}
    decontaminate: none
  max_tokens: 48
lora: {r: 4, alpha: 4}
objective: {kind: mlm, mask_rate: 0.3}
average: 0.9
batch_tokens: 200
train_tokens: 40_000
keep_checkpoints: 3
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    tiny_folder(tmp_path / "base")
    with open(tmp_path / "texts.jsonl", "w", encoding="utf-8") as stream:
        for number in range(40):
            text = " ".join(TINY_TEXTS[(number * step) % len(TINY_TEXTS)] for step in (1, 3)) + f" {number}"
            stream.write(json.dumps({"text": text}) + "\n")
    (tmp_path / "r.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(cli):
    return partial(cli, "train", "r.yaml", "--dry-run")


def everything_in(folder):
    return sorted((str(path), path.is_file() and path.stat().st_mtime_ns) for path in folder.rglob("*"))


@pytest.mark.parametrize("changes", [(), ("--set", "lora=null"), ("--set", "objective.kind=mlm", "--out", "a/b/c")])
def test_every_stage_is_tried_and_nothing_stays_behind(place, run, changes):
    before = everything_in(place)
    out, err = run("--json", *changes)
    assert everything_in(place) == before
    found = json.loads(out)
    names = [stage["name"] for stage in found["stages"]]
    assert names == ["prepare", "step 1", "step 2", "checkpoint", "evaluate", "save", "resume", "load"]
    assert [line.split("  ")[0] for line in err.splitlines()] == names
    assert found["total_tokens"] == 40_000
    assert found["hours"] == pytest.approx(40_000 / found["tokens_per_second"] / 3600)
    assert 0 < found["disk_bytes"] < found["free_bytes"]


def test_line_for_people_has_speed_time_memory_and_disk(place, run):
    out, _ = run()
    assert len(out.splitlines()) == 1
    assert all(part in out for part in ("tok/s", "to the end", "peak memory", "disk"))


def test_disk_needed_is_for_all_checkpoints_and_one_more(place, run):
    few, many = (json.loads(run("--json", "--set", f"keep_checkpoints={n}")[0])["disk_bytes"] for n in (1, 5))
    checkpoint = (many - few) / 4
    result = few - 2 * checkpoint
    assert 4 * 3328 < result < checkpoint  # adapters of 3,328 parameters; a checkpoint has three averages of them too
    assert 4 * 4 * 3328 < checkpoint < 8 * 4 * 3328


def test_epochs_of_a_corpus_that_is_cut_short_have_no_known_end(place, run, monkeypatch):
    epochs = ("--json", "--set", "train_tokens=null", "--set", "epochs=3")
    whole = json.loads(run(*epochs)[0])
    assert whole["total_tokens"] > 3 * 1000
    monkeypatch.setattr(dry_run, "MAX_DOCUMENTS", 20)
    out, _ = run(*epochs)
    assert json.loads(out)["total_tokens"] is None
    assert "unknown until the corpus is built" in run(*epochs[1:])[0]


def test_corpus_of_the_real_run_is_used_where_it_is_built(place, run, cli, monkeypatch):
    cli("train", "r.yaml", "--set", "train_tokens=200")
    monkeypatch.setattr(dry_run, "MAX_DOCUMENTS", 20)
    before = everything_in(place)
    assert "of a part" not in run()[1]
    assert everything_in(place) == before


def test_filters_decide_which_records_count_however_far_down_they_stand(place, run, monkeypatch):
    monkeypatch.setattr(dry_run, "MAX_DOCUMENTS", 1)
    with open(place / "texts.jsonl", "a", encoding="utf-8") as stream:
        for number in range(20):
            stream.write(json.dumps({"text": f"{TINY_TEXTS[number % 8]} {number}", "set": "wanted"}) + "\n")
    _, err = run("--set", "data.build.sources=[{path: texts.jsonl, where: {set: [wanted]}}]")
    assert "of a part" not in err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("model=nowhere", "model 'nowhere' is neither an embedded model, a folder, nor a hub id"),
        ("data.max_tokens=65", "data.max_tokens is 65, but base reads at most 64 tokens"),
        ("data.build.sources=[{path: yok.jsonl}]", "yok.jsonl"),
        ("data.build.min_characters=1000", "no document is left of 40 read"),
    ],
)
def test_what_would_stop_the_run_stops_the_dry_run(place, run, changes, message):
    before = everything_in(place)
    out, err = run("--set", changes, code=1)
    assert out == ""
    assert err.splitlines()[-1].startswith("error: ")
    assert message in err.splitlines()[-1]
    assert everything_in(place) == before


def test_a_checkpoint_that_comes_back_changed_is_a_fault(place, run, monkeypatch):
    honest = CheckpointStore.resume

    def resume(store, trained, **rest):
        cursor = honest(store, trained, **rest)
        if cursor.step:
            next(param for param in trained.model.parameters() if param.requires_grad).data[0] += 1e-6
        return cursor

    before = everything_in(place)
    monkeypatch.setattr(CheckpointStore, "resume", resume)
    _, err = run("--set", "average=null", code=1)
    assert "comes back from a checkpoint as something else" in err
    assert everything_in(place) == before


def test_a_checkpoint_that_cannot_be_read_is_a_fault(place, run, monkeypatch):
    monkeypatch.setattr(CheckpointStore, "_newest_first", lambda _: [])
    assert "cannot be read again" in run(code=1)[1]


def test_a_disk_that_is_too_small_is_a_fault(place, run, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6, 1000))
    assert "lower keep_checkpoints, or choose another place with --out" in run(code=1)[1]


def test_a_place_that_takes_no_files_is_named(place, run, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    _, err = run("--out", place / "deep" / "down", code=1)
    assert f"{place} takes no files: Permission denied; mend its permissions, or choose another place with --out" in err


def test_an_interrupt_leaves_nothing_behind(place, run, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    before = everything_in(place)
    monkeypatch.setattr(dry_run, "execute", interrupt)
    assert "error: interrupted; the dry run has left nothing behind" in run(code=1)[1]
    assert everything_in(place) == before


def test_several_processes_are_refused(place, run, monkeypatch):
    from diffutron.training.workers import Workers

    class Two(Workers):
        size = 2

    monkeypatch.setattr("diffutron.training.workers.join_workers", lambda _: Two())
    assert "--dry-run is for one process; start it without torchrun" in run(code=1)[1]


def test_order_of_the_answers_is_that_of_the_run(place, run):
    # Two steps of another order may hold more tokens than the first two of this one, and a third would be taken.
    with open(place / "talks.jsonl", "w", encoding="utf-8") as stream:
        for number in range(40):
            answer = " ".join([TINY_TEXTS[number % 8]] * (1 + number % 3))[:120]
            stream.write(json.dumps({"instruction": f"Soru {number}?", "output": answer}) + "\n")
    for batch_tokens in (64, 96, 128, 160, 192):
        run("--set", "data={build: {sources: [{path: talks.jsonl, kind: conversations}], filters: none, "
            "duplicates: {near: false, paragraphs: false}, decontaminate: none}, max_tokens: 60, "
            "order: short-answers-first}",
            "--set", f"batch_tokens={batch_tokens}")  # fmt: skip
