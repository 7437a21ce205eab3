"""How surprised another model, one that writes from left to right, is by a text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from diffutron.errors import InputError, ModelError
from diffutron.model.checkpoint import pretrained_arguments
from diffutron.text import normalise


@dataclass(frozen=True)
class Judge:
    """A causal language model with its tokenizer."""

    name: str
    model: Any
    tokenizer: Any

    @torch.inference_mode()
    def nats(self, text: str) -> float:
        """Negative log-likelihood of ``text`` in its normal form, its first token included.

        Raises:
            InputError: the text is longer than the model's context.
        """
        ids = self.tokenizer(normalise(text), add_special_tokens=False)["input_ids"]
        if not ids:
            return 0.0
        room = getattr(self.model.config, "max_position_embeddings", None)
        if room is not None and len(ids) >= room:
            raise InputError(f"a text of {len(ids)} tokens is too long for {self.name}, which reads {room}")
        # Something must stand before the first token; models without a token for beginnings begin after an end.
        start = self.tokenizer.bos_token_id
        row = torch.tensor([[self.tokenizer.eos_token_id if start is None else start, *ids]])
        log_probs = self.model(input_ids=row).logits[0, :-1].double().log_softmax(dim=-1)
        return -float(log_probs.gather(1, row[0, 1:, None]).sum())


def load_judge(name: str) -> Judge:
    """A causal model: a hub id, a folder, or a .gguf file (which needs the package ``gguf``).

    Raises:
        ModelError: it cannot be loaded, or its tokenizer has no token to begin with.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = Path(name)
    where: dict[str, Any] = {"gguf_file": file.name}
    place, weights = str(file.parent), dict[str, Any]()
    if file.suffix != ".gguf":
        place, where = pretrained_arguments(file if file.is_dir() else name)
        weights = {"use_safetensors": True}  # the others may hold code
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **where)
        model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, **where, **weights).eval()
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise ModelError(f"the judge {name} cannot be loaded: {' '.join(str(error).split())[:200]}") from None
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        raise ModelError(f"the judge {name} has no token to begin a text with")
    return Judge(name, model, tokenizer)
