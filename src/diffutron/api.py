"""What a Python user sees: ``load`` and the object it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from diffutron.errors import InputError
from diffutron.evaluation import LikelihoodBound, MaskedPerplexity, likelihood_bound, masked_perplexity
from diffutron.evaluation.bound import NUM_DRAWS
from diffutron.generation import Completion, Filled, Generator, Request, SamplerSettings
from diffutron.generation import fill as fill_masks
from diffutron.model import Loaded, load_model
from diffutron.recipe import check
from diffutron.tokens.codec import TextCodec


def load(name: str = "mini", *, device: str = "auto") -> DiffusionLM:
    """Load a model.

    Args:
        name: ``mini``, ``mini-base``, a folder, or a hub id (``org/name`` or ``org/name@revision``).
        device: a torch device; "auto" takes a CUDA device where there is one.

    Raises:
        ModelError: no such model, or one that cannot denoise.
    """
    return DiffusionLM(load_model(name, device=device))


class DiffusionLM:
    """A masked diffusion language model with its tokenizer."""

    def __init__(self, loaded: Loaded) -> None:
        self.name = loaded.name
        self.denoiser = loaded.denoiser
        self.tokenizer = loaded.tokenizer
        self.codec = TextCodec(loaded.tokenizer)
        self._generator = Generator(
            loaded.denoiser, self.codec, learned_end=bool(loaded.diffusion.get("learned_end", False))
        )

    def fill(self, text: str, *, top_k: int = 5) -> list[Filled]:
        """The most probable ways to fill every ``[MASK]`` in ``text`` jointly, best first.

        Raises:
            InputError: the text has no mask, or is longer than the context.
        """
        return fill_masks(self.denoiser, self.codec, text, top_k=top_k)

    def generate(
        self, prompt: str | Sequence[str] = "", *, max_new_tokens: int = 64, num_samples: int = 1, seed: int = 0,
        **sampler: Any,
    ) -> list[Completion]:  # fmt: skip
        """Continue each prompt, or write from nothing.

        A text depends on its prompt, its seed and its sample number, not on what else is asked for in the same call.

        Args:
            sampler: fields of :class:`~diffutron.generation.SamplerSettings`, e.g. ``temperature=0.5, steps=32``.

        Raises:
            InputError: the prompt is longer than the context.
            RecipeError: an unknown sampler setting.
        """
        requests = self._requests(prompt, max_new_tokens, num_samples, seed)
        return self._generator.complete(requests, check(sampler, SamplerSettings, place="generate"))

    def stream(
        self, prompt: str = "", *, max_new_tokens: int = 64, seed: int = 0, **sampler: Any
    ) -> Iterator[Completion]:
        """The text after every denoising step, hidden tokens left out; the last is what ``generate`` returns."""
        [request] = self._requests(prompt, max_new_tokens, 1, seed)
        closest = float("inf")
        for step in self._generator.steps([request], check(sampler, SamplerSettings, place="stream")):
            closest = min(closest, step.closest)
            yield self._generator.read(request, step, closest=closest)

    def perplexity(
        self, texts: str | Iterable[str], *, mask_rate: float = 0.15, seed: int = 0,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> MaskedPerplexity:  # fmt: skip
        """Masked perplexity of texts, with its interval.

        Raises:
            DataError: the texts are empty.
            InputError: ``mask_rate`` is not between 0 and 1.
        """
        if not 0 < mask_rate <= 1:
            raise InputError(f"the mask rate must be above 0 and at most 1, not {mask_rate}")
        texts = [texts] if isinstance(texts, str) else texts
        return masked_perplexity(
            self.denoiser, self.codec, texts, mask_rate=mask_rate, seed=seed, on_progress=on_progress
        )

    def bound(
        self, texts: str | Iterable[str], *, num_draws: int = NUM_DRAWS, seed: int = 0,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> LikelihoodBound:  # fmt: skip
        """Bits per character that the model needs for texts, at most; comparable between tokenizers.

        Raises:
            DataError: the texts are empty.
            InputError: ``num_draws`` is odd or below 2.
        """
        texts = [texts] if isinstance(texts, str) else texts
        return likelihood_bound(
            self.denoiser, self.codec, texts, num_draws=num_draws, seed=seed, on_progress=on_progress
        )

    @staticmethod
    def _requests(prompt: str | Sequence[str], max_new_tokens: int, num_samples: int, seed: int) -> list[Request]:
        if num_samples < 1:
            raise InputError(f"the number of samples must be at least 1, not {num_samples}")
        prompts = [prompt] if isinstance(prompt, str) else prompt
        return [Request(each, max_new_tokens, seed, sample) for each in prompts for sample in range(num_samples)]
