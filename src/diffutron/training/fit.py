"""The training loop: pre-training, continual pre-training and tuning differ only in what they pass to it."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from diffutron.diffusion import MaskedBatch, MaskPlan, Objective, example_noise, mask_tokens, masked_nll
from diffutron.errors import CheckpointError
from diffutron.model import Denoiser
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.rows import Batch, Rows, collate, micro_batches, plan_epoch
from diffutron.training.learning_rate import learning_rate_factor
from diffutron.training.optimizer import OptimizerSet
from diffutron.training.recipe import TrainRecipe
from diffutron.training.state import CheckpointStore, Cursor

log = logging.getLogger(__name__)

MAX_BAD_STEPS = 3


@dataclass(frozen=True)
class StepRecord:
    """What one optimizer step was: the line on the screen and the record in ``metrics.jsonl`` have these names."""

    step: int
    tokens: int
    loss: float
    mask_rate: float
    learning_rate: float
    grad_norm: float
    tokens_per_second: float
    progress: float
    seconds_left: float


@dataclass(frozen=True)
class Hooks:
    """What runs beside the loop. ``evaluate`` runs every ``evaluate_every_tokens`` of the recipe, and at the end."""

    on_step: Callable[[StepRecord], None] = lambda _: None
    evaluate: Callable[[Cursor], None] = lambda _: None


def fit(
    denoiser: Denoiser, rows: Rows, codec: TextCodec, recipe: TrainRecipe, store: CheckpointStore,
    *, resume: bool = True, hooks: Hooks = Hooks(),
) -> Cursor:  # fmt: skip
    """Train ``denoiser``'s trainable parameters in place until the recipe's tokens are spent.

    The loss of a step is one sum over all its micro-batches, divided once by the whole step's count, so how a step is
    cut into micro-batches changes nothing.

    Raises:
        CheckpointError: a checkpoint could not be written, or the loss was not finite three times in a row.
        KeyboardInterrupt: passed on, after a checkpoint was kept.
    """
    matrices = [f"model.{name}.weight" for name in _encoder_matrices(denoiser)]
    optimizers = OptimizerSet(recipe.optimizer, denoiser, matrices=matrices)
    if not resume:
        store.clear()
    cursor = store.resume(denoiser, optimizers) if resume else Cursor()
    objective = recipe.objective.build()
    total_tokens = recipe.total_tokens(int(rows.lengths.sum()))
    saved_at = evaluated_at = cursor.tokens
    clock = _Clock(cursor.tokens)
    bad_steps = 0
    denoiser.train()
    interrupt = _Interrupt()
    try:
        for epoch, epoch_step, examples in _steps(rows, recipe, cursor):
            if cursor.tokens >= total_tokens:
                break
            progress = cursor.tokens / total_tokens
            factor = learning_rate_factor(recipe.learning_rate, tokens=cursor.tokens, total_tokens=total_tokens)
            optimizers.set_factor(factor)
            torch.manual_seed((recipe.seed << 32) + cursor.step)  # dropout, where a model has any
            loss, mask_rate = accumulate_gradients(
                denoiser, rows, codec, recipe, objective, examples, epoch=epoch, progress=progress
            )
            grad_norm = optimizers.clip()
            if math.isfinite(loss) and math.isfinite(grad_norm):
                optimizers.step()
                bad_steps = 0
            else:
                bad_steps += 1
                log.warning("step %d: loss %s, gradient norm %s; skipped, examples %s", cursor.step + 1, loss,
                            grad_norm, examples.tolist())  # fmt: skip
                if bad_steps == MAX_BAD_STEPS:
                    raise CheckpointError(
                        f"the loss was not finite {MAX_BAD_STEPS} times in a row (step "
                        f"{cursor.step + 1}); lower optimizer.learning_rate"
                    )
            optimizers.zero_grad()
            tokens = cursor.tokens + int(rows.lengths[examples].sum())
            cursor = Cursor(cursor.step + 1, tokens, epoch, epoch_step + 1)
            speed = clock.speed(tokens)
            hooks.on_step(
                StepRecord(
                    step=cursor.step, tokens=tokens, loss=loss, mask_rate=mask_rate,
                    learning_rate=recipe.optimizer.learning_rate * factor, grad_norm=grad_norm,
                    tokens_per_second=speed, progress=min(1.0, tokens / total_tokens),
                    seconds_left=max(0, total_tokens - tokens) / speed,
                )
            )  # fmt: skip
            every = recipe.evaluate_every_tokens
            if every is not None and tokens // every > evaluated_at // every:
                evaluated_at = tokens
                denoiser.eval()
                hooks.evaluate(cursor)
                denoiser.train()
            if tokens - saved_at >= recipe.checkpoint_every_tokens:
                saved_at = tokens
                store.save(cursor, denoiser, optimizers)
            if interrupt.requested:
                raise KeyboardInterrupt
        store.save(cursor, denoiser, optimizers)
    except KeyboardInterrupt:
        store.save(cursor, denoiser, optimizers)
        raise
    finally:
        interrupt.release()
        denoiser.eval()
    hooks.evaluate(cursor)
    return cursor


def accumulate_gradients(
    denoiser: Denoiser, rows: Rows, codec: TextCodec, recipe: TrainRecipe, objective: Objective,
    examples: NDArray[np.int64], *, epoch: int, progress: float,
) -> tuple[float, float]:  # fmt: skip
    """Forward and backward over one optimizer step.

    Returns:
        The step's loss (nats a hidden token, or a maskable token for the diffusion bound) and the share hidden.
    """
    device = next(denoiser.parameters()).device
    parts = [
        hide(collate(rows, part.tolist(), codec), codec, objective, seed=recipe.seed, epoch=epoch, progress=progress)
        for part in micro_batches(examples, rows.lengths, max_padded_tokens=recipe.micro_batch_tokens)
    ]
    num_masked = sum(int(masked.is_masked.sum()) for _, masked, _ in parts)
    num_maskable = sum(int(masked.can_mask.sum()) for _, masked, _ in parts)
    denominator = max(1, num_maskable if objective.per_maskable else num_masked)
    total = 0.0
    for batch, masked, plan in parts:
        masked = to_device(masked, device)
        logits = denoiser(masked.xt, attention_mask=batch.attention_mask.to(device), where=masked.is_masked)
        nll = masked_nll(logits, masked, weight=plan.weight.to(device))
        (nll.total / denominator).backward()
        total += float(nll.total.detach())
    return total / denominator, num_masked / max(1, num_maskable)


def hide(
    batch: Batch, codec: TextCodec, objective: Objective, *, seed: int, epoch: int, progress: float
) -> tuple[Batch, MaskedBatch, MaskPlan]:
    """Hide tokens as the objective plans, with noise that belongs to (seed, pass, example)."""
    keys = [(epoch, example) for example in batch.examples]
    u, noise = example_noise(seed, keys, batch.x0.shape[1])
    plan = objective.plan(u, progress)
    masked = mask_tokens(batch.x0, plan.mask_rate, can_mask=batch.can_mask, noise=noise, mask_token_id=codec.mask_id)
    return batch, masked, plan


def to_device(batch: MaskedBatch, device: torch.device) -> MaskedBatch:
    return MaskedBatch(*(tensor.to(device) for tensor in (batch.x0, batch.xt, batch.can_mask, batch.is_masked)))


def _steps(rows: Rows, recipe: TrainRecipe, cursor: Cursor) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """(epoch, step in epoch, examples) from the cursor on, without end."""
    epoch, skip = cursor.epoch, cursor.epoch_step
    while True:
        plan = plan_epoch(rows.lengths, seed=recipe.seed, epoch=epoch, batch_tokens=recipe.batch_tokens)
        for index in range(skip, len(plan)):
            yield epoch, index, plan[index]
        epoch, skip = epoch + 1, 0


def _encoder_matrices(denoiser: Denoiser) -> list[str]:
    from diffutron.model.families import encoder_linears

    return encoder_linears(denoiser.model)


class _Interrupt:
    """Makes Ctrl-C and SIGTERM wait for the end of a step, so that a whole step is saved; a second does not wait."""

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        on_main_thread = threading.current_thread() is threading.main_thread()
        self._before = {each: signal.signal(each, self._note) for each in self._SIGNALS} if on_main_thread else {}

    def _note(self, number: int, frame: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def release(self) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)


class _Clock:
    """Tokens a second since the start, smoothed over the last minute or so."""

    def __init__(self, tokens: int) -> None:
        self._marks = [(time.monotonic(), tokens)]

    def speed(self, tokens: int) -> float:
        now = time.monotonic()
        self._marks = [mark for mark in self._marks if now - mark[0] < 60][-200:] or self._marks[-1:]
        then, before = self._marks[0]
        self._marks.append((now, tokens))
        return (tokens - before) / max(now - then, 1e-9)
