"""A build that is killed at any moment goes on where it was, and ends in the same bytes."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from diffutron.corpus import CorpusSettings, build_corpus

pytestmark = pytest.mark.slow
KILLS = 20 if os.environ.get("DIFFUTRON_SOAK") else 5
WORDS = "ev okul deniz kitap yol güneş bahçe çocuk şehir ağaç kalem ışık gölge rüzgâr sabah akşam".split()


def text(number):
    draw = random.Random(number)
    return " ".join(draw.choice(WORDS) + draw.choice(["", "ler", "de", "den", "in"]) for _ in range(120)) + "."


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "texts").mkdir()
    for file in range(12):
        lines = (json.dumps({"text": text(file * 300 + n if n % 7 else n)}) + "\n" for n in range(400))
        (tmp_path / "texts" / f"{file:02d}.jsonl.gz").write_bytes(gzip.compress("".join(lines).encode()))
    settings = {
        "sources": [{"path": str(tmp_path / "texts"), "license": "CC0-1.0"}], "filters": "none", "heldout_share": 0.1,
    }  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(settings), encoding="utf-8")
    return path, CorpusSettings(**settings)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "report.html"}


@pytest.mark.parametrize("workers", [1, 2])
def test_kills_at_random_moments_lose_nothing_and_change_nothing(recipe, tmp_path, workers):
    path, settings = recipe
    wanted = content(build_corpus(settings, tmp_path / "whole").folder)
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "diffutron", "data", "build", str(path), "--out", str(out),
               "--workers", str(workers)]  # fmt: skip
    begun = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.monotonic() - begun
    assert content(out) == wanted
    for kill in range(KILLS):
        (out / "report.json").unlink()  # a corpus that stands would be replaced; this one has to be made again
        for each in out.iterdir():
            each.unlink()
        out.rmdir()
        process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(random.Random(kill).uniform(0.1, 0.95) * seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        subprocess.run(command, check=True, capture_output=True)
        assert content(out) == wanted, f"kill {kill}"
        assert not (tmp_path / ".killed.build").exists()


def test_a_worker_that_is_killed_is_replaced(recipe, tmp_path):
    path, settings = recipe
    wanted = content(build_corpus(settings, tmp_path / "whole").folder)
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "diffutron", "data", "build", str(path), "--out", str(out), "--workers", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    killed = 0
    deadline = time.monotonic() + 60
    while not killed and process.poll() is None and time.monotonic() < deadline:
        for child in _workers_of(process.pid):
            os.kill(child, signal.SIGKILL)
            killed += 1
            break
        time.sleep(0.05)
    assert killed
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told.decode()
    assert content(out) == wanted


def _workers_of(pid):
    """Child processes that are at work on tasks (not the tracker of shared resources)."""
    import psutil

    try:
        children = psutil.Process(pid).children(recursive=True)
        return [
            child.pid for child in children if "spawn_main" in " ".join(child.cmdline()) and child.cpu_times().user > 1
        ]
    except psutil.Error:
        return []
