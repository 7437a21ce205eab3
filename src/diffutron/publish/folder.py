"""The folder that is published: weights, tokenizer, settings, cards, recipe and manifest, and nothing else."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
import yaml
from safetensors import safe_open

from diffutron.errors import DataError, InputError
from diffutron.model import load_model, save_model
from diffutron.model.checkpoint import read_json
from diffutron.model.names import EMBEDDED
from diffutron.publish.card import Card, check_report
from diffutron.publish.onnx import export_onnx
from diffutron.publish.scan import Finding, scan
from diffutron.publish.source import Source
from diffutron.storage import appearing, check_new, write_json


def make_folder(
    name: str, out: Path, *, license: str, report: dict[str, Any], dtype: str = "float16", adapter: bool = False,
    title: str | None = None, repository: str | None = None, limits: str = "", onnx: bool = False,
    base_id: str | None = None, refusing: bool = False, again: bool = False,
) -> list[Finding]:  # fmt: skip
    """Write what is to be published of a run, adapter or model; the folder appears whole.

    Args:
        report: what ``eval report`` measured of it; empty for a card without numbers.
        adapter: publish the adapter alone, and not merged into its base.
        onnx: add the network as ``model.onnx``, in float32.
        base_id: what the hub calls the base of an adapter that was trained on a folder.
        refusing: leave no folder, if it would hold what must not be published.
        again: let the same folder lie there already, of an upload that broke off.

    Returns:
        What must not be published, which the folder holds all the same: look, mend, and make it again.

    Raises:
        InputError: there is no adapter to publish alone, or none could load it, or ``out`` is not empty. ModelError:
            there is no such model. DataError: the report is of another model, or something was refused.
    """
    is_taken = out.is_dir() and any(out.iterdir())
    if not (is_taken and again):
        check_new(out)
    source = Source.of(name, base_id=base_id)
    if adapter and not source.is_adapter:
        raise InputError(f"{name} is no adapter; leave out --adapter")
    if adapter and not source.has_usable_base:
        raise InputError(f"the base of {name} is a folder, {source.base}, that others lack; --base names it on the hub")
    refuse(scan(source.weights, paths=False), source.weights)  # those are taken out
    loaded = load_model(name, device="cpu")
    if report:
        check_report(report, loaded)
    own_name = name if name in EMBEDDED else Path(name).resolve().name
    card = Card(
        title or repository or own_name, license, repository or out.name, source, report,
        loaded.denoiser.num_parameters, _stored_dtype(source.weights) if adapter else dtype, adapter, limits,
    )  # fmt: skip
    with appearing(out) as draft:
        if adapter:
            for each in sorted(source.weights.iterdir()):
                if each.suffix in (".safetensors", ".json", ".jinja") and each.name != "training.json":
                    shutil.copy(each, draft / each.name)
            config = read_json(draft / "adapter_config.json")
            write_json(draft / "adapter_config.json", {**config, "base_model_name_or_path": source.base})
        else:
            whole = draft / "model"
            save_model(
                whole, loaded.denoiser, loaded.tokenizer, loaded.diffusion, dtype=getattr(torch, dtype),
                max_shard_size="5GB",
            )  # fmt: skip
            for each in whole.iterdir():
                each.rename(draft / each.name)
            whole.rmdir()
        if onnx:
            export_onnx(loaded.denoiser, draft / "model.onnx")
        (draft / "README.md").write_text(card.english(), encoding="utf-8")
        (draft / "README.tr.md").write_text(card.turkish(), encoding="utf-8")
        if source.recipe is not None:
            text = yaml.safe_dump(without_paths(yaml.safe_load(source.recipe)), allow_unicode=True, sort_keys=False)
            (draft / "recipe.yaml").write_text(text, encoding="utf-8")
        if source.manifest:
            write_json(draft / "training.json", without_paths(source.manifest))
        findings = scan(draft, training_texts=source.training_texts())
        if refusing:
            refuse(findings, out)
        if is_taken and not _is_same(draft, out):
            raise InputError(f"{out} exists and holds something else; choose another folder")
    return findings


def _stored_dtype(adapter: Path) -> str:
    """An adapter is published as it lies there."""
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as file:
        found = sorted({str(file.get_slice(name).get_dtype()) for name in file.keys()})  # noqa: SIM118 - no mapping
    return ", ".join({"F32": "float32", "F16": "float16", "BF16": "bfloat16"}.get(each, each) for each in found)


def refuse(findings: list[Finding], folder: Path) -> None:
    """
    Raises:
        DataError: there is something that must not be published.
    """
    if findings:
        more = f", and {len(findings) - 1} more" if len(findings) > 1 else ""
        raise DataError(f"{folder} must not be published: {findings[0]}{more}")


def _is_same(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files, byte by byte."""
    names = {each.name for each in (*one.iterdir(), *other.iterdir())}
    return set(filecmp.cmpfiles(one, other, names, shallow=False)[0]) == names


def without_paths(value: Any) -> Any:
    """The same settings, where an absolute path is the name at its end."""
    match value:
        case dict():
            return {key: without_paths(each) for key, each in value.items()}
        case list():
            return [without_paths(each) for each in value]
        case str() if PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute():
            return (PurePosixPath if value.startswith("/") else PureWindowsPath)(value).name
        case _:
            return value
