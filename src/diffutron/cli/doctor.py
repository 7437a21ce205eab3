"""``diffutron doctor``: is this machine ready, and if not, what mends it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from diffutron.cli.console import JsonOption, OfflineOption, count, print_json

PACKAGES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors")
# Dotted and dotless i, the letters that break elsewhere, an apostrophe, a line end.
SENTENCE = "Iğdır'dan İstanbul'a giden şoför çay içti,\nağır ağır güldü."
FILL = "Ankara, Türkiye'nin [MASK]dir."
LITTLE_DISK, LITTLE_MEMORY = 2e9, 2e9


@dataclass(frozen=True)
class Check:
    """One line of the result.

    Attributes:
        found: what is there.
        way_out: what to do about it; empty if all is well.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    way_out: str = ""


def doctor(
    model: Annotated[
        str, typer.Option("--model", "-m", help="The model to try: a name, a folder, or a hub id.")
    ] = "mini",
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Check versions, machine, disk, hub and models; each line says what to do about what is wrong."""
    from diffutron.errors import DiffutronError

    checks = []
    for check in examine(model):
        checks.append(check)
        if not json:
            way_out = f"; {check.way_out}" if check.way_out else ""
            print(f"{check.status:<5} {check.name:<14} {check.found}{way_out}", flush=True)
    if json:
        print_json([asdict(check) for check in checks])
    failed = [check.name for check in checks if check.status == "fail"]
    if failed:
        raise DiffutronError(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")


def examine(model: str) -> Iterator[Check]:
    """Every check, one after the other; a check that breaks has failed."""
    yield check_python()
    for package in PACKAGES:
        yield check_package(package)
    rest: list[tuple[str, Callable[[], Check]]] = [
        ("threads", check_threads), ("blas", check_blas), ("gpu", check_gpu), ("bfloat16", check_bfloat16),
        ("matrix peak", check_matrix_peak), ("memory", check_memory), ("disk", lambda: check_disk(Path.cwd())),
        ("folder", lambda: check_folder(Path.cwd())), ("hub", check_hub), ("models", check_models),
    ]  # fmt: skip
    for name, check in rest:
        yield _guarded(name, check)
    yield from check_model(model)


def check_python() -> Check:
    version = platform.python_version()
    if tuple(map(int, platform.python_version_tuple()[:2])) < (3, 11):
        return Check("python", "fail", version, "install Python 3.11 or newer")
    return Check("python", "ok", version)


def check_package(name: str) -> Check:
    """Whether the package's version is one that diffutron asks for."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    wanted = next(
        each for each in map(Requirement, requires("diffutron") or ()) if each.name == name and not each.marker
    )
    try:
        found = version(name)
    except PackageNotFoundError:
        return Check(name, "fail", "not installed", f"pip install '{wanted}'")
    if not wanted.specifier.contains(found, prereleases=True):
        return Check(name, "fail", found, f"pip install '{wanted}'")
    return Check(name, "ok", found)


def check_threads() -> Check:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    found = f"{threads} for {cores} usable cores ({platform.machine()})"
    if threads > cores:
        return Check(
            "threads", "warn", found, f"set OMP_NUM_THREADS={cores}: more threads than cores slow each other down"
        )
    return Check("threads", "ok", found)


def check_blas() -> Check:
    import re

    import torch

    named = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    found = named.group(1) if named else "unknown"
    if torch.backends.mkldnn.is_available():
        found += ", oneDNN"
    return Check("blas", "ok", found)


def check_gpu() -> Check:
    import torch

    if not torch.cuda.is_available():
        return Check("gpu", "ok", "none; runs use the CPU")
    devices = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return Check("gpu", "ok", ", ".join(f"{each.name} ({count(each.total_memory)}B)" for each in devices))


def check_bfloat16() -> Check:
    from diffutron.training.machine import default_device
    from diffutron.training.precision import choose_precision, gains_from_bfloat16

    device = default_device()
    able = "faster than float32" if gains_from_bfloat16(device) else "no faster than float32"
    return Check("bfloat16", "ok", f"{able}; {choose_precision('auto', device).note}")


def check_matrix_peak() -> Check:
    from diffutron.training.machine import default_device, matrix_peak

    return Check("matrix peak", "ok", f"{matrix_peak(default_device()) / 1e9:,.0f} GFLOP/s in float32")


def check_memory() -> Check:
    import psutil

    memory = psutil.virtual_memory()
    found = f"{count(memory.available)}B free of {count(memory.total)}B"
    if memory.available < LITTLE_MEMORY:
        return Check("memory", "warn", found, "end other programs, or lower micro_batch_tokens")
    return Check("memory", "ok", found)


def check_disk(folder: Path) -> Check:
    disk = shutil.disk_usage(folder)
    found = f"{count(disk.free)}B free of {count(disk.total)}B"
    if disk.free < LITTLE_DISK:
        return Check("disk", "warn", found, "make room, or lower keep_checkpoints")
    return Check("disk", "ok", found)


def check_folder(folder: Path) -> Check:
    """Whether a checkpoint could appear here: a file written, synced and renamed."""
    import tempfile

    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder) as place:
            with open(Path(place) / "draft", "wb") as stream:
                stream.write(b"diffutron")
                stream.flush()
                os.fsync(stream.fileno())
            (Path(place) / "draft").rename(Path(place) / "file")
    except OSError as error:
        return Check(
            "folder", "fail", f"{folder}: {error.strerror}", "work in a folder of your own, or mend its permissions"
        )
    return Check("folder", "ok", f"{folder} takes files, syncs and renames")


def check_hub() -> Check:
    from diffutron.model.names import is_offline

    if is_offline():
        return Check("hub", "ok", "never asked (HF_HUB_OFFLINE is set)")
    return Check("hub", "ok", f"asked for what is not here ({os.environ.get('HF_ENDPOINT', 'huggingface.co')})")


def check_models() -> Check:
    from diffutron.errors import ModelError
    from diffutron.model.names import EMBEDDED, resolve_model

    found = []
    for name in EMBEDDED:
        try:
            resolve_model(name)
        except ModelError:
            continue
        found.append(name)
    if not found:
        return Check("models", "warn", "none embedded", "pip install 'diffutron[mini]', or name a model of yours")
    return Check("models", "ok", f"{', '.join(found)} embedded")


def check_model(name: str) -> Iterator[Check]:
    """A model loaded, a sentence there and back, a mask filled; what follows a failure is left out."""
    try:
        from diffutron.api import load

        lm = load(name)
    except Exception as error:  # whatever it is, this is where to say so
        hint = "pip install 'diffutron[mini]', or name a model with --model"
        yield Check("model", "fail", " ".join(str(error).split()), hint if "pip install" not in str(error) else "")
        return
    parameters = sum(param.numel() for param in lm.denoiser.parameters())
    yield Check("model", "ok", f"{name}, {count(parameters)} parameters")
    codec = lm.codec
    ids = codec.encode(SENTENCE)
    back = codec.decode(ids)
    mask = f"mask id {codec.mask_id}"
    if codec.unk_id in ids:
        yield Check(
            "tokenizer", "warn", f"{mask}; a letter is <unk> in {back!r}", "take a model whose tokenizer has Turkish"
        )
    elif back != SENTENCE:
        yield Check(
            "tokenizer", "warn", f"{mask}; {SENTENCE!r} comes back as {back!r}", "its texts will read like that"
        )
    else:
        yield Check("tokenizer", "ok", f"{mask}; {len(ids)} pieces of a Turkish sentence and back, line end included")

    def fill() -> Check:
        best = lm.fill(FILL, top_k=1)[0]
        return Check("fill", "ok", f"{best.text} ({best.score:.2f})")

    yield _guarded("fill", fill)


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:  # a doctor does not die of what the patient has
        return Check(name, "fail", f"{type(error).__name__}: {' '.join(str(error).split())}", "please report this")
