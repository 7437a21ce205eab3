"""Everything that is measured of a model in one value: what the report shows and the model card quotes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from diffutron.corpus.draws import text_digest
from diffutron.evaluation.bound import LikelihoodBound, compare_bounds, likelihood_bound
from diffutron.evaluation.convergence import Cost, convergence
from diffutron.evaluation.perplexity import (
    MaskedPerplexity,
    are_comparable,
    check_same_tokenizer,
    compare,
    masked_perplexity,
)
from diffutron.evaluation.questions import Question, ask_for_texts
from diffutron.evaluation.score import Difference
from diffutron.generation import Completion, Filled, Generator, Request, SamplerSettings, fill
from diffutron.model import Loaded
from diffutron.tokens.codec import TextCodec

MASK_RATES = (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95)
CARD_RATE = 0.15
PROMPTS = ("", "Bir varmış bir yokmuş", "Türkiye'nin başkenti", "Dün akşam")
FILLS = (
    "Türkiye'nin başkenti [MASK].",
    "Bir yılda on iki [MASK] vardır.",
    "Güneş doğudan [MASK].",
    "Çocuklar okula [MASK].",
    "Dün akşam televizyon [MASK].",
    "Bu kitabı [MASK] okudum.",
    "Su yüz derecede [MASK].",
    "Kışın hava çok [MASK] olur.",
    "Ali ile Ayşe parka [MASK].",
    "İstanbul Türkiye'nin en kalabalık [MASK].",
)
SAMPLE_TOKENS = 64
ESTIMATOR_TEXTS, ESTIMATOR_TOKENS = 24, 32


@dataclass(frozen=True)
class Scores:
    """What a model gets on a set of texts.

    Attributes:
        score: masked perplexity of all of them at ``CARD_RATE``.
        curve: masked perplexity at each of ``MASK_RATES``, of some of them.
        bound: of those of the curve.
    """

    score: MaskedPerplexity
    curve: list[MaskedPerplexity]
    bound: LikelihoodBound

    def as_dict(self) -> dict[str, Any]:
        return {
            "score": self.score.as_dict(), "curve": [each.as_dict() for each in self.curve],
            "bound": self.bound.as_dict(),
        }  # fmt: skip


@dataclass(frozen=True)
class SetScores:
    """A set of texts: the model, and beside it the one that it was made from, if there is one."""

    name: str
    own: Scores
    before: Scores | None

    @cached_property
    def difference(self) -> Difference | None:
        """In nats a hidden token; None where the two cut the texts elsewhere."""
        if self.before is None or not are_comparable(self.before.score, self.own.score):
            return None
        return compare(self.before.score, self.own.score)

    @cached_property
    def bound_difference(self) -> Difference | None:
        """In bits a character."""
        return compare_bounds(self.before.bound, self.own.bound) if self.before is not None else None

    def as_dict(self) -> dict[str, Any]:
        nothing: dict[str, Any] = {"score": None, "curve": [], "bound": None}
        before = self.before.as_dict() if self.before is not None else nothing
        return {
            "name": self.name, **self.own.as_dict(),
            "before": before["score"], "curve_before": before["curve"], "bound_before": before["bound"],
            "difference": asdict(each) if (each := self.difference) is not None else None,
            "bound_difference": asdict(each) if (each := self.bound_difference) is not None else None,
        }  # fmt: skip


@dataclass(frozen=True)
class ModelReport:
    """A model, measured.

    Attributes:
        samples: ``samples[i]`` has seed ``i // len(PROMPTS)`` and prompt ``i % len(PROMPTS)``: chosen by index.
        fills: for each of ``FILLS``, the five best ways.
        estimators: what each likelihood estimator says for its price, on the beginnings of texts of the first set.
    """

    model: str
    before: str | None
    num_parameters: int
    num_pieces: int
    seed: int
    sets: list[SetScores]
    fills: list[list[Filled]]
    samples: list[Completion]
    estimators: list[Cost]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the report and the model card read nothing else."""
        return {
            "model": self.model, "before": self.before, "num_parameters": self.num_parameters,
            "num_pieces": self.num_pieces, "seed": self.seed, "sets": [each.as_dict() for each in self.sets],
            "fills": [
                {"text": text, "ways": [{"tokens": list(way.tokens), "score": way.score} for way in ways]}
                for text, ways in zip(FILLS, self.fills, strict=True)
            ],
            "samples": [each.as_dict() for each in self.samples],
            "estimators": [each.as_dict() for each in self.estimators],
        }  # fmt: skip


def measure_model(
    loaded: Loaded, sets: Mapping[str, Sequence[str]], *, before: Loaded | None = None, max_texts: int | None = None,
    num_draws: int = 8, num_seeds: int = 5, seed: int = 0,
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> ModelReport:  # fmt: skip
    """Measure ``loaded`` on each set of texts, and let it write.

    Args:
        sets: names and texts.
        before: the model it was made from, for differences on the same masks; it needs the same tokenizer.
        max_texts: how many texts of a set the curve and the bound read at most; what they cost is many times the score.
        num_seeds: texts for each of the prompts.

    Raises:
        InputError: ``before`` has another tokenizer.
    """
    codec = TextCodec(loaded.tokenizer)
    if before is not None:
        check_same_tokenizer(before.name, TextCodec(before.tokenizer), loaded.name, codec)

    def measured(model: Loaded, name: str, texts: Sequence[str]) -> Scores:
        def at_rate(texts: Sequence[str], rate: float) -> MaskedPerplexity:
            return masked_perplexity(model.denoiser, codec, texts, mask_rate=rate, seed=seed)

        some = _some(texts, max_texts)
        score = at_rate(texts, CARD_RATE)
        bound = likelihood_bound(
            model.denoiser, codec, some, num_draws=num_draws, seed=seed,
            on_progress=lambda done, total: on_progress(f"{name}: {model.name}'s bound", done, total),
        )  # fmt: skip
        curve = []
        for done, rate in enumerate(MASK_RATES, start=1):
            curve.append(score if rate == CARD_RATE and some is texts else at_rate(some, rate))
            on_progress(f"{name}: {model.name} by mask rate", done, len(MASK_RATES))
        return Scores(score, curve, bound)

    scores = []
    for name, texts in sets.items():
        own = measured(loaded, name, texts)
        theirs = measured(before, name, texts) if before is not None else None
        scores.append(SetScores(name, own, theirs))

    generator = Generator.of(loaded, codec)
    most = loaded.denoiser.max_positions - 1
    rooms = {prompt: min(SAMPLE_TOKENS, most - len(codec.encode(prompt))) for prompt in PROMPTS}
    requests = [Request(prompt, rooms[prompt], seed=each) for each in range(num_seeds) for prompt in PROMPTS]
    questions = _beginnings(next(iter(sets.values())), codec)
    return ModelReport(
        model=loaded.name, before=before.name if before is not None else None,
        num_parameters=loaded.denoiser.num_parameters, num_pieces=len(codec),
        seed=seed, sets=scores, fills=[fill(loaded.denoiser, codec, text, top_k=5) for text in FILLS],
        samples=generator.complete(requests, SamplerSettings()),
        estimators=convergence(
            loaded.denoiser, codec, questions, seed=seed,
            on_progress=lambda done, total: on_progress("estimators", done, total),
        ),
    )  # fmt: skip


def _beginnings(texts: Sequence[str], codec: TextCodec) -> list[Question]:
    """The first window of as many texts as the estimators read."""
    read = ask_for_texts(texts, codec, max_tokens=ESTIMATOR_TOKENS)
    _, firsts = np.unique(read.documents, return_index=True)
    return [read.questions[first] for first in firsts if read.questions[first].num_asked][:ESTIMATOR_TEXTS]


def _some(texts: Sequence[str], most: int | None) -> Sequence[str]:
    """At most so many of the texts, in their order: a choice that does not depend on it."""
    if most is None or len(texts) <= most:
        return texts
    chosen = sorted(range(len(texts)), key=lambda place: text_digest(texts[place]))[:most]
    return [texts[place] for place in sorted(chosen)]
