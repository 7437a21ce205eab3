"""Plain Hugging Face folders in and out: safetensors and JSON, visible in one rename."""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, StrictDataclassError
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from diffutron.errors import ModelError
from diffutron.model.denoiser import Denoiser
from diffutron.model.families import family_of
from diffutron.model.lora import merge_lora
from diffutron.model.names import is_offline, resolve_model, split_revision, weights_in
from diffutron.storage import appearing, file_digest, recover, write_json

DIFFUSION_CONFIG = "diffusion_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
"""beside an adapter that was trained with one; transformers gives it that name beside a tokenizer"""
MAX_SHARD_SIZE = "44MB"


@dataclass(frozen=True)
class Loaded:
    """A denoiser with its tokenizer and its ``diffusion_config.json`` (empty for a plain checkpoint)."""

    name: str
    denoiser: Denoiser
    tokenizer: PreTrainedTokenizerFast
    diffusion: dict[str, Any]


def load_model(name: str, *, adapters: Sequence[Path | str] = (), device: torch.device | str = "auto") -> Loaded:
    """Load a checkpoint, or an adapter merged into the base it names, as fp32 in evaluation mode.

    Args:
        name: an embedded model, a folder (a training run's, too), or a hub id.
        adapters: folders of further adapters, merged on top one after the other, whatever base they name.
        device: a torch device; "auto" takes a CUDA device where there is one.

    Raises:
        ModelError: unknown name, decoder or other architecture, a checkpoint that lacks weights, or an adapter that
            does not fit.
    """
    loaded = _load_named(name, device)
    for adapter in adapters:
        loaded = _adapted(loaded, f"{loaded.name}+{adapter}", resolve_adapter(adapter))
    return loaded


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a model, without its weights; an adapter has its base's.

    Args:
        name: as :func:`load_model` takes it.

    Raises:
        ModelError: no such model, or one without a fast tokenizer.
    """
    place = resolve_model(name)
    folder = weights_in(place) if isinstance(place, Path) else _adapter_on_hub(str(place), name)
    if folder is not None and (folder / "adapter_config.json").is_file():
        return load_tokenizer(adapted_base(folder, name=name))
    return _tokenizer_of(name, *pretrained_arguments(place))


def _tokenizer_of(name: str, repository: str, where: dict[str, Any]) -> PreTrainedTokenizerFast:
    with _quiet(), _explained(name):
        tokenizer = AutoTokenizer.from_pretrained(repository, **where)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelError(f"{name}: has no fast tokenizer (tokenizer.json)")
    return tokenizer


def _device_of(asked: torch.device | str) -> torch.device:
    """
    Raises:
        ModelError: torch knows no such device, or this machine has none.
    """
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        line = str(error).splitlines()[0][:120]
        raise ModelError(f"device {str(asked)!r} cannot be used: {line}; auto takes what there is") from None
    return device


def _load_named(name: str, device: torch.device | str) -> Loaded:
    device = _device_of(device)
    recover(Path(name))
    place = resolve_model(name)
    folder = weights_in(place) if isinstance(place, Path) else None
    if folder is not None and (folder / "adapter_config.json").is_file():
        return _load_adapter(name, folder, device)
    if folder is None and (adapter := _adapter_on_hub(str(place), name)) is not None:
        return _load_adapter(name, adapter, device)
    repository, where = pretrained_arguments(place)
    with _quiet(), _explained(name):
        config = AutoConfig.from_pretrained(repository, **where)
        family_of(config, name=name)
        model, info = AutoModelForMaskedLM.from_pretrained(
            repository, config=config, dtype=torch.float32, output_loading_info=True, use_safetensors=True, **where
        )
        beside = folder / DIFFUSION_CONFIG if folder is not None else _fetched(str(place), DIFFUSION_CONFIG)
    tokenizer = _tokenizer_of(name, repository, where)
    if info["missing_keys"]:
        raise ModelError(f"{name}: weights are missing, for one {sorted(info['missing_keys'])[0]!r}")
    diffusion = read_json(beside) if beside is not None and beside.is_file() else {}
    return Loaded(name, Denoiser(model, name=name).to(device).eval(), tokenizer, diffusion)


def pretrained_arguments(place: Path | str) -> tuple[str, dict[str, Any]]:
    """What transformers' ``from_pretrained`` takes for a folder or a hub id."""
    return (str(weights_in(place)), {"local_files_only": True}) if isinstance(place, Path) else _on_hub(place)


def _on_hub(place: str) -> tuple[str, dict[str, Any]]:
    """A hub id, and how to ask for it; a name may carry a revision: org/name@rev."""
    repository, revision = split_revision(place)
    return repository, {"revision": revision, "local_files_only": is_offline()}


def _fetched(place: str, file: str) -> Path | None:
    """One file of a hub repository, if it has it."""
    repository, where = _on_hub(place)
    with contextlib.suppress(EntryNotFoundError):
        return Path(hf_hub_download(repository, file, **where))
    return None


def _adapter_on_hub(place: str, name: str) -> Path | None:
    """The folder of an adapter that a hub repository holds, fetched; none if it holds something else."""
    with _explained(name):
        config = _fetched(place, "adapter_config.json")
        if config is not None:
            for file in ("adapter_model.safetensors", DIFFUSION_CONFIG, CHAT_TEMPLATE):
                _fetched(place, file)
    return config.parent if config is not None else None


def _load_adapter(name: str, folder: Path, device: torch.device | str) -> Loaded:
    return _adapted(load_model(adapted_base(folder, name=name), device=device), name, folder)


def _adapted(base: Loaded, name: str, folder: Path) -> Loaded:
    """``base`` with an adapter merged into it, in place."""
    if not (folder / "adapter_model.safetensors").is_file():
        raise ModelError(f"{name}: adapter_model.safetensors is missing; pickled adapters are not read")
    with _quiet(), _explained(name):
        peft_model = PeftModel.from_pretrained(base.denoiser.model, str(folder))
        merge_lora(peft_model)
    diffusion = read_json(folder / DIFFUSION_CONFIG) if (folder / DIFFUSION_CONFIG).is_file() else base.diffusion
    if (folder / CHAT_TEMPLATE).is_file():
        try:
            base.tokenizer.chat_template = (folder / CHAT_TEMPLATE).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ModelError(f"{name}: {CHAT_TEMPLATE} cannot be read: {error}") from None
    return Loaded(name, base.denoiser.eval(), base.tokenizer, diffusion)


def resolve_adapter(name: Path | str) -> Path:
    """Where an adapter lies.

    Raises:
        ModelError: there is none.
    """
    recover(Path(name))
    place = resolve_model(str(name))
    folder = weights_in(place) if isinstance(place, Path) else _adapter_on_hub(place, str(name))
    if folder is None or not (folder / "adapter_config.json").is_file():
        raise ModelError(f"{name} is no adapter: there is no {Path(name) / 'adapter_config.json'}")
    return folder


def go_on_from(peft_model: PeftModel, name: str, *, base: str) -> None:
    """Give a fresh adapter the weights of another one on the same model, in place.

    Args:
        base: the model that ``peft_model`` adapts.

    Raises:
        ModelError: no adapter, another model's, or one of another shape.
    """
    folder = resolve_adapter(name)
    own_base = adapted_base(folder, name=name)
    if _place_of(own_base) != _place_of(base):
        raise ModelError(
            f"lora.start: {name} adapts {own_base}, and the model to train is {base}; set model={own_base}"
        )
    there, here = read_json(folder / "adapter_config.json"), peft_model.peft_config["default"].to_dict()
    for key, setting in (("r", "r"), ("lora_alpha", "alpha")):
        if there.get(key) != here[key]:
            raise ModelError(
                f"lora.start: {name} has {setting} {there.get(key)}, the recipe {here[key]}; "
                f"set lora.{setting}={there.get(key)}"
            )
    for key in ("use_rslora", "use_dora", "alpha_pattern", "rank_pattern"):
        if there.get(key):
            raise ModelError(f"lora.start: {name} has {key}, which a recipe's lora knows nothing of")
    with _quiet(), _explained(name):
        weights = load_file(folder / "adapter_model.safetensors")
        if strays := set(weights) ^ set(get_peft_model_state_dict(peft_model, save_embedding_layers=False)):
            raise ModelError(f"lora.start: {name} does not fit: {min(strays)} is only in one of the two")
        set_peft_model_state_dict(peft_model, weights)


def _place_of(name: str) -> Path | str:
    place = resolve_model(name)
    return weights_in(place).resolve() if isinstance(place, Path) else place


def adapted_base(folder: Path, *, name: str = "the adapter") -> str:
    """The model that the adapter in ``folder`` adapts.

    Raises:
        ModelError: it names none.
    """
    config = read_json(folder / "adapter_config.json")
    base_name = config.get("base_model_name_or_path")
    if not base_name:
        raise ModelError(f"{name}: adapter_config.json names no base model")
    # A relative folder is meant from the adapter's own place.
    sibling = (folder / base_name).resolve()
    if sibling == folder.resolve():
        raise ModelError(f"{name}: adapter_config.json names the adapter itself as its base")
    if sibling.is_dir():
        return str(sibling)
    return f"{base_name}@{config['revision']}" if config.get("revision") else str(base_name)


def weights_digest(name: str, adapters: Sequence[Path | str] = ()) -> str | None:
    """16 digits that change with the weights that :func:`load_model` would load; None where a hub keeps some of them,
    under a revision."""
    place = resolve_model(name)
    if not isinstance(place, Path):
        return None
    folder, told = weights_in(place), list[str]()
    if (folder / "adapter_config.json").is_file():
        base = weights_digest(adapted_base(folder, name=name))
        if base is None:
            return None
        told.append(base)
    for each in (folder, *map(resolve_adapter, adapters)):
        told += map(file_digest, sorted(each.glob("*.safetensors")))
    return hashlib.sha256(" ".join(told).encode()).hexdigest()[:16]


def save_model(
    folder: Path, denoiser: Denoiser, tokenizer: PreTrainedTokenizerFast, diffusion: dict[str, Any],
    *, dtype: torch.dtype = torch.float32, state: Mapping[str, torch.Tensor] | None = None,
    max_shard_size: str = MAX_SHARD_SIZE,
) -> None:  # fmt: skip
    """Write a plain checkpoint that ``AutoModelForMaskedLM.from_pretrained`` reads; it appears in one rename.

    Args:
        state: the model's weights, if what lies in memory is only a part of them.
    """
    with appearing(folder) as draft, _quiet():
        # Tied weights are one tensor and must stay one after conversion, or they are written twice.
        own = denoiser.model.state_dict(keep_vars=True)
        converted: dict[int, torch.Tensor] = {}
        weights = {
            key: converted.setdefault(id(own[key]), value.detach().to(dtype)) for key, value in (state or own).items()
        }
        config = denoiser.model.config
        old_dtype, config.dtype = config.dtype, dtype
        try:
            denoiser.model.save_pretrained(draft, state_dict=weights, max_shard_size=max_shard_size)
        finally:
            config.dtype = old_dtype
        tokenizer.save_pretrained(draft)
        write_json(draft / DIFFUSION_CONFIG, diffusion)


def save_adapter(
    folder: Path, peft_model: PeftModel, diffusion: dict[str, Any], *, dtype: torch.dtype = torch.float32,
    state: Mapping[str, torch.Tensor] | None = None, chat_template: str | None = None,
) -> None:  # fmt: skip
    """Write the adapter as PEFT does (``adapter_config.json``, ``adapter_model.safetensors``); one rename.

    Args:
        chat_template: what conversations were put in for it, if it has seen any.
    """
    with appearing(folder) as draft, _quiet():
        whole = dict(state) if state is not None else None
        weights = get_peft_model_state_dict(peft_model, state_dict=whole, save_embedding_layers=False)
        tensors = {key: value.to(dtype).contiguous() for key, value in weights.items()}
        save_file(tensors, draft / "adapter_model.safetensors", metadata={"format": "pt"})
        peft_config: Any = peft_model.peft_config["default"]
        peft_config.inference_mode = True
        if isinstance(peft_config.target_modules, set):
            peft_config.target_modules = sorted(peft_config.target_modules)  # one order, in every process
        peft_config.save_pretrained(str(draft))
        write_json(draft / DIFFUSION_CONFIG, diffusion)
        if chat_template is not None:
            (draft / CHAT_TEMPLATE).write_text(chat_template, encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path} must hold a JSON object")
    return value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """transformers draws a progress bar for every shard, and peft and it talk in warnings; ours are the only ones."""
    from transformers.utils.logging import disable_progress_bar, enable_progress_bar

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        enable_progress_bar()
        transformers_logging.set_verbosity(level)


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """One line instead of the traceback of a library."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        line = " ".join(str(error).split())[:200]
        hint = "; it is not on this machine and --offline forbids the hub" if is_offline() and "/" in name else ""
        raise ModelError(f"model {name!r} cannot be loaded{hint}: {line}") from None
