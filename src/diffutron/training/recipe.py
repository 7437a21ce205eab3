"""The training recipe: everything a run depends on, in one frozen value."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from diffutron.corpus import CorpusSettings
from diffutron.diffusion import Cosine, CountBased, Diffusion, FixedRate, Linear, Objective, RateRange
from diffutron.model.lora import LoraSettings
from diffutron.recipe import Settings
from diffutron.tokens.instructions import ChatSettings
from diffutron.training.learning_rate import LearningRateSettings
from diffutron.training.masking import MaskingSettings
from diffutron.training.optimizer import OptimizerSettings

Rate = Annotated[float, Field(gt=0, le=1)]


class FixedRateSettings(Settings):
    """Masked language modelling at one rate."""

    kind: Literal["mlm"]
    mask_rate: Rate = 0.15
    """Share of tokens hidden."""

    def build(self) -> Objective:
        return FixedRate(self.mask_rate)


class RateRangeSettings(Settings):
    """Masked language modelling at a rate drawn for each example, from a window that may grow."""

    kind: Literal["mlm-range"]
    low: Rate = 0.1
    """Lower end of the window."""
    high: Rate = 0.9
    """Upper end of the window."""
    start: tuple[Rate, Rate] | None = None
    """The window at the start, if it is to grow."""
    ramp: float = Field(default=0.5, gt=0, le=1)
    """Share of training in which the window grows."""

    @model_validator(mode="after")
    def _ordered(self) -> RateRangeSettings:
        for low, high in [(self.low, self.high), *([self.start] if self.start else [])]:
            if low > high:
                raise ValueError(f"the window ({low}, {high}) is upside down")
        return self

    def build(self) -> Objective:
        return RateRange(self.low, self.high, self.start, self.ramp)


class DiffusionSettings(Settings):
    """The likelihood bound of masked diffusion."""

    kind: Literal["diffusion"]
    schedule: Literal["linear", "cosine"] = "linear"
    """How fast tokens vanish."""
    eps: float = Field(default=1e-3, gt=0, lt=0.5)
    """The smallest time."""

    def build(self) -> Objective:
        return Diffusion({"linear": Linear, "cosine": Cosine}[self.schedule](), self.eps)


class CountBasedSettings(Settings):
    """The likelihood bound with a count drawn instead of a time: less variance."""

    kind: Literal["count"]

    def build(self) -> Objective:
        return CountBased()


ObjectiveSettings = Annotated[
    FixedRateSettings | RateRangeSettings | DiffusionSettings | CountBasedSettings, Field(discriminator="kind")
]


_SHORT_FORMS = {"path": "texts", "conversations": "conversations"}


class TrainData(Settings):
    """What to train on: a corpus built before, or sources to build one from first.

    `path`, a file or folder of texts, and `conversations`, one of questions and answers, are short for a source of
    `build` each.
    """

    corpus: Path | None = None
    """A folder that `diffutron data build` made."""
    build: CorpusSettings | None = None
    """Sources to build a corpus from, inside the run folder."""
    max_tokens: int = Field(default=512, ge=8)
    """Longest row, special tokens included."""
    long_texts: Literal["split", "sentences", "drop"] = "split"
    """Texts that do not fit into one row: split where a row is full, cut between sentences, or dropped."""
    chat: ChatSettings = ChatSettings()
    """How conversations are put, if the corpus holds any; only what the assistant says is learned."""
    order: Literal["shuffled", "short-answers-first"] = "shuffled"
    """Of the first pass over the data; later ones are shuffled."""
    layout: Literal["packed", "padded"] = "packed"
    """packed: rows lie end to end and see themselves only; padded: one text a line, slower, for comparison."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, values: Any) -> Any:
        """``path: my_texts/`` and ``conversations: my_answers.csv`` are sources of ``build``."""
        if not isinstance(values, dict) or not any(values.get(name) for name in _SHORT_FORMS):
            return values
        values = dict(values)
        build = dict(values.get("build") or {})
        if build.get("sources"):
            raise ValueError("path and conversations are short for build.sources; give one of them")
        given = {kind: values.pop(name, None) for name, kind in _SHORT_FORMS.items()}
        build["sources"] = [{"path": path, "kind": kind} for kind, path in given.items() if path]
        return {**values, "build": build}

    @model_validator(mode="after")
    def _one_of(self) -> TrainData:
        if (self.corpus is None) == (self.build is None):
            raise ValueError("data needs either corpus (a folder) or build (sources)")
        if self.build is not None and self.build.decontaminate is None:
            raise ValueError(
                "build.decontaminate must name the evaluation sets that must not be trained on, or say none"
            )
        return self


class TrainRecipe(Settings):
    """A training run."""

    model: str
    """What to start from: mini, mini-base, mini-instruct, a folder, or a hub id."""
    data: TrainData
    """What to train on."""
    objective: ObjectiveSettings
    """What is asked of the model."""
    masking: MaskingSettings = MaskingSettings()
    """What is hidden together, and how times are drawn."""
    lora: LoraSettings | None = None
    """Low-rank adapters; left out, every parameter is trained."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """How parameters move."""
    learning_rate: LearningRateSettings = LearningRateSettings()
    """How the rate moves."""
    batch_tokens: int = Field(default=4096, ge=8)
    """Tokens to an optimizer step."""
    micro_batch_tokens: int = Field(default=4096, ge=8)
    """Tokens to a forward pass; smaller takes less memory, and changes a result by no more than rounding, but where the
    encoder has dropout, whose draws belong to a pass."""
    train_tokens: int | None = Field(default=None, ge=1)
    """When to stop, in tokens."""
    epochs: float | None = Field(default=None, gt=0)
    """When to stop, in passes over the data."""
    checkpoint_every_tokens: int = Field(default=200_000, ge=1)
    """How much work a kill may cost."""
    evaluate_every_tokens: int | None = Field(default=None, ge=1)
    """How often the held-out loss is measured."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """How many checkpoints stay."""
    save_dtype: Literal["float32", "float16"] = "float32"
    """Precision of the final weights."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the products; auto: bfloat16 on GPUs that have it, float32 on CPUs."""
    average: float | None = Field(default=None, gt=0, lt=1)
    """Decay of a running average of the weights, which is then what is evaluated and saved."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    compile: bool = False
    """Compile the encoder's layers with torch.compile; needs a C++ compiler, and pays on GPUs."""
    workers: Literal["ddp", "fsdp"] | None = None
    """How the processes of `torchrun` share the work: each holds the model, or a shard of it."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Orders the data, hides the tokens, initialises the adapters."""

    @model_validator(mode="after")
    def _one_end(self) -> TrainRecipe:
        if (self.train_tokens is None) == (self.epochs is None):
            raise ValueError("a recipe needs either train_tokens or epochs")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> TrainRecipe:
        kind = self.objective.kind
        if kind == "count" and self.masking.unit != "token":
            raise ValueError("objective count hides an exact number of tokens; masking.unit must be token")
        if kind == "count" and self.masking.complementary:
            raise ValueError("masking.complementary needs a rate, not a count; take objective diffusion")
        linear = not isinstance(self.objective, DiffusionSettings) or self.objective.schedule == "linear"
        if self.masking.complementary and not linear:
            raise ValueError("masking.complementary needs objective.schedule linear")
        if kind in ("diffusion", "count") and self.masking.replace != "mask":
            raise ValueError("the likelihood bound needs masking.replace mask")
        if self.masking.complementary and self.masking.replace != "mask":
            raise ValueError("masking.complementary needs masking.replace mask")
        if self.workers == "fsdp" and self.optimizer.kind == "muon":
            raise ValueError("optimizer muon needs whole matrices; take workers ddp, or adamw")
        return self

    def total_tokens(self, tokens_in_data: int) -> int:
        return (
            self.train_tokens if self.train_tokens is not None else max(1, round((self.epochs or 0) * tokens_in_data))
        )
