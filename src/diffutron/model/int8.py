"""Linear layers in 8-bit integers, for CPUs that multiply those four times as fast (AVX-512 VNNI, AMX)."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from diffutron.model.denoiser import Denoiser
from diffutron.model.families import encoder_linears


class Int8Linear(nn.Module):
    """A linear layer with one scale for each output and, while it runs, one for each token.

    A token's result does not depend on the tokens beside it, as it would with one scale for a whole batch.
    """

    weight: Int[Tensor, "out in"]
    scale: Float[Tensor, " out"]
    bias: Float[Tensor, " out"] | None

    def __init__(self, weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        values, scale = rounded(weight.detach().float())
        self.register_buffer("weight", values)
        self.register_buffer("scale", scale.squeeze(-1))
        self.register_buffer("bias", None if bias is None else bias.detach().float())

    def forward(self, x: Float[Tensor, "... in"]) -> Float[Tensor, "... out"]:
        rows = x.reshape(-1, self.in_features)
        tokens, scale = rounded(rows.float())
        out = torch._int_mm(tokens, self.weight.t()).float().mul_(self.scale).mul_(scale)
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], self.out_features).to(x.dtype)


def rounded(x: Float[Tensor, "n in"]) -> tuple[Int[Tensor, "n in"], Float[Tensor, "n 1"]]:
    """Each row as integers from -127 to 127, and what one of them is worth."""
    scale = x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / 127
    return (x / scale).round_().to(torch.int8), scale


def in_int8(denoiser: Denoiser) -> Denoiser:
    """The same denoiser with the encoder's linear layers in 8 bits; what stays is shared, not copied."""
    model = denoiser.model
    shared = {id(each): each for each in (*model.parameters(), *model.buffers())}
    lighter = copy.deepcopy(model, memo=shared)
    for name in encoder_linears(lighter):
        linear = lighter.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        lighter.set_submodule(name, Int8Linear(linear.weight, linear.bias))
    return Denoiser(lighter, name="the model in 8 bits")
