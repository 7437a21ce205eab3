"""Everything that is measured of a model in one value: what the report shows and the model card quotes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from diffutron.errors import InputError
from diffutron.evaluation.bound import LikelihoodBound, likelihood_bound
from diffutron.evaluation.convergence import Cost, convergence
from diffutron.evaluation.perplexity import MaskedPerplexity, are_comparable, compare, masked_perplexity
from diffutron.evaluation.questions import ask_for_texts
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
class SetScores:
    """One set of texts.

    Attributes:
        curve: masked perplexity at each of the mask rates, 15 % among them.
        before: the same of the model it was made from; empty if there is none.
        differences: from ``before``, at each rate, in nats a hidden token; empty if its texts are cut elsewhere.
    """

    name: str
    bound: LikelihoodBound
    curve: list[MaskedPerplexity]
    before: list[MaskedPerplexity]
    differences: list[Difference]

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name, "bound": self.bound.as_dict(), "curve": [each.as_dict() for each in self.curve],
            "before": [each.as_dict() for each in self.before],
            "differences": [asdict(each) for each in self.differences],
        }  # fmt: skip


@dataclass(frozen=True)
class ModelReport:
    """A model, measured.

    Attributes:
        samples: ``samples[i]`` has seed ``i // len(PROMPTS)`` and prompt ``i % len(PROMPTS)``: chosen by index.
        fills: for each of ``FILLS``, the five best ways.
        estimators: what each likelihood estimator says for its price, on the first texts of the first set.
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
    loaded: Loaded, sets: Mapping[str, Sequence[str]], *, before: Loaded | None = None, num_draws: int = 8,
    num_seeds: int = 5, seed: int = 0, on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> ModelReport:  # fmt: skip
    """Measure ``loaded`` on each set of texts, and let it write.

    Args:
        sets: names and texts.
        before: the model it was made from, for differences on the same masks; it needs the same tokenizer.
        num_seeds: texts for each of the prompts.

    Raises:
        InputError: ``before`` has another tokenizer.
    """
    codec = TextCodec(loaded.tokenizer)
    if before is not None and TextCodec(before.tokenizer).fingerprint != codec.fingerprint:
        raise InputError(
            f"{before.name} has another tokenizer than {loaded.name}: their masked perplexities are not comparable; "
            "leave --before out, or use diffutron eval compare"
        )

    def curve(model: Loaded, name: str, texts: Sequence[str]) -> list[MaskedPerplexity]:
        found = []
        for done, rate in enumerate(MASK_RATES, start=1):
            found.append(
                masked_perplexity(model.denoiser, TextCodec(model.tokenizer), texts, mask_rate=rate, seed=seed)
            )
            on_progress(f"{name}: {model.name} by mask rate", done, len(MASK_RATES))
        return found

    scores = []
    for name, texts in sets.items():
        own = curve(loaded, name, texts)
        theirs = curve(before, name, texts) if before is not None else []
        bound = likelihood_bound(
            loaded.denoiser, codec, texts, num_draws=num_draws, seed=seed,
            on_progress=lambda done, total, name=name: on_progress(f"{name}: bound", done, total),  # type: ignore[misc]
        )  # fmt: skip
        differences = [compare(old, new) for old, new in zip(theirs, own, strict=False) if are_comparable(old, new)]
        scores.append(SetScores(name, bound, own, theirs, differences))

    generator = Generator.of(loaded, codec)
    most = loaded.denoiser.max_positions - 1
    rooms = {prompt: min(SAMPLE_TOKENS, most - len(codec.encode(prompt))) for prompt in PROMPTS}
    requests = [Request(prompt, rooms[prompt], seed=each) for each in range(num_seeds) for prompt in PROMPTS]
    first = next(iter(sets.values()))
    questions = ask_for_texts(first, codec, max_tokens=ESTIMATOR_TOKENS).questions
    questions = [each for each in questions if each.num_asked][:ESTIMATOR_TEXTS]
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
