"""``diffutron doctor``: each line is a truth about this machine, and a fault has a way out."""

import importlib.metadata
import json
from functools import partial

import pytest

from diffutron.cli import doctor
from diffutron.testing import tiny_folder


@pytest.fixture
def model(tmp_path):
    return tiny_folder(tmp_path / "tiny")


@pytest.fixture
def run(cli, monkeypatch):
    monkeypatch.setattr(doctor, "check_matrix_peak", lambda: doctor.Check("matrix peak", "ok", "measured elsewhere"))
    return partial(cli, "doctor")


def statuses(out):
    return {check["name"]: check["status"] for check in json.loads(out)}


def test_every_check_is_a_line_and_nothing_fails_here(run, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out, err = run("--model", model)
    assert err == ""
    names = ["python", *doctor.PACKAGES, "threads", "blas", "gpu", "bfloat16", "matrix peak", "memory", "disk",
             "folder", "hub", "models", "model", "tokenizer", "fill"]  # fmt: skip
    assert [line[6:20].strip() for line in out.splitlines()] == names
    assert {line.split()[0] for line in out.splitlines()} <= {"ok", "warn"}
    assert list(tmp_path.iterdir()) == [model]  # and nothing was left behind


def test_json_says_the_same(run, model):
    out, _ = run("--model", model, "--json")
    checks = json.loads(out)
    assert {frozenset(check) for check in checks} == {frozenset({"name", "status", "found", "way_out"})}
    assert statuses(out)["fill"] == "ok"


def test_a_model_that_is_missing_fails(run):
    out, err = run("--model", "nobody/nothing-of-this-name", "--offline", "--json", code=1)
    assert statuses(out)["model"] == "fail"
    assert "fill" not in statuses(out)
    assert err == f"error: 1 of {len(json.loads(out))} checks failed: model\n"
    [check] = [check for check in json.loads(out) if check["name"] == "model"]
    assert "--offline forbids the hub" in check["found"]
    assert check["way_out"]


def test_a_folder_that_cannot_be_written_fails(run, model, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    check = doctor.check_folder(tmp_path / "file")
    assert (check.status, check.way_out) == ("fail", "work in a folder of your own, or mend its permissions")
    monkeypatch.setattr(doctor, "check_folder", lambda _: check)
    out, err = run("--model", model, code=1)
    assert f"fail  folder         {tmp_path / 'file'}: Not a directory; work in" in out
    assert err.endswith("checks failed: folder\n")


def test_a_disk_that_does_not_rename_fails(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("pathlib.Path.rename", refuse)
    assert doctor.check_folder(tmp_path).status == "fail"
    monkeypatch.undo()
    monkeypatch.setattr("os.fsync", refuse)
    assert doctor.check_folder(tmp_path).status == "fail"
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_too_old_or_missing_fails_with_the_command_that_mends_it(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.1")
    check = doctor.check_package("transformers")
    assert (check.status, check.found) == ("fail", "0.1")
    assert check.way_out.startswith("pip install 'transformers")
    assert "5.3" in check.way_out

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert doctor.check_package("peft").found == "not installed"


def test_more_threads_than_cores_are_a_warning(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 64)
    check = doctor.check_threads()
    assert check.status == "warn"
    assert "OMP_NUM_THREADS" in check.way_out


def test_hub_line_follows_the_offline_variable(monkeypatch):
    assert "never asked" in doctor.check_hub().found
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert "never" not in doctor.check_hub().found


def test_no_embedded_model_is_a_warning(monkeypatch):
    monkeypatch.setattr("diffutron.model.names.embedded_file", lambda _: None)
    check = doctor.check_models()
    assert (check.status, check.found) == ("warn", "none embedded")
    assert "diffutron[mini]" in check.way_out


def test_a_tokenizer_that_loses_letters_is_a_warning(monkeypatch, model):
    honest = doctor.check_model(str(model))
    assert [check.status for check in honest] == ["ok", "ok", "ok"]
    monkeypatch.setattr("diffutron.tokens.codec.TextCodec.decode", lambda _, ids: "Igdir'dan")
    tokenizer = list(doctor.check_model(str(model)))[1]
    assert tokenizer.status == "warn"
    assert "comes back as" in tokenizer.found


def test_a_check_that_breaks_has_failed_and_the_others_go_on(run, model, monkeypatch):
    def broken():
        raise RuntimeError("no such\nthing")

    monkeypatch.setattr(doctor, "check_blas", broken)
    out, _ = run("--model", model, "--json", code=1)
    assert [name for name, status in statuses(out).items() if status == "fail"] == ["blas"]
    assert statuses(out)["fill"] == "ok"
