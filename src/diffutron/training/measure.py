"""How fast a recipe runs on this machine: real steps on its shapes, with weights and tokens that mean nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForMaskedLM, PreTrainedConfig, PreTrainedModel

from diffutron.model import Denoiser, add_lora
from diffutron.model.known import config_of
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.rows import Rows
from diffutron.training.estimate import Estimate, check_length, estimate
from diffutron.training.fit import Engine, PlannedStep
from diffutron.training.machine import PeakMemory, default_device, matrix_peak
from diffutron.training.recipe import TrainRecipe


@dataclass(frozen=True)
class Measurement:
    """Speed and memory of a recipe's steps on this machine.

    Attributes:
        micro_batch_tokens: of the steps measured; the recipe's, unless those would have taken too long.
        tokens_per_second: with the recipe's own number of optimizer updates.
        hours: to the end of the run; None where its length is not known.
        peak_bytes: what the steps took beyond what the process held before. On Linux a process keeps blocks that were
            freed, so on a CPU this may be a third more than the estimate.
        estimated_bytes: what :func:`estimate` says for the same micro-batches.
        peak_flops: operations a second of a plain product of matrices.
        share_of_peak: of those, how many the steps used on arithmetic that counts.
    """

    seconds: float
    steps: int
    micro_batch_tokens: int
    tokens_per_second: float
    hours: float | None
    peak_bytes: int
    estimated_bytes: int
    peak_flops: float
    share_of_peak: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    recipe: TrainRecipe, expected: Estimate, *, seconds: float = 20.0,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Measurement:  # fmt: skip
    """Take real steps for about ``seconds``; longer if a single row of the recipe takes longer.

    Args:
        expected: the recipe's estimate.
        on_progress: gets what is being done, in a few words.
    """
    begun = time.monotonic()
    device = default_device()
    length = recipe.data.max_tokens
    recipe = recipe.model_copy(update={"masking": recipe.masking.model_copy(update={"unit": "token"})})
    on_progress("matrix peak")
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[expected.precision]
    peak_flops = matrix_peak(device, dtype=dtype)
    with PeakMemory(device) as memory:
        on_progress("random weights")
        config = config_of(recipe.model)
        denoiser = Denoiser(random_model(config, device), name=recipe.model)
        check_length(recipe, denoiser)
        if recipe.lora is not None:
            add_lora(denoiser, recipe.lora, seed=recipe.seed, base_name=recipe.model)
        else:
            denoiser.requires_grad_(True)
        whole = max(1, recipe.micro_batch_tokens // length)
        engine = Engine(denoiser, _random_rows(config.vocab_size, whole, length), Numbers(config.vocab_size), recipe)
        denoiser.train()
        on_progress("first step")
        first = take_step(engine, np.arange(1), number=0)  # starts threads and allocators
        left = seconds - (time.monotonic() - begun)
        rows = max(1, min(whole, int(left / 2 / sum(first))))
        steps = [first] if left < sum(first) else []  # one row takes all the time there is
        while not steps or time.monotonic() - begun + sum(steps[-1]) < seconds:
            on_progress(f"step {len(steps) + 1}")
            steps.append(take_step(engine, np.arange(rows), number=len(steps) + 1))
    tokens = rows * length
    at_size = expected if rows == whole else estimate(recipe, micro_batch_tokens=tokens)
    mean_pass, mean_update = np.mean(steps, axis=0).tolist()
    speed = recipe.batch_tokens / (mean_pass * recipe.batch_tokens / tokens + mean_update)
    return Measurement(
        seconds=time.monotonic() - begun, steps=len(steps), micro_batch_tokens=tokens, tokens_per_second=speed,
        hours=expected.train_tokens / speed / 3600 if expected.train_tokens else None, peak_bytes=memory.bytes,
        estimated_bytes=at_size.memory.total, peak_flops=peak_flops,
        share_of_peak=at_size.flop_per_token * tokens / mean_pass / peak_flops,
    )  # fmt: skip


def take_step(engine: Engine, examples: NDArray[np.int64], *, number: int) -> tuple[float, float]:
    """One optimizer step on ``examples``; seconds of its forward and backward passes, and of its update."""
    start = time.monotonic()
    engine.accumulate(PlannedStep(number, 0, examples), progress=1.0)
    between = time.monotonic()
    engine.trained.optimizers.clip()
    engine.trained.optimizers.step()
    if engine.trained.average is not None:
        engine.trained.average.update(number)
    engine.trained.optimizers.zero_grad()
    if engine.device.type == "cuda":
        torch.cuda.synchronize(engine.device)
    return between - start, time.monotonic() - between


def random_model(config: PreTrainedConfig, device: torch.device) -> PreTrainedModel:
    """A model of this shape with small random weights; transformers' own draw takes a minute for 300M of them."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForMaskedLM.from_config(config)
    model.to_empty(device=device)
    model.tie_weights()
    with torch.no_grad():
        for name, param in model.named_parameters():
            if param.ndim > 1:
                param.uniform_(-0.035, 0.035)  # a standard deviation of 0.02
            else:
                param.fill_(0.0 if name.endswith("bias") else 1.0)
        for module in model.modules():
            if any(True for _ in module.buffers(recurse=False)):  # positions, rotary frequencies
                model._init_weights(module)
    return model


class Numbers(TextCodec):
    """A codec of ids without texts, where no tokenizer is at hand."""

    def __init__(self, size: int) -> None:
        self.start_id, self.pad_id, self.end_id, self.mask_id, self.unk_id = 0, 1, 2, 3, None
        self._size = size

    def __len__(self) -> int:
        return self._size

    @cached_property
    def special_ids(self) -> frozenset[int]:
        return frozenset(range(4))


def _random_rows(vocabulary: int, rows: int, length: int) -> Rows:
    tokens = np.random.default_rng(0).integers(4, vocabulary, rows * length, dtype=np.int32)
    return Rows(tokens, np.arange(rows + 1, dtype=np.int64) * length)
