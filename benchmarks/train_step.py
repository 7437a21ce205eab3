"""Tokens a second and peak memory of one LoRA training step, beside what a user would pick instead.

    python benchmarks/train_step.py [--shape mmbert-base|mini] [--pairs 5] [--texts 8] [--best N]

Every side is a process of its own, started in turn, on the same documents, with the same trainable parameters, in
float32, clipping and AdamW included; it takes every step twice, and the second time counts, when memory is warm. The
peers are transformers' Trainer with PEFT on padded batches: all texts in one step as ours, the same texts in steps of
the size at which it is fastest, and with ModernBERT's `sparse_prediction`. Ends with one line of JSON; `ratio` is the
median over pairs of ours over the peer's.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from diffutron.training.machine import keep_memory, matrix_peak

SHAPES = ("mmbert-base", "mini")
MASK_RATE = 0.15
LEARNING_RATE = 1e-12
"""So small that the warm-up moves nothing, and both sides' losses can be compared."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="mmbert-base")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--best", type=int, help="the Trainer's best number of texts a step, if it is known")
    parser.add_argument("--side", choices=("ours", "trainer", "sparse"), help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=8, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options.side, options.shape, options.texts, options.batch, options.seed)))
        return

    def run(side: str, batch: int, seed: int) -> dict[str, Any] | None:
        command = [sys.executable, __file__, "--side", side, "--shape", options.shape, "--texts", str(options.texts),
                   "--batch", str(batch), "--seed", str(seed)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["killed"])[-1][:100]
            print(f"{side:>8} in steps of {batch}: did not survive ({reason})", flush=True)
            return None
        result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        print(f"{side:>8} in steps of {batch}: {result['tokens_per_second']:8.1f} tokens/s, "
              f"{result['peak_gb']:5.1f} GB", flush=True)  # fmt: skip
        return result

    peak = matrix_peak(torch.device("cpu"), seconds=5) / 1e9
    print(f"{options.shape}: matrix peak {peak:.0f} GFLOP/s with {torch.get_num_threads()} threads", flush=True)
    best = options.best or probe(run)
    sides: list[tuple[str, str, int]] = [("trainer", "trainer", options.texts), ("best", "trainer", best)]
    if options.shape == "mmbert-base":
        sides.append(("sparse", "sparse", options.texts))
    pairs: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {name: [] for name, _, _ in sides}
    for seed in range(options.pairs):
        ours = run("ours", options.texts, seed)
        assert ours is not None
        for name, side, batch in sides:
            theirs = run(side, batch, seed)
            while theirs is None and batch > 1:  # the most that it survives
                batch //= 2
                theirs = run(side, batch, seed)
            if theirs is not None:
                pairs[name].append((ours, theirs))
    print(json.dumps(summary(options.shape, options.texts, pairs, peak)))


def probe(run: Any) -> int:
    """The number of texts in a step with which the Trainer is fastest."""
    speeds = {}
    for size in (1, 2, 4):
        result = run("trainer", size, 99)
        speeds[size] = result["tokens_per_second"] if result else 0.0
    return max(speeds, key=lambda size: speeds[size])


def summary(
    shape: str, texts: int,
    pairs: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]], peak: float,
) -> dict[str, Any]:  # fmt: skip
    def median(values: list[float]) -> float:
        return round(statistics.median(values), 3)

    ours = [mine for mine, _ in pairs["trainer"]]
    return {
        "benchmark": "train_step", "shape": shape, "texts": texts, "pairs": len(ours),
        "ratio": {
            name: median([mine["tokens_per_second"] / theirs["tokens_per_second"] for mine, theirs in found])
            for name, found in pairs.items()
        },
        "memory_ratio": {
            name: median([mine["peak_gb"] / theirs["peak_gb"] for mine, theirs in found])
            for name, found in pairs.items()
        },
        "ours": {key: median([each[key] for each in ours]) for key in ("tokens_per_second", "peak_gb")},
        "peers": {
            name: {
                "steps_of": sorted({theirs["batch"] for _, theirs in found}),
                **{key: median([theirs[key] for _, theirs in found]) for key in ("tokens_per_second", "peak_gb")},
            }
            for name, found in pairs.items()
        },
        "matrix_peak_gflops": round(peak, 1),
        "share_of_peak": median([each["gflop"] / each["seconds"] / peak for each in ours]),
        "loss_difference": max(abs(mine["loss"] - theirs["loss"]) for mine, theirs in pairs["trainer"]),
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__},
    }  # fmt: skip


def measure(side: str, shape: str, texts: int, batch: int, seed: int) -> dict[str, Any]:
    """All documents once to warm up and once by the clock: in one step by us, in steps of ``batch`` by a peer."""
    warnings.simplefilter("ignore")
    if side == "ours":
        keep_memory()  # as ``diffutron train`` does
    model, rank = build(shape, sparse=side == "sparse")
    generator = np.random.default_rng(seed)
    documents = [row(generator, length) for length in lengths(generator, texts)]
    step = ours(model, rank, documents) if side == "ours" else trainer(model, rank, documents, batch)
    tokens = sum(map(len, documents))
    return {
        "side": side, "batch": batch, "tokens": tokens, "seconds": step.seconds, "loss": step.loss,
        "tokens_per_second": tokens / step.seconds, "gflop": step.gflop,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }  # fmt: skip


def lengths(generator: np.random.Generator, texts: int) -> list[int]:
    """16 to 512 tokens, 180 on average over many; every draw holds the same spread, so that pairs can be compared."""
    quantiles = (np.arange(texts) + generator.random(texts)) / texts
    drawn = -170 * np.log1p(-quantiles) + 16
    return [int(length) for length in np.clip(drawn, 16, 512)]


def row(generator: np.random.Generator, length: int) -> np.ndarray:
    return generator.integers(10, 20_000, length).astype(np.int32)


def build(shape: str, *, sparse: bool) -> tuple[Any, int]:
    """The encoder with random weights: what a step costs does not depend on them."""
    from transformers import AutoModelForMaskedLM

    if shape == "mini":
        from diffutron.model import load_model

        return load_model("mini-base").denoiser.model, 64
    from diffutron.model.known import known_config

    config = known_config("jhu-clsp/mmBERT-base")
    config.sparse_prediction = sparse
    with torch.device("meta"):
        model = AutoModelForMaskedLM.from_config(config)
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, param in model.named_parameters():
            param.copy_(torch.randn(param.shape, generator=generator) * 0.02 if param.ndim > 1 else
                        torch.ones_like(param) * ("norm" in name))  # fmt: skip
    model.tie_weights()
    rotary = model.model.rotary_emb
    fresh = type(rotary)(config)
    for name, buffer in fresh.named_buffers():
        setattr(rotary, name, buffer)
    return model, 256


def hide(tokens: np.ndarray, place: int) -> np.ndarray:
    """Which tokens of a document are hidden: the same on both sides."""
    return np.random.default_rng((place, len(tokens))).random(len(tokens)) < MASK_RATE


def ours(model: Any, rank: int, documents: list[np.ndarray]) -> SimpleNamespace:
    from torch.utils.flop_counter import FlopCounterMode

    from diffutron.diffusion import MaskPlan
    from diffutron.diffusion import hide as hide_tokens
    from diffutron.model import Denoiser, LoraSettings, add_lora
    from diffutron.recipe import check
    from diffutron.tokens.rows import Rows
    from diffutron.training.fit import Engine, PlannedStep
    from diffutron.training.recipe import TrainRecipe

    denoiser = Denoiser(model)
    add_lora(denoiser, LoraSettings(r=rank, alpha=rank), seed=0, base_name="base")
    denoiser.train()
    recipe = check(
        {"model": "base", "data": {"corpus": ".", "max_tokens": 512}, "objective": {"kind": "mlm"},
         "lora": {"r": rank, "alpha": rank}, "train_tokens": 1, "micro_batch_tokens": 4096,
         "optimizer": {"learning_rate": LEARNING_RATE}},
        TrainRecipe, place="benchmark",
    )  # fmt: skip
    rows = Rows(np.concatenate(documents), np.cumsum([0, *map(len, documents)]))
    codec: Any = SimpleNamespace(mask_id=4, pad_id=0)
    engine = Engine(denoiser, rows, codec, recipe)

    def masker(batch: Any, **_: Any) -> Any:
        is_masked = torch.from_numpy(np.concatenate([hide(rows[i], i) for i in batch.examples]))[None]
        can_mask = torch.ones_like(is_masked)
        rate = torch.full((len(batch.examples),), MASK_RATE, dtype=torch.float64)
        plan = MaskPlan(rate, torch.ones_like(rate))
        yield hide_tokens(batch.x0, is_masked, can_mask=can_mask, mask_token_id=4), plan

    class Fixed:
        times = staticmethod(lambda *_, **__: None)
        __call__ = staticmethod(masker)

    engine.masker = Fixed()  # type: ignore[assignment]

    examples = np.arange(len(documents))

    def step() -> float:
        loss = engine.accumulate(PlannedStep(0, 0, examples), progress=0.0).loss
        engine.trained.optimizers.clip()
        engine.trained.optimizers.step()
        engine.trained.optimizers.zero_grad()
        return loss

    step()
    start = time.perf_counter()
    loss = step()
    seconds = time.perf_counter() - start
    with FlopCounterMode(display=False) as counter:
        engine.accumulate(PlannedStep(0, 0, examples), progress=0.0)
    return SimpleNamespace(seconds=seconds, loss=loss, gflop=counter.get_total_flops() / 1e9)


def trainer(model: Any, rank: int, documents: list[np.ndarray], batch: int) -> SimpleNamespace:
    import tempfile

    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, TrainerCallback, TrainingArguments

    targets = ["Wqkv", "Wo", "Wi"] if model.config.model_type == "modernbert" else [
        "query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"
    ]  # fmt: skip
    torch.manual_seed(0)
    peft_model = get_peft_model(
        model, LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=targets, bias="none")
    )

    def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(each["ids"]) for each in examples)
        input_ids = torch.zeros(len(examples), longest, dtype=torch.long)
        attention_mask, labels = torch.zeros_like(input_ids), torch.full_like(input_ids, -100)
        for line, each in enumerate(examples):
            ids = torch.from_numpy(each["ids"].astype(np.int64))
            is_masked = torch.from_numpy(hide(each["ids"], each["place"]))
            labels[line, : len(ids)] = torch.where(is_masked, ids, -100)
            input_ids[line, : len(ids)] = torch.where(is_masked, 4, ids)
            attention_mask[line, : len(ids)] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}

    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

    data = [{"ids": text, "place": place} for place, text in enumerate(documents)]

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder, per_device_train_batch_size=batch, num_train_epochs=1, save_strategy="no", report_to=[],
                remove_unused_columns=False, logging_strategy="no", use_cpu=True, disable_tqdm=True,
                dataloader_pin_memory=False, learning_rate=LEARNING_RATE,
            )  # fmt: skip
            return float(
                Trainer(peft_model, arguments, train_dataset=data, data_collator=collate, callbacks=[Clock()])
                .train().training_loss
            )  # fmt: skip

    run()
    marks.clear()
    loss = run()
    # From the beginning of each step to its end; reading data between them is not counted.
    return SimpleNamespace(seconds=sum(marks[1::2]) - sum(marks[::2]), loss=loss, gflop=0.0)


if __name__ == "__main__":
    main()
