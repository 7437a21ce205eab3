"""Attention inside each document of a packed row, for every encoder family.

Several documents lie end to end in one row, so that no linear layer computes padding; attention must not cross their
borders. transformers calls whatever function is registered under the model's attention implementation: ours looks at
the borders, runs torch's fused attention on each document, and is plain fused attention where there are none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "diffutron"
PADDING_ALLOWED = 0.2
"""Share of padding that a CUDA device may compute inside attention to take documents of different length in one call;
on a CPU calls are cheap and only documents of equal length share one."""


@dataclass(frozen=True)
class Segments:
    """Lengths of the documents that lie end to end in one packed row."""

    lengths: tuple[int, ...]

    @cached_property
    def positions(self) -> Int[Tensor, "1 L"]:
        """0, 1, 2, … from the start of each document."""
        return torch.cat([torch.arange(length) for length in self.lengths])[None]

    def groups(self, padding_allowed: float) -> Iterator[tuple[int, ...]]:
        """Lengths of neighbouring documents that share an attention call."""
        if padding_allowed == 0:
            for _, same in groupby(self.lengths):
                yield tuple(same)
            return
        group: list[int] = []
        for length in self.lengths:
            longest = max([*group, length])
            if group and longest * (len(group) + 1) > (sum(group) + length) * (1 + padding_allowed):
                yield tuple(group)
                group = []
            group.append(length)
        yield tuple(group)


@dataclass
class Memory:
    """Keys and values of whole rows, so that a call may compute a few positions and still see all of them.

    What stands in the rest is as old as the call that computed it; a call that computes every position is exact.

    Attributes:
        positions: which positions of its row the tokens of this call stand at, [B, l].
        visible: which positions of the rows may be seen, [B, L]; padding may not.
    """

    positions: Int[Tensor, "B l"]
    visible: Bool[Tensor, "B L"]
    kept: dict[torch.nn.Module, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def update(self, layer: torch.nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put a layer's new keys and values [B, H, l, D] in their places; returns those of the whole rows."""
        if layer not in self.kept:
            batch, heads, _, width = key.shape
            self.kept[layer] = (
                key.new_zeros(batch, heads, self.visible.shape[1], width),
                value.new_zeros(batch, heads, self.visible.shape[1], width),
            )
        places = self.positions[:, None, :, None].expand_as(key)
        for whole, new in zip(self.kept[layer], (key, value), strict=True):
            whole.scatter_(2, places, new)
        return self.kept[layer]

    def mask(self, half_window: int | None) -> Bool[Tensor, "B 1 l L"] | None:
        """What each query may see; None: everything."""
        length = self.visible.shape[1]
        is_near = half_window is None or length <= half_window + 1
        if is_near and bool(self.visible.all()):
            return None
        mask = self.visible[:, None, None, :].expand(-1, 1, self.positions.shape[1], -1)
        if half_window is not None and not is_near:
            place = torch.arange(length, device=self.positions.device)
            mask = mask & ((self.positions[:, None, :, None] - place).abs() <= half_window)
        return mask

    @staticmethod
    def joined(rows: Sequence[tuple[Memory, int]], positions: Int[Tensor, "B l"]) -> Memory:
        """One memory of chosen rows of several, all of one length, for a call that computes ``positions``; a whole
        memory is not copied."""
        first = rows[0][0]
        if len(rows) == len(first.visible) and all(each is first and row == at for at, (each, row) in enumerate(rows)):
            first.positions = positions
            return first
        kept = {
            layer: (
                torch.stack([each.kept[layer][0][row] for each, row in rows]),
                torch.stack([each.kept[layer][1][row] for each, row in rows]),
            )
            for layer in first.kept
        }
        visible = torch.stack([each.visible[row] for each, row in rows])
        return Memory(positions, visible, kept)


def use_segments(model: PreTrainedModel) -> None:
    """Let ``model`` take ``segments=Segments(...)`` in its forward pass."""
    # Lengths differ in every batch: compiled layers break off at attention and go on after it.
    AttentionInterface.register(NAME, torch.compiler.disable(_attend))
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def _attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    *, dropout: float = 0.0, scaling: float | None = None, sliding_window: int | None = None,
    segments: Segments | None = None, memory: Memory | None = None, **rest: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    if query.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        # torch's fused attention for CPUs is slower in bfloat16 than in float32, by 2.5 times where measured.
        with torch.autocast("cpu", enabled=False):
            return _attend(
                module, query.float(), key.float(), value.float(), attention_mask, dropout=dropout, scaling=scaling,
                sliding_window=sliding_window, segments=segments, memory=memory, **rest,
            )  # fmt: skip
    half_window = None if sliding_window is None else sliding_window - 1
    if memory is not None:
        key, value = memory.update(module, key, value)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=memory.mask(half_window), scale=scaling)
        return out.transpose(1, 2), None
    if segments is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **rest)
    allowed = PADDING_ALLOWED if query.device.type == "cuda" else 0.0
    groups = list(segments.groups(allowed))
    # One split, not a slice for each group: the backward pass of a slice writes a gradient of the whole row.
    sizes = [sum(lengths) for lengths in groups]
    queries, keys, values = (packed[0].split(sizes, dim=1) for packed in (query, key, value))
    parts = [
        _attend_group(*part, half_window, dropout, scaling) for part in zip(queries, keys, values, groups, strict=True)
    ]
    return torch.cat(parts)[None], None


def _attend_group(
    query: Float[Tensor, "H l D"], key: Float[Tensor, "H l D"], value: Float[Tensor, "H l D"],
    lengths: tuple[int, ...], half_window: int | None, dropout: float, scaling: float | None,
) -> Float[Tensor, "l H D"]:  # fmt: skip
    """Attention of neighbouring documents in one call; padded to the longest where they differ."""
    size, longest, device = sum(lengths), max(lengths), query.device
    even = longest * len(lengths) == size
    # Where each document's tokens lie in a grid of one document a line.
    inside = torch.arange(longest, device=device) < torch.tensor(lengths, device=device)[:, None]

    def grid(packed: Tensor) -> Tensor:
        heads, _, width = packed.shape
        if even:
            return packed.view(heads, len(lengths), longest, width).transpose(0, 1)
        lines = packed.new_zeros(len(lengths), longest, heads, width)
        lines[inside] = packed.transpose(0, 1)
        return lines.transpose(1, 2)

    if half_window is not None and longest > 4 * half_window:
        out = _attend_near(grid(query), grid(key), grid(value), inside, half_window, dropout, scaling)
    else:
        mask = None if even else inside[:, None, None, :]
        if half_window is not None and longest > half_window + 1:
            place = torch.arange(longest, device=device)
            near = (place[:, None] - place[None, :]).abs() <= half_window
            mask = near if mask is None else mask & near
        out = F.scaled_dot_product_attention(
            grid(query), grid(key), grid(value), attn_mask=mask, dropout_p=dropout, scale=scaling
        )
    out = out.transpose(1, 2)
    return out.reshape(size, *out.shape[2:]) if even else out[inside]


def _attend_near(
    query: Float[Tensor, "B H L D"], key: Float[Tensor, "B H L D"], value: Float[Tensor, "B H L D"],
    inside: Bool[Tensor, "B L"], half_window: int, dropout: float, scaling: float | None,
) -> Float[Tensor, "B H L D"]:  # fmt: skip
    """Attention to ``half_window`` positions on either side, in time that grows with L and not with its square.

    Blocks of ``half_window`` queries see their own positions and as many on either side; a mask takes away what is
    still too far for a query, and what lies outside its document.
    """
    batch, _, length, _ = query.shape
    blocks = -(-length // half_window)
    rest = blocks * half_window - length

    def windows(part: Tensor) -> Tensor:  # [B, H, L, D] to [B * blocks, H, 3 * half_window, D]
        whole = F.pad(part, (0, 0, half_window, half_window + rest))
        each = whole.unfold(2, 3 * half_window, half_window).transpose(-1, -2)
        return each.transpose(1, 2).flatten(0, 1)

    queries = F.pad(query, (0, 0, 0, rest)).unflatten(2, (blocks, half_window)).transpose(1, 2).flatten(0, 1)
    is_there = windows(inside[:, None, :, None]).flatten(1)  # [B * blocks, 3 * half_window]
    place = torch.arange(3 * half_window, device=query.device)
    offset = place[None, :] - half_window - place[:half_window, None]
    near = offset.abs() <= half_window
    # A query beyond its document's end sees itself, lest a row of the softmax be empty; nobody reads it.
    mask = near & is_there[:, None, None, :] | (offset == 0)
    out = F.scaled_dot_product_attention(
        queries, windows(key), windows(value), attn_mask=mask, dropout_p=dropout, scale=scaling
    )
    whole: Tensor = out.unflatten(0, (batch, blocks)).transpose(1, 2).flatten(2, 3)
    return whole[:, :, :length]
