"""What a Python user sees: ``load`` and the object it returns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from diffutron.corpus import read_texts
from diffutron.corpus.draws import text_digest
from diffutron.errors import InputError
from diffutron.evaluation import (
    LikelihoodBound,
    LogLikelihood,
    MaskedPerplexity,
    likelihood_bound,
    log_likelihoods,
    masked_perplexity,
)
from diffutron.evaluation.bound import NUM_DRAWS
from diffutron.evaluation.hiding import AtRate
from diffutron.evaluation.likelihood import Estimator
from diffutron.evaluation.questions import ask_for_continuation
from diffutron.generation import (
    EXACT,
    FAST,
    Completion,
    Constraint,
    DenoisingStep,
    Filled,
    Generator,
    Guide,
    Infiller,
    Infilling,
    PieceBias,
    Request,
    Rewritten,
    SamplerSettings,
    rewrite,
)
from diffutron.generation import fill as fill_masks
from diffutron.generation.chat import CHAT_SAMPLER, MAX_NEW_TOKENS, Chat, Reply, turns_of_messages
from diffutron.generation.generate import check_constraints, check_num_samples, shortlist_of
from diffutron.generation.infill import INFILL_SAMPLER, MAX_GAP
from diffutron.generation.restore import Lexicon, Restored, Restorer
from diffutron.generation.well_formed import word_judge
from diffutron.model import Loaded, load_model
from diffutron.recipe import check
from diffutron.text import normalise
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.instructions import ChatSettings


def load(name: str | Path = "mini", *, adapters: Sequence[Path | str] = (), device: str = "auto") -> DiffusionLM:
    """Load a model.

    Args:
        name: ``mini``, ``mini-base``, a folder, or a hub id (``org/name`` or ``org/name@revision``).
        adapters: folders of LoRA adapters to put on top of it, the first lowest, whatever each was trained on.
        device: a torch device; "auto" takes a CUDA device where there is one.

    Raises:
        ModelError: no such model, or one that cannot denoise; an adapter that does not fit it.
    """
    return DiffusionLM(load_model(str(name), adapters=adapters, device=device))


class DiffusionLM:
    """A masked diffusion language model with its tokenizer."""

    def __init__(self, loaded: Loaded) -> None:
        self.name = loaded.name
        self.denoiser = loaded.denoiser
        self.tokenizer = loaded.tokenizer
        self.codec = TextCodec(loaded.tokenizer)
        self._loaded = loaded
        self._lexicons: dict[Path, Lexicon] = {}
        self._generators: dict[tuple[bool, Path | None], Generator] = {}

    def _generator(self, *, fast: bool = False, shortlist: str | Path | None = None) -> Generator:
        key = (fast, Path(shortlist) if shortlist is not None else None)
        if key not in self._generators:
            ids = None if shortlist is None else shortlist_of(read_texts(shortlist), self.codec)
            self._generators[key] = Generator.of(
                self._loaded, self.codec, reading=FAST if fast else EXACT, shortlist=ids
            )
        return self._generators[key]

    def fill(
        self, text: str, *, top_k: int = 5, targets: Sequence[str] | None = None, max_pieces: int = 1
    ) -> list[Filled]:
        """The most probable ways to fill every ``[MASK]`` in ``text`` jointly, best first.

        Args:
            targets: rank these words for the text's one mask.
            max_pieces: fill the text's one mask with whole words of at most ``max_pieces`` pieces.

        Raises:
            InputError: the text has no mask, or is longer than the context.
        """
        return fill_masks(self.denoiser, self.codec, text, top_k=top_k, targets=targets, max_pieces=max_pieces)

    def generate(
        self, prompt: str | Sequence[str] = "", *, max_new_tokens: int = 64, num_samples: int = 1, seed: int = 0,
        bias: Mapping[str, float] | None = None, constraints: Sequence[Constraint] = (), fast: bool = False,
        shortlist: str | Path | None = None, on_step: Callable[[DenoisingStep], None] = lambda step: None,
        **sampler: Any,
    ) -> list[Completion]:  # fmt: skip
        """Continue each prompt, or write from nothing.

        A text depends on its prompt, its seed and its sample number, not on what else is asked for in the same call.

        Args:
            bias: nats to add to the logits of pieces, by how they read; ``-inf`` forbids.
            constraints: what every completion keeps, e.g. ``[Contains("deniz"), Syllables(8, lines=4)]``.
            fast: in 8 bits, and between refreshes without the rest of the text: nearly the same, sooner.
            shortlist: a file of texts; only the pieces that they are made of are considered, which is sooner where the
                vocabulary is large. A prompt with others, a bias or a constraint gets the whole vocabulary.
            on_step: told every denoising step; its row is the number of the completion.
            sampler: fields of :class:`~diffutron.generation.SamplerSettings`, e.g. ``temperature=0.5, steps=32``.

        Raises:
            InputError: the prompt is longer than the context, or no text keeps the constraints.
            RecipeError: an unknown sampler setting.
        """
        check_constraints(constraints)
        guides = (PieceBias(bias, self.codec),) if bias else ()
        requests = self._requests(prompt, max_new_tokens, num_samples, seed, tuple(constraints), guides)
        generator = self._generator(fast=fast, shortlist=shortlist)
        return generator.complete(requests, check(sampler, SamplerSettings, place="generate"), on_step)

    def chat(
        self, messages: str | Sequence[Mapping[str, Any]], *, max_new_tokens: int = MAX_NEW_TOKENS, seed: int = 0,
        template: str = "model", fast: bool = False, on_step: Callable[[DenoisingStep], None] = lambda step: None,
        **sampler: Any,
    ) -> Reply:  # fmt: skip
        """What an instruction-tuned model answers.

        Args:
            messages: a question, or turns as ``{"role": "user", "content": "…"}``; the oldest are left out if the
                context holds no more.
            template: ``model`` for the one it was trained with, ``turkish``, ``tags``, or a file of Jinja.

        Raises:
            InputError: the last message is no question, or does not fit into the context.
            RecipeError: an unknown sampler setting.
        """
        settings = check({**CHAT_SAMPLER, **sampler}, SamplerSettings, place="chat")
        chat = Chat(self._generator(fast=fast), ChatSettings(template=template).format(self.codec))
        [reply] = chat.answer(
            [turns_of_messages(messages)], settings, max_new_tokens=max_new_tokens, seed=seed, on_step=on_step
        )
        return reply

    def infill(
        self, text: str, *, constraints: Mapping[int, Sequence[Constraint]] | None = None, num_samples: int = 1,
        max_gap: int = MAX_GAP, seed: int = 0, fast: bool = False,
        on_step: Callable[[DenoisingStep], None] = lambda step: None, **sampler: Any,
    ) -> list[Infilling]:  # fmt: skip
        """Fill gaps together: ``[MASK]``, ``[MASK:8]`` for eight pieces, ``[MASK:?]`` for as many as suit.

        Args:
            constraints: what gaps keep, by their number from 1.
            max_gap: the longest that a gap of open length can be.

        Raises:
            InputError: no gap, too many tokens, or constraints that cannot be kept.
            RecipeError: an unknown sampler setting.
        """
        settings = check({**INFILL_SAMPLER, **sampler}, SamplerSettings, place="infill")
        generator = self._generator(fast=fast)
        infiller = Infiller(generator, text, constraints or {}, seed, max_gap)
        return infiller.fill(settings, num_samples=num_samples, on_step=on_step)

    def rewrite(
        self, draft: str, *, share: float = 0.15, seed: int = 0, fast: bool = False,
        on_step: Callable[[DenoisingStep], None] = lambda step: None, **sampler: Any,
    ) -> Rewritten:  # fmt: skip
        """Draw the weakest words of a draft again; a change that makes the text less likely is not made.

        Args:
            share: which fraction of the words is drawn again, the least likely first.

        Raises:
            InputError: an empty draft, or one that is longer than the context.
            RecipeError: an unknown sampler setting.
        """
        settings = check(sampler, SamplerSettings, place="rewrite")
        generator = self._generator(fast=fast)
        return rewrite(generator, draft, settings, share=share, seed=seed, on_step=on_step)

    def restore(
        self, text: str, *, faults: Collection[str] = ("letters",), confidence: float = 0.9,
        dictionary: str | Path | None = None, lexicon: str | Path | None = None, fast: bool = False,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Restored:  # fmt: skip
        """Mend a text that was typed without Turkish letters, in haste (``typing``), or read by a scanner (``ocr``).

        Args:
            confidence: a word is changed only if the change is at least so probable.
            dictionary: a Hunspell dictionary (.dic) that tells words from non-words.
            lexicon: a file or folder of texts that tell which words are frequent; the more, the better.

        Raises:
            InputError: an unknown fault, a confidence that is none, or no such dictionary.
            DataError: the lexicon cannot be read.
        """
        generator = self._generator(fast=fast)
        restorer = Restorer(
            generator, frozenset(faults), confidence,
            None if dictionary is None else word_judge(Path(dictionary)),
            None if lexicon is None else self._lexicon(Path(lexicon)),
        )  # fmt: skip
        return restorer.restore(text, on_progress)

    def _lexicon(self, path: Path) -> Lexicon:
        if path not in self._lexicons:
            self._lexicons[path] = Lexicon(read_texts(path))
        return self._lexicons[path]

    def stream(
        self, prompt: str = "", *, max_new_tokens: int = 64, seed: int = 0, **sampler: Any
    ) -> Iterator[Completion]:
        """The text after every denoising step, hidden tokens left out; the last is what ``generate`` returns."""
        [request] = self._requests(prompt, max_new_tokens, 1, seed)
        generator, closest = self._generator(), float("inf")
        for step in generator.steps([request], check(sampler, SamplerSettings, place="stream")):
            closest = min(closest, step.closest)
            yield generator.read(request, step, closest=closest)

    def perplexity(
        self, texts: str | Iterable[str], *, mask_rate: float = 0.15, seed: int = 0,
        unit: Literal["token", "word", "morpheme"] = "token", replace: Literal["mask", "80-10-10"] = "mask",
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> MaskedPerplexity:  # fmt: skip
        """Masked perplexity of texts, with its interval.

        Args:
            unit: what is hidden as a whole.
            replace: what stands for hidden tokens: the mask, or BERT's mixture.

        Raises:
            DataError: the texts are empty.
            InputError: ``mask_rate`` is not between 0 and 1.
        """
        return masked_perplexity(
            self.denoiser, self.codec, _listed(texts), hiding=AtRate(mask_rate, unit, replace), seed=seed,
            on_progress=on_progress,
        )  # fmt: skip

    def bound(
        self, texts: str | Iterable[str], *, num_draws: int = NUM_DRAWS, seed: int = 0,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> LikelihoodBound:  # fmt: skip
        """Bits per character that the model needs for texts, at most; comparable between tokenizers.

        Raises:
            DataError: the texts are empty.
            InputError: ``num_draws`` is odd or below 2.
        """
        return likelihood_bound(
            self.denoiser, self.codec, _listed(texts), num_draws=num_draws, seed=seed, on_progress=on_progress
        )

    def score(
        self, context: str, continuations: Sequence[str], *, estimator: Estimator = "bound", num_draws: int = 128,
        seed: int = 0,
    ) -> list[LogLikelihood]:  # fmt: skip
        """Log-probability of each continuation after the context, in nats.

        Continuations of equal length are hidden alike, so that chance does not decide between them.

        Args:
            continuations: with the space in front, where there is one: ``score("Başkent", [" Ankara", " İzmir"])``.
            estimator: see :func:`~diffutron.evaluation.log_likelihoods`.

        Raises:
            InputError: a continuation holds no token, or is longer than the context allows.
        """
        key = (text_digest(normalise(context)),)
        questions = []
        for continuation in continuations:
            before, after = self.codec.encode_pair(context, continuation)
            if not after:
                raise InputError(f"the continuation {continuation!r} holds no token")
            questions.append(ask_for_continuation(before, after, self.codec, key=key))
        return log_likelihoods(
            self.denoiser, self.codec, questions, estimator=estimator, num_draws=num_draws, seed=seed
        )

    @staticmethod
    def _requests(
        prompt: str | Sequence[str], max_new_tokens: int, num_samples: int, seed: int,
        constraints: tuple[Constraint, ...] = (), guides: tuple[Guide, ...] = (),
    ) -> list[Request]:  # fmt: skip
        check_num_samples(num_samples)
        prompts = [prompt] if isinstance(prompt, str) else prompt
        return [
            Request(each, max_new_tokens, seed, sample, constraints, guides)
            for each in prompts
            for sample in range(num_samples)
        ]


def _listed(texts: str | Iterable[str]) -> Iterable[str]:
    return [texts] if isinstance(texts, str) else texts
