"""The training loop: pre-training, continual pre-training and tuning differ only in what they pass to it."""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffutron.diffusion import MaskedBatch, MaskPlan, masked_nll
from diffutron.errors import InputError, TrainingError
from diffutron.model import Denoiser
from diffutron.model.families import encoder_linears
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.rows import Batch, Rows, collate, micro_batches, plan_epoch
from diffutron.training.average import WeightAverage
from diffutron.training.learning_rate import learning_rate_factor
from diffutron.training.masking import Masker
from diffutron.training.optimizer import OptimizerSet
from diffutron.training.precision import Precision, agreed_precision
from diffutron.training.recipe import TrainRecipe
from diffutron.training.state import CheckpointStore, Cursor, Trained
from diffutron.training.workers import Workers

log = logging.getLogger(__name__)

MAX_BAD_STEPS = 3


@dataclass(frozen=True)
class StepRecord:
    """What one optimizer step was: the line on the screen and the record in ``metrics.jsonl`` have these names.

    Attributes:
        loss: nats a hidden token, or a maskable token for a likelihood bound.
        loss_by_rate: nats a hidden token of the examples with up to 10 %, 20 %, … of their tokens hidden; None where
            there was none.
    """

    step: int
    tokens: int
    loss: float
    mask_rate: float
    learning_rate: float
    grad_norm: float
    tokens_per_second: float
    progress: float
    seconds_left: float
    loss_by_rate: list[float | None]


@dataclass(frozen=True)
class BadStep:
    """A step whose loss or gradient was not finite, so that it can be looked at: which examples, which pass."""

    step: int
    loss: float
    grad_norm: float
    epoch: int
    examples: list[int]


@dataclass(frozen=True)
class Hooks:
    """What runs beside the loop. ``evaluate`` runs every ``evaluate_every_tokens`` of the recipe, and at the end."""

    on_step: Callable[[StepRecord], None] = lambda _: None
    on_bad_step: Callable[[BadStep], None] = lambda _: None
    evaluate: Callable[[Cursor], None] = lambda _: None


def fit(
    denoiser: Denoiser, rows: Rows, codec: TextCodec, recipe: TrainRecipe, store: CheckpointStore,
    *, hooks: Hooks = Hooks(), workers: Workers = Workers(),
) -> Cursor:  # fmt: skip
    """Train ``denoiser``'s trainable parameters in place until the recipe's tokens are spent, from the newest
    checkpoint of ``store`` on if it has one.

    The loss of a step is one sum over all its micro-batches and workers, divided once by the whole step's count, so
    how a step is cut up changes nothing.

    Raises:
        InputError: the recipe asks for torch.compile, and there is no C++ compiler.
        CheckpointError: the newest checkpoint is of another run. StorageError: one could not be written.
        TrainingError: the loss was not finite three times in a row.
        KeyboardInterrupt: passed on, after a checkpoint was kept, unless a second signal did not wait for the step.
    """
    engine = Engine(denoiser, rows, codec, recipe, workers)
    trained = engine.trained
    cursor = store.resume(trained)
    total_tokens = recipe.total_tokens(int(rows.lengths.sum()))
    saved_at = evaluated_at = cursor.tokens
    evaluated_step = -1
    clock = _Clock(cursor.tokens)
    bad_steps = 0
    denoiser.train()
    # torchrun hands a signal on that its workers have had already, and the workers need each other to save.
    interrupt = _Interrupt(patient=workers.size > 1)
    try:
        for planned in planned_steps(rows, recipe, cursor):
            if cursor.tokens >= total_tokens:
                break
            taken = engine.take(planned, cursor, total_tokens)
            cursor = cursor.advanced(
                int(rows.lengths[planned.examples].sum()), epoch=planned.epoch, epoch_step=planned.epoch_step
            )
            cursor = replace(cursor, micro_batch_tokens=taken.micro_batch_tokens)
            bad_steps = 0 if taken.is_finite else bad_steps + 1
            if not taken.is_finite:
                hooks.on_bad_step(taken.as_bad_step(cursor.step, planned))
            if bad_steps == MAX_BAD_STEPS:
                raise TrainingError(
                    f"the loss was not finite {MAX_BAD_STEPS} times in a row (step {cursor.step}); lower "
                    "optimizer.learning_rate"
                )
            hooks.on_step(taken.as_record(cursor, total_tokens, speed=clock.speed(cursor.tokens)))
            every = recipe.evaluate_every_tokens
            if every is not None and cursor.tokens // every > evaluated_at // every:
                evaluated_at, evaluated_step = cursor.tokens, cursor.step
                engine.evaluate(hooks, cursor)
                denoiser.train()
                clock.restart(cursor.tokens)
            if cursor.tokens - saved_at >= recipe.checkpoint_every_tokens:
                saved_at = cursor.tokens
                store.save(cursor, trained)
            if workers.total([interrupt.requested])[0]:
                raise KeyboardInterrupt
        if cursor.tokens != saved_at:
            store.save(cursor, trained)
    except KeyboardInterrupt:
        # One that did not wait may have come in the middle of an update.
        if not interrupt.forced and cursor.tokens != saved_at:
            store.save(cursor, trained)
        raise
    finally:
        interrupt.release()
        denoiser.eval()
    if evaluated_step != cursor.step:
        engine.evaluate(hooks, cursor)
    if trained.average is not None:
        trained.average.adopt()
    return cursor


@dataclass(frozen=True)
class PlannedStep:
    """The examples of one optimizer step, and where it stands in its pass over the rows."""

    epoch: int
    epoch_step: int
    examples: NDArray[np.int64]


@dataclass(frozen=True)
class StepSums:
    """What the micro-batches of one step add up to."""

    loss: float
    mask_rate: float
    loss_by_rate: list[float | None]


@dataclass(frozen=True)
class TakenStep:
    """One optimizer step, done; or skipped, where loss or gradient was not finite.

    Attributes:
        micro_batch_tokens: what memory allowed, None if it is the recipe's.
    """

    sums: StepSums
    grad_norm: float
    learning_rate: float
    micro_batch_tokens: int | None

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.sums.loss) and math.isfinite(self.grad_norm)

    def as_record(self, cursor: Cursor, total_tokens: int, *, speed: float) -> StepRecord:
        return StepRecord(
            step=cursor.step, tokens=cursor.tokens, loss=self.sums.loss, mask_rate=self.sums.mask_rate,
            learning_rate=self.learning_rate, grad_norm=self.grad_norm, tokens_per_second=speed,
            progress=min(1.0, cursor.tokens / total_tokens), seconds_left=max(0, total_tokens - cursor.tokens) / speed,
            loss_by_rate=self.sums.loss_by_rate,
        )  # fmt: skip

    def as_bad_step(self, step: int, planned: PlannedStep) -> BadStep:
        return BadStep(step, self.sums.loss, self.grad_norm, planned.epoch, planned.examples.tolist())


class DenoisingLoss(nn.Module):
    """Encoder, head and loss as one module: under FSDP, whatever is sharded is whole only inside its forward pass."""

    def __init__(self, denoiser: Denoiser, precision: Precision) -> None:
        super().__init__()
        self.denoiser, self.precision = denoiser, precision

    def forward(self, batch: Batch, masked: MaskedBatch, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted sum, and each hidden token's nats."""
        attention_mask = batch.attention_mask
        if attention_mask is not None:
            attention_mask = attention_mask.to(masked.xt.device)
        with self.precision.context():
            features = self.denoiser.features(
                masked.xt, where=masked.is_masked, attention_mask=attention_mask, segments=batch.segments
            )
            nll = masked_nll(features, self.denoiser.decoder, masked, weight=weight)
        return nll.total, nll.token_nll


class Engine:
    """Forward and backward over one optimizer step, whatever it is cut into."""

    def __init__(
        self, denoiser: Denoiser, rows: Rows, codec: TextCodec, recipe: TrainRecipe, workers: Workers = Workers()
    ) -> None:
        self.rows, self.codec, self.recipe, self.workers = rows, codec, recipe, workers
        self.denoiser = denoiser
        self.objective = recipe.objective.build()
        self.masker = Masker(self.objective, recipe.masking, codec, recipe.seed)
        self.device = next(denoiser.parameters()).device
        self.precision = agreed_precision(recipe.precision, self.device, workers)
        _configure(denoiser, recipe)
        self.module = workers.prepare(DenoisingLoss(denoiser, self.precision))
        matrices = [f"model.{name}.weight" for name in encoder_linears(denoiser.model)]
        average = WeightAverage(denoiser, recipe.average) if recipe.average is not None else None
        optimizers = OptimizerSet(recipe.optimizer, denoiser, matrices=matrices, narrow=self.precision.narrow)
        self.trained = Trained(denoiser, optimizers, average, workers)

    def take(self, planned: PlannedStep, cursor: Cursor, total_tokens: int) -> TakenStep:
        """Do the step that begins at ``cursor``; one that is not finite changes nothing but the log."""
        optimizers, average = self.trained.optimizers, self.trained.average
        factor = learning_rate_factor(self.recipe.learning_rate, tokens=cursor.tokens, total_tokens=total_tokens)
        optimizers.set_factor(factor)
        # Dropout, where a model has any.
        torch.manual_seed((self.recipe.seed << 32) + (self.workers.rank << 24) + cursor.step)
        sums, limit = self.accumulate_within_memory(
            planned, progress=cursor.tokens / total_tokens, limit=cursor.micro_batch_tokens
        )
        taken = TakenStep(sums, optimizers.clip(), self.recipe.optimizer.learning_rate * factor, limit)
        if taken.is_finite:
            optimizers.step()
            if average is not None:
                average.update(cursor.step)
        else:
            log.warning("step %d: loss %s, gradient norm %s; skipped, examples %s", cursor.step + 1, sums.loss,
                        taken.grad_norm, planned.examples.tolist())  # fmt: skip
        optimizers.zero_grad()
        return taken

    def accumulate_within_memory(
        self, planned: PlannedStep, *, progress: float, limit: int | None
    ) -> tuple[StepSums, int | None]:
        """:meth:`accumulate`, with micro-batches halved as often as memory runs out.

        Returns:
            The step's sums, and the micro-batch size that worked, None if it is the recipe's.
        """
        while True:
            try:
                return self.accumulate(planned, progress=progress, limit=limit), limit
            except RuntimeError as error:
                size = self._micro_batch(limit)
                if not is_out_of_memory(error) or self.workers.size > 1 or size <= int(self.rows.lengths.max()):
                    raise
                limit = size // 2
                log.warning("out of memory with micro-batches of %d tokens; going on with %d, the step stays %d",
                            size, limit, self.recipe.batch_tokens)  # fmt: skip
            self.trained.optimizers.zero_grad()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _micro_batch(self, limit: int | None) -> int:
        """The recipe's size, unless memory once allowed less."""
        return min(limit or self.recipe.micro_batch_tokens, self.recipe.micro_batch_tokens)

    def accumulate(self, planned: PlannedStep, *, progress: float, limit: int | None = None) -> StepSums:
        """Leave the gradient of one optimizer step in the parameters."""
        prepared = self._own_parts(planned, progress, limit)
        counts = self.workers.total([
            sum(int(masked.is_masked.sum()) for _, masked, _ in prepared),
            sum(int(masked.can_mask.sum()) for _, masked, _ in prepared),
        ])  # fmt: skip
        denominator = max(1.0, counts[1] if self.objective.per_maskable else counts[0])
        by_rate = np.zeros((2, 10))
        total = 0.0
        for number, (batch, masked, plan) in enumerate(prepared, start=1):
            weight = batch.spread(plan.weight)
            with self.workers.gradients(last=number == len(prepared)):
                loss, token_nll = self.module(batch, masked.to(self.device), weight.to(self.device))
                # Workers average their gradients, and this is a sum.
                (loss * (self.workers.size / denominator)).backward()
            total += float(loss.detach())
            _add_by_rate(by_rate, batch.spread(plan.mask_rate)[masked.is_masked], token_nll)
        total, *rates = self.workers.total([total, *by_rate.ravel()])
        means = [nats / count if count else None for nats, count in zip(rates[:10], rates[10:], strict=True)]
        return StepSums(total / denominator, counts[0] / max(1.0, counts[1]), means)

    def _own_parts(
        self, planned: PlannedStep, progress: float, limit: int | None
    ) -> list[tuple[Batch, MaskedBatch, MaskPlan]]:
        """This worker's micro-batches with what is hidden in them, one after the other."""
        packed = self.recipe.data.layout == "packed"
        times = self.masker.times(planned.examples, epoch=planned.epoch, step=planned.epoch_step)
        places = {int(example): place for place, example in enumerate(planned.examples)}
        parts = micro_batches(planned.examples, self.rows.lengths, max_tokens=self._micro_batch(limit), packed=packed)
        prepared = []
        for turn in range(self.workers.rank, len(parts) + self.workers.rank, self.workers.size):
            # Workers meet in every pass of a sharded model: one that has run out goes on, but asks for nothing.
            spare = turn >= len(parts)
            part = parts[-1][-1:] if spare else parts[turn]
            batch = collate(self.rows, part.tolist(), self.codec, packed=packed)
            own = times[[places[example] for example in batch.examples]] if times is not None else None
            for masked, plan in self.masker(batch, epoch=planned.epoch, progress=progress, times=own):
                prepared.append((batch, _showing_all(masked) if spare else masked, plan))
        return prepared

    def evaluate(self, hooks: Hooks, cursor: Cursor) -> None:
        """Run the evaluation hook on the weights that count: the average, if there is one."""
        self.denoiser.eval()
        average = self.trained.average
        with average.applied() if average is not None else nullcontext(), self.workers.opened():
            hooks.evaluate(cursor)


def _configure(denoiser: Denoiser, recipe: TrainRecipe) -> None:
    if recipe.activation_checkpointing:
        model: Any = denoiser.model
        # transformers renamed it in 5.2x; the old name warns.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    if recipe.compile:
        compilers = (os.environ.get("CXX", "c++"), "g++", "clang++")
        if not any(map(shutil.which, compilers)):
            raise InputError("compile needs a C++ compiler, and none was found; install g++ or set compile=false")
        for layer in denoiser.layers:
            layer.compile()


def _showing_all(masked: MaskedBatch) -> MaskedBatch:
    nothing = torch.zeros_like(masked.is_masked)
    return MaskedBatch(masked.x0, masked.x0, nothing, nothing)


def _add_by_rate(sums: NDArray[np.float64], rates: Tensor, token_nll: Tensor) -> None:
    # A rate of exactly 10 % belongs to the first tenth.
    tenth = (rates.double() * 10).ceil().long().clamp(1, 10).numpy() - 1
    np.add.at(sums[0], tenth, token_nll.double().cpu().numpy())
    np.add.at(sums[1], tenth, 1.0)


def is_out_of_memory(error: RuntimeError) -> bool:
    """On a CPU torch has no error of its own for it."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def planned_steps(rows: Rows, recipe: TrainRecipe, cursor: Cursor) -> Iterator[PlannedStep]:
    """The steps from the cursor on, without end."""
    epoch, skip = cursor.epoch, cursor.epoch_step
    difficulty = rows.num_learned if recipe.data.order == "short-answers-first" else None
    while True:
        plan = plan_epoch(
            rows.lengths, seed=recipe.seed, epoch=epoch, batch_tokens=recipe.batch_tokens, difficulty=difficulty
        )
        for index in range(skip, len(plan)):
            yield PlannedStep(epoch, index, plan[index])
        epoch, skip = epoch + 1, 0


class _Interrupt:
    """Makes Ctrl-C and SIGTERM wait for the end of a step, so that a whole step is saved; a second does not wait,
    unless it is to be ``patient``."""

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, *, patient: bool = False) -> None:
        self.patient, self.requested, self.forced = patient, False, False
        on_main_thread = threading.current_thread() is threading.main_thread()
        self._before = {each: signal.signal(each, self._note) for each in self._SIGNALS} if on_main_thread else {}

    def _note(self, number: int, frame: object) -> None:
        if self.requested and not self.patient:
            self.forced = True
            raise KeyboardInterrupt
        self.requested = True

    def release(self) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)


class _Clock:
    """Tokens a second since the start, smoothed over the last minute or so."""

    def __init__(self, tokens: int) -> None:
        self.restart(tokens)

    def restart(self, tokens: int) -> None:
        """Forget the time until now, which was spent on something else."""
        self._marks = [(time.monotonic(), tokens)]

    def speed(self, tokens: int) -> float:
        now = time.monotonic()
        self._marks = [mark for mark in self._marks if now - mark[0] < 60][-200:] or self._marks[-1:]
        then, before = self._marks[0]
        self._marks.append((now, tokens))
        return (tokens - before) / max(now - then, 1e-9)
