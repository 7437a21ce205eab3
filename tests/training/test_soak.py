"""Kills, broken files and full disks: what a run has reached is never lost, and the end is the same to the bit.

DIFFUTRON_SOAK=1 kills 200 times instead of 25.
"""

import builtins
import contextlib
import errno
import functools
import hashlib
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers.modeling_utils
from safetensors import SafetensorError
from safetensors.torch import load_file

from diffutron.errors import ModelError, StorageError
from diffutron.model import LoraSettings, add_lora, load_model, save_adapter, save_model
from diffutron.recipe import check
from diffutron.storage import appearing, recover
from diffutron.testing import PLAIN_CORPUS, TINY_TEXTS, tiny_denoiser, tiny_folder, tiny_tokenizer
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.rows import encode_rows
from diffutron.training import state
from diffutron.training.average import WeightAverage
from diffutron.training.fit import fit
from diffutron.training.optimizer import OptimizerSet, OptimizerSettings
from diffutron.training.recipe import TrainRecipe
from diffutron.training.run import execute, prepare_run
from diffutron.training.state import CheckpointStore, Cursor, Trained

KILLS = 200 if os.environ.get("DIFFUTRON_SOAK") == "1" else 25
LONG_SECONDS = 120
"""After so long a child is taken to hang."""


@pytest.fixture(scope="module")
def processes():
    """Children of a server that has imported everything once, so that each costs milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["pytest", "transformers.modeling_utils", "diffutron.testing", "diffutron.training.run"]
    )
    return context


# A run that is killed.


def _train(recipe: TrainRecipe, folder: Path, pipe) -> None:
    torch.set_num_threads(1)
    begun = time.monotonic()
    pipe.send("begun")
    run = prepare_run(recipe, folder)
    prepared = time.monotonic()
    execute(run)
    pipe.send((prepared - begun, time.monotonic() - prepared))


def _live(processes, recipe, folder, seconds=None) -> tuple[float, float] | None:
    """One life of a run; None if it was killed, else how long it took to prepare and to train."""
    here, there = processes.Pipe()
    child = processes.Process(target=_train, args=(recipe, folder, there))
    child.start()
    there.close()
    assert here.poll(LONG_SECONDS)
    assert here.recv() == "begun"
    if not here.poll(seconds if seconds is not None else LONG_SECONDS):
        os.kill(child.pid, signal.SIGKILL)
    child.join(LONG_SECONDS)
    if child.exitcode == -signal.SIGKILL:
        return None
    assert child.exitcode == 0
    return here.recv()


def _result(folder: Path) -> dict[str, str]:
    [place] = [path for name in ("adapter", "model") if (path := folder / name).is_dir()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in place.glob("*.safetensors")}


def _drafts(folder: Path) -> list[str]:
    """What saves left behind; what the building of a corpus leaves is not theirs."""
    names = [path.name for path in folder.rglob(".*") if path.suffix in (".tmp", ".old")]
    return [name for name in names if not name.startswith(".corpus.")]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_run_killed_anywhere_ends_with_the_same_bits(tmp_path, processes):
    tiny_folder(tmp_path / "tiny")
    (tmp_path / "texts.txt").write_text("\n".join(TINY_TEXTS), encoding="utf-8")
    sources = [{"path": str(tmp_path / "texts.txt")}]
    common = {
        "model": str(tmp_path / "tiny"),
        "data": {"build": {"sources": sources, **PLAIN_CORPUS, "heldout_share": 0}, "max_tokens": 48},
        "objective": {"kind": "mlm", "mask_rate": 0.3}, "batch_tokens": 60, "train_tokens": 4000,
        "checkpoint_every_tokens": 1,
    }  # fmt: skip
    kinds = [
        {"keep_checkpoints": 2, "average": 0.9},
        {"keep_checkpoints": 1, "lora": {"r": 4, "alpha": 8}, "optimizer": {"kind": "muon"}},
    ]
    recipes = [check(common | kind, TrainRecipe, place="test") for kind in kinds]
    whole, times = [], []
    for number, recipe in enumerate(recipes):
        times.append(_live(processes, recipe, tmp_path / f"whole-{number}"))
        whole.append(_result(tmp_path / f"whole-{number}"))
    draw = random.Random(0)
    kills = kills_in_a_save = runs = 0
    while kills < KILLS:
        number, folder = runs % 2, tmp_path / f"killed-{runs}"
        preparing, training = times[number]
        # A tenth of the run in each life, on the mean: the cost of preparing is paid every time.
        while _live(processes, recipes[number], folder, draw.uniform(0, preparing + training / 5)) is None:
            kills += 1
            kills_in_a_save += bool(_drafts(folder))
        assert _result(folder) == whole[number], f"run {runs}"
        assert _drafts(folder) == []
        assert len(list((folder / "checkpoints").iterdir())) <= recipes[number].keep_checkpoints
        records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        steps = [record["step"] for record in records if "loss" in record]
        assert steps == list(range(1, len(steps) + 1))
        runs += 1
    print(f"{kills} kills, {kills_in_a_save} of them in a save, {runs} runs of {len(steps)} steps")
    assert kills_in_a_save > 0


def test_second_signal_in_the_middle_of_an_update_keeps_the_checkpoint_before_it(tmp_path, monkeypatch):
    codec = TextCodec(tiny_tokenizer())
    rows = encode_rows(TINY_TEXTS, codec, max_tokens=48)
    recipe = check(
        {"model": "tiny", "data": {"corpus": "nowhere"}, "objective": {"kind": "mlm"}, "batch_tokens": 100,
         "train_tokens": 800, "checkpoint_every_tokens": 250},
        TrainRecipe, place="test",
    )  # fmt: skip
    whole, cut, resumed = tiny_denoiser(), tiny_denoiser(), tiny_denoiser(seed=5)
    fit(whole, rows, codec, recipe, store(tmp_path / "whole"))
    updates = []

    def update_and_be_signalled(optimizers):
        for optimizer in optimizers.optimizers:
            optimizer.step()
        updates.append(1)
        if len(updates) == 5:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(OptimizerSet, "step", update_and_be_signalled)
        with pytest.raises(KeyboardInterrupt):
            fit(cut, rows, codec, recipe, store(tmp_path / "cut"))
    assert max(path.name for path in (tmp_path / "cut").iterdir()) < "step-0000004"
    fit(resumed, rows, codec, recipe, store(tmp_path / "cut"))
    assert all(torch.equal(one, two) for one, two in zip(whole.parameters(), resumed.parameters(), strict=True))


# A checkpoint that is damaged.


@functools.cache
def trained(seed: int) -> Trained:
    """A model, optimizer and average that differ from seed to seed in every tensor; not to be changed."""
    denoiser = tiny_denoiser(seed=seed)
    optimizers = OptimizerSet(OptimizerSettings(), denoiser)
    optimizers.prepare_state()
    generator = torch.Generator().manual_seed(seed)
    for tensor in optimizers.state().values():
        tensor.uniform_(0, 1, generator=generator)
    return Trained(denoiser, optimizers, WeightAverage(denoiser, 0.9))


def emptied() -> Trained:
    """The same one every time, with nothing but NaN in it, to resume into."""
    found = trained(seed=9)
    for tensors in found.tensors().values():
        for tensor in tensors.values():
            tensor.fill_(torch.nan)
    return found


def store(folder: Path, keep: int = 3) -> CheckpointStore:
    return CheckpointStore(folder, identity={"run": "run"}, keep=keep)


def same(one: Trained, other: Trained) -> bool:
    mine, theirs = one.tensors(), other.tensors()
    return all(torch.equal(tensor, theirs[file][name]) for file in mine for name, tensor in mine[file].items())


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    for step in (1, 2):
        store(folder).save(Cursor(step=step, tokens=10 * step), trained(seed=step))
    return folder


def _truncate(file: Path, draw: random.Random) -> None:
    raw = file.read_bytes()
    file.write_bytes(raw[: draw.randrange(len(raw))])


def _flip(file: Path, draw: random.Random) -> None:
    raw = bytearray(file.read_bytes())
    raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
    file.write_bytes(raw)


def _fill(file: Path, draw: random.Random) -> None:
    file.write_bytes(draw.choice([b"", b"[]", b"{}", b"null", draw.randbytes(100), file.read_bytes() + b" "]))


def _delete(file: Path, draw: random.Random) -> None:
    file.unlink()


def _become_a_folder(file: Path, draw: random.Random) -> None:
    file.unlink()
    file.mkdir()


def _become_that_of_another_step(file: Path, draw: random.Random) -> None:
    shutil.copy(file.parent.parent / "step-0000001" / file.name, file)


def _lose_the_checkpoint(file: Path, draw: random.Random) -> None:
    shutil.rmtree(file.parent)
    if draw.random() < 0.5:
        file.parent.write_text("not a folder")
    else:
        file.parent.mkdir()


DAMAGES = [
    _truncate, _flip, _fill, _delete, _become_a_folder, _become_that_of_another_step, _truncate, _flip, _flip,
    _lose_the_checkpoint,
]  # fmt: skip


def damage(checkpoint: Path, case: int) -> None:
    """Ten ways, ten times, at places drawn from the number of the case."""
    draw = random.Random(case)
    DAMAGES[case % len(DAMAGES)](draw.choice(sorted(checkpoint.iterdir())), draw)


@pytest.mark.parametrize("case", range(100))
def test_damaged_checkpoint_is_told_and_the_one_before_taken(tmp_path, two_checkpoints, caplog, case):
    folder = shutil.copytree(two_checkpoints, tmp_path / "checkpoints")
    damage(folder / "step-0000002", case)
    found = emptied()
    assert store(folder).resume(found) == Cursor(step=1, tokens=10)
    assert same(found, trained(seed=1))
    [warning] = caplog.messages
    assert "step-0000002 is broken" in warning
    # The damaged one is in nobody's way.
    store(folder, keep=1).save(Cursor(step=2, tokens=20), trained(seed=2))
    assert store(folder).resume(found) == Cursor(step=2, tokens=20)
    assert [path.name for path in folder.iterdir()] == ["step-0000002"]


def test_run_without_a_whole_checkpoint_starts_at_zero(tmp_path, two_checkpoints, caplog):
    folder = shutil.copytree(two_checkpoints, tmp_path / "checkpoints")
    for case, checkpoint in enumerate(sorted(folder.iterdir())):
        damage(checkpoint, case)
    found = emptied()
    assert store(folder).resume(found) == Cursor()
    assert all(tensor.isnan().all() for tensors in found.tensors().values() for tensor in tensors.values())
    assert len(caplog.messages) == 2


def test_damaged_checkpoint_of_a_later_step_does_not_take_the_place_of_a_whole_one(tmp_path):
    one_kept = store(tmp_path, keep=1)
    one_kept.save(Cursor(step=5, tokens=50), trained(seed=5))
    damage(tmp_path / "step-0000005", 0)
    assert one_kept.resume(emptied()) == Cursor()
    one_kept.save(Cursor(step=3, tokens=30), trained(seed=3))
    assert one_kept.resume(emptied()) == Cursor(step=3, tokens=30)


# A disk that refuses.


class Disk:
    """Counts what asks the disk to change, and does something else at one of these points, or from it on."""

    _CALLS = ((os, "mkdir"), (os, "rename"), (os, "replace"), (os, "chmod"), (os, "fsync"), (os, "open"),
              (os, "unlink"), (os, "rmdir"), (io, "open"), (builtins, "open"), (state, "save_file"),
              (safetensors.torch, "save_file"), (transformers.modeling_utils, "safe_save_file"))  # fmt: skip

    def __init__(self, at: int | None = None, otherwise=None, *, stays: bool = False) -> None:
        self.at, self.otherwise, self.stays = at, otherwise, stays
        self.points: list[str] = []

    def _refuses(self, name: str) -> bool:
        self.points.append(name)
        now = len(self.points) - 1
        return self.at is not None and (now == self.at or (self.stays and now > self.at))

    def _open(self, real):
        def opened(file, mode="r", *args, **named):
            writes = "r" not in mode
            if writes and self._refuses("open"):
                self.otherwise()
            stream = real(file, mode, *args, **named)
            return _Stream(stream, self) if writes else stream

        return opened

    def _save_file(self, real):
        def save(tensors, file, *args, **named):
            real(tensors, file, *args, **named)
            if self._refuses("save_file"):
                raw = Path(file).read_bytes()
                with open(file, "r+b") as stream:
                    stream.truncate(len(raw) // 2)
                try:
                    self.otherwise()
                except OSError as error:
                    raise SafetensorError(f"I/O error: {error.strerror} (os error {error.errno})") from None

        return save

    def _call(self, name, real):
        def called(*args, **named):
            if self._refuses(name):
                self.otherwise()
            return real(*args, **named)

        return called

    @contextlib.contextmanager
    def used(self):
        before = [(place, name, getattr(place, name)) for place, name in self._CALLS]
        for place, name, real in before:
            kind = {"save_file": self._save_file, "safe_save_file": self._save_file}.get(name)
            if name == "open" and place is not os:
                kind = self._open
            setattr(place, name, kind(real) if kind is not None else self._call(name, real))
        try:
            yield
        finally:
            for place, name, real in before:
                setattr(place, name, real)


class _Stream:
    """A file that may refuse in the middle of a write."""

    def __init__(self, stream, disk: Disk) -> None:
        self._stream, self._disk = stream, disk

    def write(self, text):
        if self._disk._refuses("write"):
            self._stream.write(text[: len(text) // 2])
            self._stream.flush()
            self._disk.otherwise()
        return self._stream.write(text)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self._stream.close()

    def __getattr__(self, name):
        return getattr(self._stream, name)


def refusing(number: int):
    def refuse() -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def damaged_and_full(folder: Path, two_checkpoints: Path) -> Path:
    """A whole checkpoint and a damaged one, which is about to be written again: every branch of a save is taken."""
    shutil.copytree(two_checkpoints, folder)
    (folder / "step-0000002" / "state.json").write_text("{}")
    (folder / ".step-0000007.01234567.tmp").mkdir()
    return folder


def save_second(folder: Path) -> None:
    store(folder, keep=1).save(Cursor(step=2, tokens=20), trained(seed=2))


def points_of(work, *args) -> list[str]:
    disk = Disk()
    with disk.used():
        work(*args)
    return disk.points


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize(
    "number", [errno.ENOSPC, *(pytest.param(each, marks=pytest.mark.slow) for each in (errno.EIO, errno.EACCES))]
)
def test_disk_that_refuses_at_any_point_of_a_save_costs_nothing_but_the_save(
    tmp_path, two_checkpoints, number, stays, caplog
):
    points = points_of(save_second, damaged_and_full(tmp_path / "count", two_checkpoints))
    assert {"mkdir", "save_file", "open", "write", "fsync", "chmod", "rename"} <= set(points)
    refused = 0
    for at, point in enumerate(points):
        place = f"{at} {point}"
        folder = damaged_and_full(tmp_path / str(at), two_checkpoints)
        error = None
        with Disk(at, refusing(number), stays=stays).used():
            try:
                save_second(folder)
            except StorageError as met:
                error = str(met)
        found = emptied()
        cursor = store(folder).resume(found)
        assert cursor.step in (1, 2), place
        assert same(found, trained(seed=cursor.step)), place
        if error is None:
            assert cursor.step == 2, place
        else:
            refused += 1
            assert str(folder / "step-0000002") in error, place
            assert os.strerror(number) in error, place
            assert "\n" not in error
        save_second(folder)
        assert store(folder).resume(found).step == 2, place
        assert [path.name for path in folder.iterdir()] == ["step-0000002"], place
    assert refused >= 25


def _save_second_and_die(folder: Path, at: int) -> None:
    torch.set_num_threads(1)
    with Disk(at, die).used():
        save_second(folder)


@pytest.mark.slow
def test_kill_at_any_point_of_a_save_leaves_a_whole_checkpoint(tmp_path, two_checkpoints, processes):
    points = points_of(save_second, damaged_and_full(tmp_path / "count", two_checkpoints))
    for at, point in enumerate(points):
        folder = damaged_and_full(tmp_path / str(at), two_checkpoints)
        child = processes.Process(target=_save_second_and_die, args=(folder, at))
        child.start()
        child.join(LONG_SECONDS)
        assert child.exitcode == -signal.SIGKILL, point
        found = emptied()
        cursor = store(folder).resume(found)
        assert same(found, trained(seed=cursor.step)), f"{at} {point}"
        save_second(folder)
        assert [path.name for path in folder.iterdir()] == ["step-0000002"], f"{at} {point}"


# The result of a run: its name must never stand for nothing.


def save_again(kind: str, folder: Path, seed: int) -> None:
    denoiser = tiny_denoiser(seed=seed)
    if kind == "model":
        save_model(folder, denoiser, tiny_tokenizer(), {"seed": seed})
        return
    peft_model = add_lora(denoiser, LoraSettings(r=4, alpha=8), seed=seed, base_name="tiny")
    save_adapter(folder, peft_model, {"seed": seed})


def seed_of(kind: str, folder: Path) -> int:
    """Which of two saves lies there, whole."""
    [config] = folder.glob("diffusion_config.json")
    seed = json.loads(config.read_text())["seed"]
    whole = folder.parent / f"{kind}-{seed}"
    files = sorted(path.name for path in whole.iterdir())
    assert sorted(path.name for path in folder.iterdir()) == files
    for file in files:
        if file.endswith(".safetensors"):
            mine, theirs = load_file(folder / file), load_file(whole / file)
            assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
        else:  # the tiny tokenizer differs from process to process in the order of its pieces
            assert json.loads((folder / file).read_text()).keys() == json.loads((whole / file).read_text()).keys()
    return seed


@pytest.fixture(params=["model", "adapter"])
def saved_twice(request, tmp_path) -> tuple[str, Path]:
    for seed in (1, 2):
        save_again(request.param, tmp_path / f"{request.param}-{seed}", seed)
    return request.param, tmp_path


@pytest.mark.parametrize("stays", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_disk_that_refuses_the_result_leaves_the_one_before(saved_twice, stays):
    kind, tmp_path = saved_twice
    folder = tmp_path / kind
    shutil.copytree(tmp_path / f"{kind}-1", folder)
    points = points_of(save_again, kind, folder, 2)
    for at, point in enumerate(points):
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / f"{kind}-1", folder)
        error = None
        with Disk(at, refusing(errno.ENOSPC), stays=stays).used():
            try:
                save_again(kind, folder, 2)
            except StorageError as met:
                error = str(met)
        assert error is None or ("No space left on device" in error and "\n" not in error), f"{at} {point}"
        recover(folder)  # as loading it does
        assert seed_of(kind, folder) in ((1, 2) if error is not None else (2,)), f"{at} {point}"
        save_again(kind, folder, 2)
        assert seed_of(kind, folder) == 2
        assert _drafts(tmp_path) == [], f"{at} {point}"


def _save_and_die(kind: str, folder: Path, at: int) -> None:
    torch.set_num_threads(1)
    with Disk(at, die).used():
        save_again(kind, folder, 2)


@pytest.mark.slow
def test_kill_while_a_result_is_replaced_leaves_one_of_the_two(saved_twice, processes):
    kind, tmp_path = saved_twice
    folder = tmp_path / kind
    shutil.copytree(tmp_path / f"{kind}-1", folder)
    found = set()
    for at, point in enumerate(points_of(save_again, kind, folder, 2)):
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / f"{kind}-1", folder)
        child = processes.Process(target=_save_and_die, args=(kind, folder, at))
        child.start()
        child.join(LONG_SECONDS)
        assert child.exitcode == -signal.SIGKILL, point
        recover(folder)
        found.add(seed_of(kind, folder))
        save_again(kind, folder, 2)
        assert _drafts(tmp_path) == [], f"{at} {point}"
    assert found == {1, 2}


def test_model_is_loaded_although_its_process_died_between_the_two_renames(tmp_path, monkeypatch):
    folder = tiny_folder(tmp_path / "model")
    before = load_file(folder / "model.safetensors")
    folder.rename(tmp_path / ".model.01234567.old")
    loaded = load_model(str(folder))
    assert all(torch.equal(loaded.denoiser.model.state_dict()[name], tensor) for name, tensor in before.items())


def test_checkpoint_is_found_although_its_process_died_between_the_two_renames(tmp_path):
    store(tmp_path).save(Cursor(step=2, tokens=20), trained(seed=2))
    (tmp_path / "step-0000002").rename(tmp_path / ".step-0000002.01234567.old")
    found = emptied()
    assert store(tmp_path).resume(found) == Cursor(step=2, tokens=20)
    assert same(found, trained(seed=2))


def test_draft_that_another_process_is_writing_survives_a_look_for_the_model(tmp_path):
    with appearing(tmp_path / "model") as draft:
        with pytest.raises(ModelError):
            load_model(str(tmp_path / "model"))
        assert draft.is_dir()


def _save_within(folder: Path, limit: int, weights: bool, pipe) -> None:
    torch.set_num_threads(1)
    if not weights:
        transformers.PreTrainedModel.save_pretrained = lambda *_, **__: None
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        save_again("model", folder, 2)
    except StorageError as error:
        pipe.send(str(error))
        return
    pipe.send(None)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_files_that_libraries_write_may_be_refused_by_the_system_too(tmp_path, processes, file):
    # tokenizers and safetensors write past Python; a limit on the size of files is a refusal that they meet as well.
    folder = tmp_path / "model"
    save_again("model", folder, 1)
    shutil.copytree(folder, tmp_path / "model-1")
    here, there = processes.Pipe()
    limit = (folder / file).stat().st_size - 1
    child = processes.Process(target=_save_within, args=(folder, limit, file != "tokenizer.json", there))
    child.start()
    assert here.poll(LONG_SECONDS)
    error = here.recv()
    child.join(LONG_SECONDS)
    assert "File too large" in error
    assert "\n" not in error
    assert seed_of("model", folder) == 1
    assert _drafts(tmp_path) == []
