"""The part of a model that belongs to its vocabulary: word embeddings, decoder, decoder bias, and ids in the config."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffutron.errors import ModelError
from diffutron.model.denoiser import Denoiser


def select_rows(rows: Tensor, ids: Sequence[int]) -> Tensor:
    """The rows of ``ids``, in their order; ``rows`` may be a matrix or a bias."""
    return rows.detach()[torch.tensor(ids, device=rows.device)].clone()


def keep_rows(denoiser: Denoiser, ids: Sequence[int]) -> None:
    """Keep the rows of the tokens ``ids``, in place, and number them 0, 1, 2, …; their logits stay what they were.

    Weights that were tied stay tied. A token id in the configuration that names no token kept becomes None.

    Raises:
        ModelError: a token has no row, since the tokenizer belongs to another model.
    """
    model, config, decoder = denoiser.model, denoiser.model.config, denoiser.decoder
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    if max(ids) >= embeddings.num_embeddings:
        raise ModelError(
            f"token {max(ids)} has no row among the model's {embeddings.num_embeddings}; is this its tokenizer?"
        )
    wanted = [embeddings.weight, decoder.weight, *([decoder.bias] if decoder.bias is not None else [])]
    # By identity: one weight may be reached by several names, and must stay one.
    fewer = {id(old): nn.Parameter(select_rows(old, ids), requires_grad=old.requires_grad) for old in wanted}
    for name, param in list(model.named_parameters(remove_duplicate=False)):
        if id(param) in fewer:
            place, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(place), attribute, fewer[id(param)])
    embeddings.num_embeddings = decoder.out_features = config.vocab_size = len(ids)
    numbers = {old: new for new, old in enumerate(ids)}
    embeddings.padding_idx = numbers.get(embeddings.padding_idx) if embeddings.padding_idx is not None else None
    for key, value in config.to_dict().items():
        if key.endswith("_token_id") and isinstance(value, int):
            setattr(config, key, numbers.get(value))
