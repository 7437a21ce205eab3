"""Two processes on one machine: they compute what one computes, and fail together."""

import errno
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from diffutron.errors import CheckpointError, InputError, StorageError
from diffutron.evaluation import masked_perplexity
from diffutron.model import Loaded, LoraSettings, add_lora
from diffutron.recipe import check
from diffutron.testing import PLAIN_CORPUS, TINY_TEXTS, tiny_denoiser, tiny_folder, tiny_tokenizer
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.rows import encode_rows
from diffutron.training import state
from diffutron.training.fit import Hooks, fit
from diffutron.training.precision import choose_precision
from diffutron.training.recipe import TrainRecipe
from diffutron.training.run import Run, execute
from diffutron.training.state import CheckpointStore
from diffutron.training.workers import DataParallel, Sharded, Workers, join_workers

KINDS = {"one": Workers, "ddp": DataParallel, "fsdp": Sharded}
PATIENCE_SECONDS = 120
"""Longer than any job below takes; a job that takes longer hangs."""
TOKENIZER = tiny_tokenizer()
"""Training it breaks ties differently in every process, so all take this one's."""
pytestmark = pytest.mark.slow


def settings(*, lora=False, **changes) -> TrainRecipe:
    values = {
        "model": "tiny", "data": {"corpus": "nowhere", "max_tokens": 48, "layout": changes.pop("layout", "packed")},
        "objective": {"kind": "mlm-range", "low": 0.1, "high": 0.8}, "optimizer": {"learning_rate": 3e-3},
        # Five micro-batches to a step, or four or six: two workers seldom get the same number.
        "batch_tokens": 200, "micro_batch_tokens": 40, "train_tokens": 1600, "checkpoint_every_tokens": 900,
        "learning_rate": {"warmup_tokens": 500}, "lora": {"r": 4, "alpha": 8} if lora else None, **changes,
    }  # fmt: skip
    return check(values, TrainRecipe, place="test")


def prepared(folder: Path, recipe: TrainRecipe, family: str) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    denoiser = tiny_denoiser(family, dtype=torch.float64)
    peft_model = None
    if recipe.lora is not None:
        peft_model = add_lora(denoiser, LoraSettings(**recipe.lora.model_dump()), seed=0, base_name="tiny")
    else:
        denoiser.requires_grad_(True)
    codec = TextCodec(TOKENIZER)
    rows = encode_rows(TINY_TEXTS * 3, codec, max_tokens=48)
    precision = choose_precision("float32", torch.device("cpu"))
    return Run(recipe, folder, Loaded("tiny", denoiser, TOKENIZER, {}), codec, None, rows, peft_model, precision)


# What follows runs in each of the two processes; a test gives its name and arguments, and gets what each returns.


def train(workers, folder, recipe, family="bert", evaluate=False):
    run = prepared(folder, recipe, family)
    scores = []

    def measure():
        score = masked_perplexity(run.loaded.denoiser, run.codec, TINY_TEXTS, mask_rate=0.3)
        scores.append(score.nll)
        return {"nll": score.nll}

    execute(run, workers=workers, evaluate=measure if evaluate else None)
    params = dict(run.loaded.denoiser.named_parameters())
    return {
        "sharded": all(type(param).__name__ == "DTensor" for param in params.values()),
        "weights": {name: workers.whole(param).detach().numpy() for name, param in params.items()},
        "scores": scores,
    }


def train_until(workers, folder, recipe, step, *, signalled_rank=None):
    """Stop at a step, by an error that all meet or by a signal that reaches one; what was raised."""
    run = prepared(folder, recipe, "bert")

    def stop(record):
        if record.step == step and signalled_rank is None:
            raise RuntimeError("killed")
        if record.step == step and signalled_rank == workers.rank:
            signal.raise_signal(signal.SIGTERM)

    store = CheckpointStore(folder / "checkpoints", identity=run.identity, keep=2)
    try:
        fit(run.loaded.denoiser, run.rows, run.codec, recipe, store, hooks=Hooks(on_step=stop), workers=workers)
    except (RuntimeError, KeyboardInterrupt) as error:
        return type(error).__name__
    return None


def train_on_a_full_disk(workers, folder, recipe):
    run = prepared(folder, recipe, "bert")

    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = state.save_file
    if workers.is_first:
        state.save_file = refuse
    try:
        execute(run, workers=workers)
    except StorageError as error:
        return str(error)
    finally:
        state.save_file = before
    return None


def train_apart(workers, folder, recipe):
    """Each process in a folder of its own, as on two machines that share nothing."""
    run = prepared(folder / str(workers.rank), recipe, "bert")
    try:
        execute(run, workers=workers)
    except CheckpointError as error:
        return str(error)
    return None


def _serve(rank: int, port: int, pipe, tokenizer) -> None:
    globals()["TOKENIZER"] = tokenizer
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    torch.set_num_threads(1)
    while True:
        job, kind, args, named = pipe.recv()
        try:
            workers = join_workers(kind)
            assert type(workers) is KINDS[kind]
            pipe.send((globals()[job](workers, *args, **named), None))
        except Exception as error:
            pipe.send((None, f"rank {rank}: {type(error).__name__}: {error}"))


class Pair:
    """Two processes that wait for jobs; imports, and not the jobs, are what takes time."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["pytest", "diffutron.testing", "diffutron.training.run"])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.pipes, self.processes = [], []
        for rank in range(2):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, port, there, TOKENIZER), daemon=True)
            process.start()
            self.pipes.append(here)
            self.processes.append(process)

    def run(self, job, kind, *args, **named) -> list:
        for pipe in self.pipes:
            pipe.send((job.__name__, kind, args, named))
        answers = []
        for rank, pipe in enumerate(self.pipes):
            if not pipe.poll(PATIENCE_SECONDS):
                self.end()
                pytest.fail(f"rank {rank} hangs")
            answers.append(pipe.recv())
        errors = [error for _, error in answers if error is not None]
        assert not errors, errors
        return [result for result, _ in answers]

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


@pytest.fixture(scope="module")
def pairs():
    alive: list[Pair] = []

    def pair() -> Pair:
        if not alive or not all(process.is_alive() for process in alive[-1].processes):
            alive.append(Pair())
        return alive[-1]

    yield pair
    for each in alive:
        each.end()


@pytest.fixture
def pair(pairs) -> Pair:
    return pairs()


def curve(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in lines if "loss" in record]


def assert_close(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        np.testing.assert_allclose(tensor, other[name], rtol=0, atol=1e-10, err_msg=name)


CASES = {
    "full": {},
    "lora": {"lora": True},
    "one micro-batch for two workers": {"lora": True, "micro_batch_tokens": 10_000},
    "padded, complementary": {"layout": "padded", "masking": {"complementary": True}, "micro_batch_tokens": 100},
    "bound, averaged": {"objective": {"kind": "diffusion"}, "average": 0.9},
    "activation checkpointing": {"lora": True, "activation_checkpointing": True},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_compute_what_one_computes(tmp_path, pair, kind, case):
    recipe = settings(**CASES[case], workers=kind)
    alone = train(Workers(), tmp_path / "one", recipe, evaluate=True)
    together = pair.run(train, kind, tmp_path / "two", recipe, evaluate=True)
    assert curve(tmp_path / "two") == pytest.approx(curve(tmp_path / "one"), abs=1e-10)
    assert len(curve(tmp_path / "two")) >= 7
    for each in together:
        assert each["sharded"] == (kind == "fsdp")
        assert_close(each["weights"], alone["weights"])
        assert each["scores"] == pytest.approx(alone["scores"], abs=1e-10)


@pytest.mark.parametrize("family", ["modernbert", "xlm-roberta"])
@pytest.mark.parametrize("lora", [True, False])
def test_every_family_can_be_sharded(tmp_path, pair, family, lora):
    recipe = settings(lora=lora, workers="fsdp", train_tokens=1000)
    alone = train(Workers(), tmp_path / "one", recipe, family)
    for each in pair.run(train, "fsdp", tmp_path / "two", recipe, family):
        assert each["sharded"]
        assert_close(each["weights"], alone["weights"])


def test_muon_agrees_between_processes(tmp_path, pair):
    recipe = settings(workers="ddp", optimizer={"kind": "muon", "learning_rate": 3e-3})
    alone = train(Workers(), tmp_path / "one", recipe)
    for each in pair.run(train, "ddp", tmp_path / "two", recipe):
        # The iteration makes small singular values large, and their rounding with them.
        assert all(np.allclose(each["weights"][name], alone["weights"][name], atol=1e-7) for name in alone["weights"])


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_result_of_two_processes_is_whole_and_that_of_one(tmp_path, pair, kind, lora):
    recipe = settings(lora=lora, workers=kind)
    train(Workers(), tmp_path / "one", recipe)
    pair.run(train, kind, tmp_path / "two", recipe)
    name = "adapter" if lora else "model"
    files = sorted(path.name for path in (tmp_path / "one" / name).iterdir())
    assert sorted(path.name for path in (tmp_path / "two" / name).iterdir()) == files
    for file in files:
        mine, theirs = tmp_path / "one" / name / file, tmp_path / "two" / name / file
        if file.endswith(".safetensors"):
            one, two = load_file(mine), load_file(theirs)
            assert one.keys() == two.keys()
            assert all(torch.allclose(one[key], two[key], atol=1e-7) for key in one)
        else:
            assert mine.read_text() == theirs.read_text()


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("change", ["ddp ddp", "fsdp fsdp", "fsdp one", "one fsdp", "ddp one", "one ddp"])
def test_run_goes_on_with_another_number_of_processes(tmp_path, pair, change, lora):
    before, after = change.split()
    recipe = settings(lora=lora, average=0.9)
    whole = train(Workers(), tmp_path / "whole", recipe)
    cut = tmp_path / "cut"
    if before == "one":
        assert train_until(Workers(), cut, recipe, 7) == "RuntimeError"
    else:
        assert pair.run(train_until, before, cut, recipe, 7) == ["RuntimeError"] * 2
    [checkpoint] = (cut / "checkpoints").glob("step-*")
    assert 0 < json.loads((checkpoint / "state.json").read_text())["cursor"]["step"] < 7
    results = [train(Workers(), cut, recipe)] if after == "one" else pair.run(train, after, cut, recipe)
    for each in results:
        assert_close(each["weights"], whole["weights"])


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_finished_run_is_measured_again_and_stays_as_it_is(tmp_path, pair, kind):
    recipe = settings(lora=True, average=0.9)
    first = pair.run(train, kind, tmp_path, recipe, evaluate=True)
    second = pair.run(train, kind, tmp_path, recipe, evaluate=True)
    for before, after in zip(first, second, strict=True):
        assert after["scores"] == pytest.approx(before["scores"][-1:], abs=1e-12)
        assert_close(after["weights"], before["weights"])


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_signal_that_reaches_one_process_stops_both_after_the_same_step(tmp_path, pair, kind):
    recipe = settings(lora=True)
    whole = train(Workers(), tmp_path / "whole", recipe)
    assert pair.run(train_until, kind, tmp_path / "cut", recipe, 3, signalled_rank=1) == ["KeyboardInterrupt"] * 2
    [checkpoint] = (tmp_path / "cut" / "checkpoints").glob("step-*")
    assert checkpoint.name == "step-0000003"
    for each in pair.run(train, kind, tmp_path / "cut", recipe):
        assert_close(each["weights"], whole["weights"])


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_full_disk_on_the_first_machine_is_an_error_on_all(tmp_path, pair, kind):
    errors = pair.run(train_on_a_full_disk, kind, tmp_path, settings())
    assert errors[0] == errors[1]
    assert "No space left on device" in errors[0]
    assert "\n" not in errors[0]


def test_machines_that_do_not_share_the_run_folder_are_told_so(tmp_path, pair):
    recipe = settings()
    assert train_until(Workers(), tmp_path / "0", recipe, 7) == "RuntimeError"
    for error in pair.run(train_apart, "ddp", tmp_path, recipe):
        assert "all machines share" in error


@pytest.fixture
def command(tmp_path):
    """``diffutron train`` on a tiny model, alone or under torchrun."""
    (tmp_path / "texts.txt").write_text("\n".join(TINY_TEXTS * 3), encoding="utf-8")
    sources = [{"path": str(tmp_path / "texts.txt")}]
    recipe = {
        "model": str(tiny_folder(tmp_path / "tiny")), "lora": {"r": 4, "alpha": 8},
        "data": {"build": {"sources": sources, **PLAIN_CORPUS, "heldout_share": 0.2}, "max_tokens": 48},
        "objective": {"kind": "mlm", "mask_rate": 0.3}, "batch_tokens": 200, "micro_batch_tokens": 60,
        "train_tokens": 1000, "optimizer": {"learning_rate": 3e-3},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

    def run(out: str, *options: str, processes: int) -> subprocess.CompletedProcess[str]:
        python = [sys.executable, *(torchrun if processes == 2 else [])]
        call = ["-m", "diffutron", "train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / out), "--offline"]
        started = subprocess.Popen(
            [*python, *call, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
        )  # fmt: skip
        try:
            output, errors = started.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)  # workers outlive a torchrun that is killed alone
            raise
        return subprocess.CompletedProcess(started.args, started.returncode, output, errors)

    return run


def test_torchrun_trains_what_one_process_trains(tmp_path, command):
    alone = command("one", processes=1)
    assert alone.returncode == 0, alone.stderr
    adapters = [load_file(tmp_path / "one" / "adapter" / "adapter_model.safetensors")]
    for kind in ("ddp", "fsdp"):
        together = command(kind, "--set", f"workers={kind}", processes=2)
        assert together.returncode == 0, together.stderr
        assert together.stdout.splitlines() == [str(tmp_path / kind / "adapter")]
        adapters.append(load_file(tmp_path / kind / "adapter" / "adapter_model.safetensors"))
    for other in adapters[1:]:
        assert other.keys() == adapters[0].keys()
        assert all(torch.allclose(other[name], adapters[0][name], atol=1e-5) for name in other)


def test_torchrun_without_workers_in_the_recipe_is_one_line(command):
    refused = command("none", processes=2)
    assert refused.returncode == 1
    lines = [line for line in refused.stderr.splitlines() if line.startswith("error:")]
    wanted = "error: 2 processes were started, but the recipe has no `workers`; set workers=ddp or fsdp"
    assert set(lines) == {wanted}


def test_processes_without_a_way_to_share_the_work_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"^2 processes were started, but .* set workers=ddp or fsdp$"):
        join_workers(None)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert type(join_workers("fsdp")) is Workers


BATCH_SCRIPT = Path(__file__).parents[2] / "scripts" / "slurm" / "train.sbatch"


@pytest.fixture
def slurm(tmp_path):
    """The batch script where srun, scontrol and scancel are stand-ins, and a shell script takes torchrun's place."""
    (tmp_path / "bin").mkdir()

    def command(name: str, lines: str) -> None:
        file = tmp_path / "bin" / name
        file.write_text(f"#!/usr/bin/env bash\ncd {tmp_path}\n{lines}\n")
        file.chmod(0o755)

    command("srun", 'shift; echo "$@" > called; exec "$@"')
    command("scontrol", 'if [ "$1" = requeue ]; then echo "$2" >> requeued; else printf "node1\\nnode2\\n"; fi')
    command("scancel", 'kill "${1#--signal=}" "$(cat pid)" 2>/dev/null || kill -TERM "$(cat pid)"')

    def submit(torchrun: str) -> subprocess.Popen[str]:
        command("torchrun", f"echo $$ > pid\n{torchrun}")
        job = {
            "SLURM_JOB_ID": "42", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2",
            "SLURM_GPUS_ON_NODE": "4", "SLURM_CPUS_PER_TASK": "32", "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        }  # fmt: skip
        return subprocess.Popen([BATCH_SCRIPT, "cpt", "--out", "runs/cpt"], env={**os.environ, **job})

    return submit


def test_batch_script_calls_train_on_every_node_and_ends_as_it_ends(tmp_path, slurm):
    for status in (0, 1):
        assert slurm(f"exit {status}").wait(PATIENCE_SECONDS) == status
        assert not (tmp_path / "requeued").exists()
    called = (tmp_path / "called").read_text()
    assert called.startswith("torchrun --nnodes=2 --nproc-per-node=4 ")
    assert "--rdzv-endpoint=node1:29500 " in called
    assert called.endswith(" -m diffutron train cpt --out runs/cpt\n")


@pytest.mark.parametrize("status", [0, 1])
def test_batch_script_queues_again_what_had_to_stop_unless_it_was_done(tmp_path, slurm, status):
    job = slurm(f"trap 'sleep 0.3; exit {status}' TERM; touch ready; while true; do sleep 0.1; done")
    while not (tmp_path / "ready").exists():
        assert job.poll() is None
    job.send_signal(signal.SIGUSR1)
    assert job.wait(PATIENCE_SECONDS) == 0
    assert (tmp_path / "requeued").exists() == (status == 1)
