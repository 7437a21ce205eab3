"""Slow, obvious versions of what the package does fast."""

from __future__ import annotations

import torch

from diffutron.model import Denoiser


@torch.inference_mode()
def slow_masked_nll(
    denoiser: Denoiser, ids: list[int], masked: list[int], mask_id: int, *, xt: list[int] | None = None
) -> list[float]:
    """Negative log-likelihood of each token in ``masked``: full logits everywhere, one row, no padding.

    Args:
        xt: what the model sees, if it is not the mask at exactly these places.
    """
    seen = torch.tensor([xt or [mask_id if place in masked else token for place, token in enumerate(ids)]])
    logits = denoiser.model(input_ids=seen, attention_mask=torch.ones_like(seen)).logits[0]
    log_probs = logits.double().log_softmax(dim=-1)
    return [-float(log_probs[place, ids[place]]) for place in masked]
