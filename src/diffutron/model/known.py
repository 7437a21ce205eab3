"""Shapes of encoders that people adapt, so that a recipe can be judged where no hub is in reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, ModernBertConfig, PreTrainedConfig

from diffutron.errors import ModelError
from diffutron.model.checkpoint import adapted_base, pretrained_arguments
from diffutron.model.families import family_of
from diffutron.model.names import resolve_model, split_revision, weights_in

_MMBERT: dict[str, Any] = {
    "vocab_size": 256_000, "pad_token_id": 0, "eos_token_id": 1, "cls_token_id": 1, "sep_token_id": 1,
    "bos_token_id": 2, "mask_token_id": 4, "intermediate_size": 1152, "num_hidden_layers": 22, "local_attention": 128,
    "global_attn_every_n_layers": 3, "max_position_embeddings": 8192,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 160_000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 160_000.0},
    },
    "architectures": ["ModernBertForMaskedLM"],
}  # fmt: skip

KNOWN_SHAPES: dict[str, dict[str, Any]] = {
    "jhu-clsp/mmBERT-base": {**_MMBERT, "hidden_size": 768, "num_attention_heads": 12},
    "jhu-clsp/mmBERT-small": {**_MMBERT, "hidden_size": 384, "num_attention_heads": 6},
    "diffutron/DiffutronLM-0.3B-Base": {**_MMBERT, "hidden_size": 768, "num_attention_heads": 12},
}


def known_config(name: str) -> ModernBertConfig:
    """The configuration of a known encoder, built without a hub."""
    return ModernBertConfig(**KNOWN_SHAPES[name])


def config_of(name: str) -> PreTrainedConfig:
    """The configuration of any model a recipe may name; known shapes need no hub.

    Raises:
        ModelError: not known here, and not to be had.
    """
    known_name, _ = split_revision(name)
    if known_name in KNOWN_SHAPES:
        return known_config(known_name)
    place = resolve_model(name)
    folder = weights_in(place) if isinstance(place, Path) else None
    if folder is not None and (folder / "adapter_config.json").is_file():
        return config_of(adapted_base(folder))
    repository, where = pretrained_arguments(place)
    try:
        config = AutoConfig.from_pretrained(repository, **where)
    except (OSError, ValueError, StrictDataclassError) as error:
        line = " ".join(str(error).split())[:160]
        known = ", ".join(KNOWN_SHAPES)
        raise ModelError(f"the shape of {name!r} is not known without the hub ({line}); known are {known}") from None
    family_of(config, name=name)
    assert isinstance(config, PreTrainedConfig)
    return config
