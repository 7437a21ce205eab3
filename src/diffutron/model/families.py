"""The encoder families that can denoise, and where each keeps its head and its linear layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from diffutron.errors import ModelError


@dataclass(frozen=True)
class Family:
    """How to get from hidden states to logits, and which linears LoRA adapts: attention and MLP, nothing else.

    Attributes:
        transform: hidden states to what the decoder reads.
        decoder: the model's last layer.
        positions_follow_padding: positions count from the padding id + 1 (RoBERTa), not from 0.
    """

    class_name: str
    transform: Callable[[Any, Tensor], Tensor]
    decoder: Callable[[Any], nn.Linear]
    lora_targets: tuple[str, ...]
    positions_follow_padding: bool = False


_BERT_LINEARS = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")


def _roberta_transform(model: Any, hidden: Tensor) -> Tensor:
    head = model.lm_head
    features: Tensor = head.layer_norm(nn.functional.gelu(head.dense(hidden)))
    return features


def _roberta(class_name: str) -> Family:
    return Family(
        class_name, _roberta_transform, lambda model: model.lm_head.decoder, _BERT_LINEARS,
        positions_follow_padding=True,
    )  # fmt: skip


FAMILIES: dict[str, Family] = {
    "bert": Family(
        "BertForMaskedLM", lambda model, hidden: model.cls.predictions.transform(hidden),
        lambda model: model.cls.predictions.decoder, _BERT_LINEARS,
    ),
    "modernbert": Family(
        "ModernBertForMaskedLM", lambda model, hidden: model.head(hidden), lambda model: model.decoder,
        ("Wqkv", "Wo", "Wi"),
    ),
    "roberta": _roberta("RobertaForMaskedLM"),
    "xlm-roberta": _roberta("XLMRobertaForMaskedLM"),
    "camembert": _roberta("CamembertForMaskedLM"),
}  # fmt: skip


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
    prefix = model.base_model_prefix
    return [
        f"{prefix}.{name}"
        for name, module in model.base_model.named_modules()
        if isinstance(module, nn.Linear) and (".layer." in f".{name}" or ".layers." in f".{name}")
    ]
