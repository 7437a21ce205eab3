"""A build on a cluster: the same bytes as here, and nothing handed in twice. Slurm is played by four scripts."""

import json
import os
import sys
from pathlib import Path

import pytest

from diffutron.corpus import CorpusSettings, build_corpus
from diffutron.errors import DataError

TEXTS = [f"Bu {number} numaralı metindir ve yeterince uzundur." for number in range(60)]

# Runs the tasks of a job array one after the other before it says that it has taken them.
SBATCH = """#!/bin/bash
script="${@: -1}"
echo "$@" >> "$SLURM_FAKE/handed-in"
cp "$script" "$SLURM_FAKE/last-script"
export SLURM_NODELIST=localhost SLURM_CPUS_PER_TASK=1 SLURM_MEM_PER_CPU=2048 RUN_OFFSET=0
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
for task in $(seq 0 "$last"); do
    [ -n "$SLURM_FAKE_RUNS" ] && SLURM_ARRAY_TASK_ID=$task bash "$script" >> "$SLURM_FAKE/log" 2>&1
done
echo "Submitted batch job $(wc -l < "$SLURM_FAKE/handed-in")"
"""
SRUN = """#!/bin/bash
while [[ $1 == -* ]]; do [[ $1 == -n ]] && shift; shift; done
exec "$@"
"""
SQUEUE = """#!/bin/bash
cat "$SLURM_FAKE/queue" 2> /dev/null
"""
SCONTROL = """#!/bin/bash
echo localhost
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, script in (("sbatch", SBATCH), ("srun", SRUN), ("squeue", SQUEUE), ("scontrol", SCONTROL)):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_FAKE", str(folder))
    return folder


def recipe(tmp_path, **changes):
    sources = []
    for part in range(2):
        path = tmp_path / f"{part}.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[part::2]), encoding="utf-8")
        sources.append({"path": path})
    return CorpusSettings(sources=sources, min_characters=10, filters="none", **changes)


def on_slurm(tmp_path):
    return recipe(tmp_path, executor={"kind": "slurm", "partition": "cpu", "time": "1:00:00", "venv": sys.prefix})


def handed_in(slurm):
    """The arrays, each followed by datatrove's small job that adds its statistics up."""
    return (slurm / "handed-in").read_text().splitlines()[::2]


@pytest.mark.slow
def test_slurm_makes_the_same_bytes_as_this_machine(tmp_path, slurm, monkeypatch):
    monkeypatch.setenv("SLURM_FAKE_RUNS", "1")
    here = build_corpus(recipe(tmp_path), tmp_path / "here")
    there = build_corpus(on_slurm(tmp_path), tmp_path / "there")
    assert there.train.read_bytes() == here.train.read_bytes()
    assert there.heldout.read_bytes() == here.heldout.read_bytes()
    assert len(handed_in(slurm)) == 6


def test_each_stage_waits_for_the_one_before_and_its_jobs_are_handed_in_once(tmp_path, slurm):
    settings = on_slurm(tmp_path)
    with pytest.raises(DataError, match=r"tasks left: read 2 of 2, match 1 of 1.*publish 1 of 1"):
        build_corpus(settings, tmp_path / "corpus")
    first, *others = handed_in(slurm)
    assert "afterok" not in first
    assert all(f"afterok:{1 + 2 * number} " in line for number, line in enumerate(others))
    script = (slurm / "last-script").read_text()
    assert f"source {Path(sys.prefix).absolute() / 'bin' / 'activate'}" in script

    (slurm / "queue").write_text("6 cpu corpus-publish PD\n")
    with pytest.raises(DataError, match="at work"):
        build_corpus(settings, tmp_path / "corpus")
    assert len(handed_in(slurm)) == 6

    (slurm / "queue").unlink()  # they failed, all of them
    with pytest.raises(DataError, match="at work"):
        build_corpus(settings, tmp_path / "corpus")
    assert len(handed_in(slurm)) == 12


def test_a_machine_without_slurm_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="the executor slurm needs the command sbatch"):
        build_corpus(on_slurm(tmp_path), tmp_path / "corpus")


def test_a_machine_without_ray_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datatrove.executor.ray", None)
    with pytest.raises(DataError, match="pip install"):
        build_corpus(recipe(tmp_path, executor={"kind": "ray"}), tmp_path / "corpus")
