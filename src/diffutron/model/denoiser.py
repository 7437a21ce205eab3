"""Any transformers encoder with an MLM head, as a denoiser: logits at the positions that somebody asked for."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from diffutron.model.families import family_of


class Denoiser(nn.Module):
    """Wraps a masked language model.

    The vocabulary head costs more than half of a forward pass (62 % for 256,000 pieces), so it runs at chosen
    positions only; the full [B, L, V] never exists.
    """

    def __init__(self, model: PreTrainedModel, *, name: str = "the model") -> None:
        super().__init__()
        self.model = model
        self.family = family_of(model.config, name=name)

    @property
    def max_positions(self) -> int:
        """The longest row the encoder can read, special tokens included."""
        positions = int(self.model.config.max_position_embeddings)
        # RoBERTa's positions start at pad + 1.
        return positions - 2 if self.model.config.model_type in ("roberta", "xlm-roberta", "camembert") else positions

    def forward(
        self, xt: Int[Tensor, "B L"], *, attention_mask: Bool[Tensor, "B L"], where: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "N V"]:
        """Logits of x0 at the N positions where ``where`` is true, in row-major order."""
        hidden = self.model.base_model(input_ids=xt, attention_mask=attention_mask.long()).last_hidden_state
        return self.family.head(self.model, hidden[where])
