"""Tokens a second of generation beside a plain LLaDA-style loop, at the same number of steps, in one run.

    python benchmarks/generate.py [--rounds 3] [--oracle-steps 4] [--shape mmbert-base --shape mini]

A prompt of 32 tokens and 128 new ones in blocks of 32, one token a step, greedy and at temperature 1; no top-p and no
repetition control on either side. The peer (diffutron.testing.llada_loop) computes every logit at every step and draws
with Gumbel noise in float64; its steps cost the same at any time, so a few are enough. Ours get cheaper as a block
fills, so whole blocks are measured. mmBERT-base's shape has random weights, `mini` its own. At last the quickest way of
ours that writes no worse than the loop at temperature 0.7 (scripts/compare_settings.py, rows `plain loop` and `fast, 16
calls`): two tokens a call, after real prompts. Ends with one line of JSON; `ratio` has the medians, ours over the
peer's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMaskedLM

from diffutron.corpus import read_texts
from diffutron.generation import (
    EXACT,
    FAST,
    Canvas,
    DenoiserReader,
    Generator,
    ReaderSettings,
    Request,
    SamplerSettings,
    denoise,
)
from diffutron.model import Denoiser, load_model
from diffutron.model.known import known_config
from diffutron.testing import llada_loop
from diffutron.tokens.codec import TextCodec

PROMPT, NEW, BLOCK = 32, 128, 32
SHORTLIST = 40_000
PROMPTS = Path(__file__).parents[1] / "models/mini/src/diffutron_mini/samples/speeches.jsonl.gz"
LOOP = 0.7
"""the loop's temperature where quality counts; at 0 it repeats itself"""
EQUAL = SamplerSettings(
    steps=NEW // 2, temperature=LOOP, top_p=None, block_length=BLOCK, repetition_penalty=1.0, no_repeat_ngram=0
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--oracle-steps", type=int, default=4)
    parser.add_argument("--shape", action="append", choices=("mmbert-base", "mini"))
    options = parser.parse_args()
    ratio, sides = dict[str, float](), dict[str, Any]()
    for shape in options.shape or ("mmbert-base", "mini"):
        denoiser, mask_id = denoiser_of(shape)
        prefix = "" if shape == "mmbert-base" else "mini_"
        readers = {"exact": reader_of(denoiser), "fast": reader_of(denoiser, FAST, shortlist=SHORTLIST)}
        for name, temperature in (("greedy", 0.0), ("t1", 1.0)):
            found: dict[str, list[float]] = {"plain": [], "exact": [], "fast": []}
            for number in range(options.rounds):
                found["plain"].append(oracle(denoiser, mask_id, temperature, number, options.oracle_steps))
                for kind, reader in readers.items():
                    found[kind].append(ours(reader, canvas_of(denoiser, mask_id, number), mask_id, temperature))
                told = ", ".join(f"{kind} {speeds[-1]:.2f}" for kind, speeds in found.items())
                print(f"{shape} {name}, tokens/s: {told}", flush=True)
            for kind in readers:
                key = f"{prefix}{kind}_{name}"
                ratio[key] = round(statistics.median(found[kind]) / statistics.median(found["plain"]), 2)
                sides[key] = {
                    side: [round(each, 2) for each in found[of]] for side, of in (("ours", kind), ("plain", "plain"))
                }
        if shape == "mini":
            found = equal_quality(options.rounds, options.oracle_steps)
            ratio["mini_equal_quality"] = round(statistics.median(found["ours"]) / statistics.median(found["plain"]), 2)
            sides["mini_equal_quality"] = {side: [round(each, 2) for each in speeds] for side, speeds in found.items()}
            print(f"mini, equal quality, tokens/s: {sides['mini_equal_quality']}", flush=True)
    if "mini_exact_greedy" in ratio:
        ratio["mini_exact"] = min(ratio["mini_exact_greedy"], ratio["mini_exact_t1"])
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads"
    print(json.dumps({"ratio": ratio, "tokens_per_second": sides, "machine": machine}))


def equal_quality(rounds: int, oracle_steps: int) -> dict[str, list[float]]:
    """Tokens a second over whole texts of ours, and over a few steps of the loop."""
    loaded = load_model("mini")
    codec = TextCodec(loaded.tokenizer)
    generator = Generator.of(loaded, codec, reading=FAST)
    found: dict[str, list[float]] = {"ours": [], "plain": []}
    for number, text in enumerate(itertools.islice(read_texts(PROMPTS), rounds)):
        request = Request(codec.decode(codec.encode(text)[: PROMPT - 1]), NEW, seed=number)
        canvas = generator.canvas(request)
        begun = time.perf_counter()
        llada_loop(
            loaded.denoiser, canvas.tokens, canvas.free, steps=NEW, block_length=BLOCK, mask_id=codec.mask_id,
            bias=generator.bias, temperature=LOOP, seed=number, stop_after=oracle_steps,
        )  # fmt: skip
        found["plain"].append(oracle_steps / (time.perf_counter() - begun))
        generator.complete([Request(request.prompt, 1)], EQUAL)  # the integers are made
        begun = time.perf_counter()
        last = list(generator.steps([request], EQUAL))[-1]
        found["ours"].append((len(last.tokens) - canvas.free[0]) / (time.perf_counter() - begun))
    return found


def denoiser_of(shape: str) -> tuple[Denoiser, int]:
    if shape == "mini":
        loaded = load_model("mini")
        return loaded.denoiser, int(loaded.tokenizer.mask_token_id)
    torch.manual_seed(0)
    return Denoiser(AutoModelForMaskedLM.from_config(known_config("jhu-clsp/mmBERT-base")).eval()), 4


def canvas_of(denoiser: Denoiser, mask_id: int, number: int) -> Canvas:
    generator = torch.Generator().manual_seed(number)
    prompt = torch.randint(10, denoiser.decoder.out_features, (PROMPT,), generator=generator).tolist()
    return Canvas((*prompt, *[mask_id] * NEW), tuple(range(PROMPT, PROMPT + NEW)), key=(number,))


def reader_of(denoiser: Denoiser, settings: ReaderSettings = EXACT, *, shortlist: int | None = None) -> DenoiserReader:
    size = denoiser.decoder.out_features
    columns = torch.arange(shortlist) if shortlist and shortlist < size else None
    return DenoiserReader(denoiser, pad_id=0, bias=torch.zeros(size), settings=settings, columns=columns)


def ours(reader: DenoiserReader, canvas: Canvas, mask_id: int, temperature: float) -> float:
    """Tokens a second over the first block."""
    settings = SamplerSettings(
        temperature=temperature, top_p=None, block_length=BLOCK, repetition_penalty=1.0, no_repeat_ngram=0
    )
    begun = time.perf_counter()
    taken = sum(1 for _ in itertools.islice(denoise(reader, [canvas], settings, mask_id=mask_id), BLOCK))
    return taken / (time.perf_counter() - begun)


def oracle(denoiser: Denoiser, mask_id: int, temperature: float, number: int, steps: int) -> float:
    canvas = canvas_of(denoiser, mask_id, number)
    begun = time.perf_counter()
    llada_loop(
        denoiser, canvas.tokens, canvas.free, steps=NEW, block_length=BLOCK, mask_id=mask_id,
        bias=torch.zeros(denoiser.decoder.out_features), temperature=temperature, seed=number, stop_after=steps,
    )  # fmt: skip
    return steps / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
