"""``diffutron eval tasks`` as a user calls it."""

import importlib.util
import json
from functools import partial

import pytest

from diffutron.testing import tiny_folder

pytest.importorskip("lm_eval")


@pytest.fixture
def place(tmp_path, monkeypatch):
    tiny_folder(tmp_path / "one")
    records = [
        {"text": text, "label": number % 2}
        for number, text in enumerate(["Ne güzel.", "Tren kalktı.", "Yine yağmur.", "Kapı açıldı."])
    ]
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (tmp_path / "irony.jsonl").write_text(lines, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(cli, place):
    return partial(cli, "eval", "tasks")


IRONY = ("--data", "ironytr=irony.jsonl", "--model", "one", "--out", "out", "--draws", 8)


def test_scores_are_told_printed_as_json_and_kept(run, place):
    told = run(*IRONY).out
    assert "ironytr  acc " in told
    assert "chance 50.0%, majority 50.0% | 4 documents" in told
    assert "at chance: its interval holds what guessing and always answering the same would get" in told
    found = json.loads(run(*IRONY, "--json").out)
    assert found == json.loads((place / "out" / "results.json").read_text(encoding="utf-8"))
    acc, norm = found["tasks"]
    assert (acc["task"], acc["metric"], norm["metric"], acc["num_draws"]) == ("ironytr", "acc", "acc_norm", 8)
    assert acc["verdict"].startswith("at chance")


def test_a_second_run_asks_nothing_again(run, place):
    first = run(*IRONY, "--json")
    assert "eval tasks | " in first.err
    known = (place / "out" / "requests.jsonl").read_bytes()
    again = run(*IRONY, "--json")
    assert "eval tasks | " not in again.err
    assert again.out == first.out
    assert (place / "out" / "requests.jsonl").read_bytes() == known


def test_seed_limit_and_estimator_are_used(run):
    [few, _] = json.loads(run(*IRONY, "--limit", 2, "--estimator", "pseudo", "--seed", 3, "--json").out)["tasks"]
    assert (few["num_documents"], few["estimator"], few["seed"]) == (2, "pseudo", 3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--estimator", "best"), "--estimator is bound, pseudo or chain, not 'best'"),
        (("--draws", 6), "the number of draws must be a multiple of 4, not 6"),
        (("--data", "ironytr"), "--data wants TASK=FILE, not 'ironytr'"),
        (("--data", "ironytr=gone.jsonl"), "gone.jsonl does not exist"),
        (("--data", "xcopa_tr=irony.jsonl"), "task 'xcopa_tr': irony.jsonl is not what the task expects"),
    ],
)
def test_what_cannot_be_done_is_one_line(run, options, says):
    error = run(*IRONY, *options, code=1).err
    assert says in error
    assert error.strip().splitlines()[-1].startswith("error: ")


def test_without_lm_eval_there_is_one_line_that_says_how_to_get_it(run, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "lm_eval" else find(name, *rest)
    )
    assert run(*IRONY, code=1).err == "error: eval tasks needs lm-eval; pip install 'diffutron[eval]'\n"
