"""Any encoders side by side: bits a character for all, masked perplexity where tokenizers agree, speed and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from diffutron.errors import InputError
from diffutron.evaluation.bound import NUM_DRAWS, LikelihoodBound, compare_bounds, likelihood_bound
from diffutron.evaluation.perplexity import MaskedPerplexity, are_comparable, compare, masked_perplexity
from diffutron.evaluation.score import Difference
from diffutron.model import load_model
from diffutron.model.checkpoint import weights_digest
from diffutron.model.names import resolve_model
from diffutron.text import normalise
from diffutron.tokens.codec import TextCodec
from diffutron.training.machine import PeakMemory


@dataclass(frozen=True)
class Measured:
    """One model's row.

    Attributes:
        weights: 16 digits of them (:func:`~diffutron.model.checkpoint.weights_digest`).
        perplexity: at one mask rate.
        bits_difference: from the first model, in bits a character.
        nll_difference: from the first model, in nats a hidden token; None if their tokenizers differ, or if their
            contexts do so that texts are cut elsewhere.
        num_lossy: texts of which the tokenizer loses something: case, accents, characters that it does not know. What
            is lost costs nothing, so with many of them the bound is too low.
        characters_per_second: read while the bound was measured, each draw's counted; tokens of another tokenizer would
            say something else.
        weight_bytes: of the parameters.
        peak_bytes: that measuring took beside the weights.
    """

    model: str
    weights: str | None
    num_parameters: int
    num_pieces: int
    bound: LikelihoodBound
    perplexity: MaskedPerplexity
    bits_difference: Difference | None
    nll_difference: Difference | None
    num_lossy: int
    characters_per_second: float
    weight_bytes: int
    peak_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        differences = {
            name: asdict(value)
            for name in ("bits_difference", "nll_difference")
            if (value := getattr(self, name)) is not None
        }
        return {
            "model": self.model, "weights": self.weights, "num_parameters": self.num_parameters,
            "num_pieces": self.num_pieces, "bound": self.bound.as_dict(), "perplexity": self.perplexity.as_dict(),
            **differences, "num_lossy": self.num_lossy, "characters_per_second": self.characters_per_second,
            "weight_bytes": self.weight_bytes, "peak_bytes": self.peak_bytes,
        }  # fmt: skip


def side_by_side(
    models: Sequence[str], texts: Sequence[str], *, mask_rate: float = 0.15, num_draws: int = NUM_DRAWS, seed: int = 0,
    on_progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Iterator[Measured]:  # fmt: skip
    """Measure each model in turn, on the same texts; only one is in memory at a time.

    Args:
        models: names as :func:`~diffutron.model.load_model` takes them; differences are from the first.

    Raises:
        InputError: fewer than two models. ModelError: one is unknown.
    """
    if len(models) < 2:
        raise InputError("a comparison needs at least two models")
    for name in models:
        resolve_model(name)  # before the first is measured
    first: Measured | None = None
    for name in models:
        loaded = load_model(name)
        codec = TextCodec(loaded.tokenizer)
        device = next(loaded.denoiser.parameters()).device
        start = time.perf_counter()
        with PeakMemory(device) as peak:
            bound = likelihood_bound(
                loaded.denoiser, codec, texts, num_draws=num_draws, seed=seed,
                on_progress=lambda done, total, name=name: on_progress(name, done, total),  # type: ignore[misc]
            )  # fmt: skip
        seconds = time.perf_counter() - start
        perplexity = masked_perplexity(
            loaded.denoiser, codec, texts, mask_rate=mask_rate, seed=seed,
            on_progress=lambda done, total, name=name: on_progress(f"{name}, masked", done, total),  # type: ignore[misc]
        )  # fmt: skip
        num_parameters, num_pieces = loaded.denoiser.num_parameters, len(codec)
        weight_bytes = sum(param.numel() * param.element_size() for param in loaded.denoiser.parameters())
        del loaded
        is_comparable = first is not None and are_comparable(first.perplexity, perplexity)
        row = Measured(
            model=name, weights=weights_digest(name), num_parameters=num_parameters, num_pieces=num_pieces,
            bound=bound, perplexity=perplexity,
            bits_difference=compare_bounds(first.bound, bound) if first else None,
            nll_difference=compare(first.perplexity, perplexity) if first and is_comparable else None,
            num_lossy=sum(_is_lossy(text, codec) for text in texts),
            characters_per_second=bound.num_characters * num_draws / seconds, weight_bytes=weight_bytes,
            peak_bytes=peak.bytes,
        )  # fmt: skip
        first = first or row
        yield row


def _is_lossy(text: str, codec: TextCodec) -> bool:
    """Whether a tokenizer gives back another text, spaces aside, which WordPiece does not keep."""
    return "".join(codec.decode(codec.encode(text)).split()) != "".join(normalise(text).split())
