"""Any transformers encoder with an MLM head, as a denoiser: logits at the positions that somebody asked for."""

from __future__ import annotations

from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from diffutron.model.attention import Memory, Segments, use_segments
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
        use_segments(model)

    @property
    def max_positions(self) -> int:
        """The longest row the encoder can read, special tokens included."""
        return int(self.model.config.max_position_embeddings) - self._first_position

    @property
    def _first_position(self) -> int:
        # RoBERTa's begin behind that of the padding.
        return int(self.model.config.pad_token_id) + 1 if self.family.positions_follow_padding else 0

    @property
    def num_parameters(self) -> int:
        return sum(each.numel() for each in self.parameters())

    @property
    def layers(self) -> list[nn.Module]:
        """The encoder's layers, from the first to the last."""
        lists = [list(each) for each in self.model.base_model.modules() if isinstance(each, nn.ModuleList)]
        return max(lists, key=len)

    @property
    def decoder(self) -> nn.Linear:
        """The last layer, from features to logits; its matrix is usually that of the word embeddings."""
        return self.family.decoder(self.model)

    def forward(
        self, xt: Int[Tensor, "B L"], *, where: Bool[Tensor, "B L"],
        attention_mask: Bool[Tensor, "B L"] | None = None, segments: Segments | None = None,
    ) -> Float[Tensor, "N V"]:  # fmt: skip
        """Logits of x0 at the N positions where ``where`` is true, in row-major order."""
        logits: Tensor = self.decoder(self.features(xt, where=where, attention_mask=attention_mask, segments=segments))
        return logits

    def features(
        self, xt: Int[Tensor, "B L"], *, where: Bool[Tensor, "B L"],
        attention_mask: Bool[Tensor, "B L"] | None = None, segments: Segments | None = None,
    ) -> Float[Tensor, "N D"]:  # fmt: skip
        """What the decoder turns into logits, at the N chosen positions; see :meth:`hidden_states`."""
        hidden = self.hidden_states(xt, attention_mask=attention_mask, segments=segments)
        return self.family.transform(self.model, hidden[where])

    def hidden_states(
        self, xt: Int[Tensor, "B L"], *, attention_mask: Bool[Tensor, "B L"] | None = None,
        segments: Segments | None = None, memory: Memory | None = None,
    ) -> Float[Tensor, "B L D"]:  # fmt: skip
        """The encoder's last layer, before the MLM head.

        Args:
            attention_mask: what may be seen, for padded rows.
            segments: the documents of one packed row (B = 1), which do not see each other.
            memory: of whole rows, of which ``xt`` holds the tokens at ``memory.positions`` only.
        """
        borders: dict[str, Any] = {}
        if segments is not None:
            borders = {"position_ids": segments.positions.to(xt.device) + self._first_position, "segments": segments}
        if memory is not None:
            borders = {"position_ids": memory.positions + self._first_position, "memory": memory}
        mask = attention_mask.long() if attention_mask is not None else None
        hidden: Tensor = self.model.base_model(input_ids=xt, attention_mask=mask, **borders).last_hidden_state
        return hidden
