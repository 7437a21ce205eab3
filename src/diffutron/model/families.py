"""The encoder families that can denoise, and where each keeps its head and its linear layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from diffutron.errors import ModelError


@dataclass(frozen=True)
class Family:
    """How to get from hidden states to logits, and which linears LoRA adapts: attention and MLP, nothing else."""

    class_name: str
    head: Callable[[Any, Tensor], Tensor]
    lora_targets: tuple[str, ...]


_BERT_LINEARS = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")


def _lm_head(model: Any, hidden: Tensor) -> Tensor:
    logits: Tensor = model.lm_head(hidden)
    return logits


FAMILIES: dict[str, Family] = {
    "bert": Family("BertForMaskedLM", lambda model, hidden: model.cls(hidden), _BERT_LINEARS),
    "modernbert": Family(
        "ModernBertForMaskedLM", lambda model, hidden: model.decoder(model.head(hidden)), ("Wqkv", "Wo", "Wi")
    ),
    "roberta": Family("RobertaForMaskedLM", _lm_head, _BERT_LINEARS),
    "xlm-roberta": Family("XLMRobertaForMaskedLM", _lm_head, _BERT_LINEARS),
    "camembert": Family("CamembertForMaskedLM", _lm_head, _BERT_LINEARS),
}


def family_of(config: Any, *, name: str) -> Family:
    """The family of a transformers configuration.

    Raises:
        ModelError: the architecture is a decoder, or an encoder that is not known here.
    """
    model_type = getattr(config, "model_type", None)
    architectures = list(getattr(config, "architectures", None) or [])
    known = ", ".join(FAMILIES)
    if model_type not in FAMILIES:
        decoder = any("CausalLM" in each or "LMHead" in each for each in architectures)
        kind = "a decoder, which cannot look to the right" if decoder else "not an encoder known here"
        raise ModelError(f"{name}: architecture {model_type!r} is {kind}; usable are: {known}")
    if getattr(config, "is_decoder", False):
        raise ModelError(f"{name}: this {model_type} is configured as a decoder, which cannot look to the right")
    family = FAMILIES[model_type]
    if architectures and family.class_name not in architectures and not _is_pretraining_head(architectures):
        raise ModelError(f"{name}: holds {architectures[0]}, which has no MLM head; {family.class_name} is needed")
    return family


def _is_pretraining_head(architectures: list[str]) -> bool:
    return any(each.endswith("ForPreTraining") or each.endswith("ForMaskedLM") for each in architectures)


def encoder_linears(model: PreTrainedModel) -> list[str]:
    """Names of every linear layer inside the encoder's layers: what LoRA must adapt, found without a table."""
    from torch import nn

    prefix = model.base_model_prefix
    return [
        f"{prefix}.{name}"
        for name, module in model.base_model.named_modules()
        if isinstance(module, nn.Linear) and (".layer." in f".{name}" or ".layers." in f".{name}")
    ]
