"""Tokens a second of generation beside a plain LLaDA-style loop, at the same number of steps, in one run.

    python benchmarks/generate.py [--rounds 3] [--oracle-steps 4] [--shape mmbert-base --shape mini]

A prompt of 32 tokens and 128 new ones in blocks of 32, one token a step, greedy and at temperature 1; no top-p and no
repetition control on either side. The peer (diffutron.testing.llada_loop) computes every logit at every step and draws
with Gumbel noise in float64; its steps cost the same at any time, so a few are enough. Ours get cheaper as a block
fills, so whole blocks are measured. mmBERT-base's shape has random weights, `mini` its own. Ends with one line of JSON;
`ratio` has the medians, ours over the peer's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import time
from typing import Any

import torch
from transformers import AutoModelForMaskedLM

from diffutron.generation import Canvas, ExactReader, SamplerSettings, denoise
from diffutron.model import Denoiser, load_model
from diffutron.model.known import known_config
from diffutron.testing import llada_loop

PROMPT, NEW, BLOCK = 32, 128, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--oracle-steps", type=int, default=4)
    parser.add_argument("--shape", action="append", choices=("mmbert-base", "mini"))
    options = parser.parse_args()
    ratio, sides = dict[str, float](), dict[str, Any]()
    for shape in options.shape or ("mmbert-base", "mini"):
        denoiser, mask_id = denoiser_of(shape)
        for name, temperature in (("greedy", 0.0), ("t1", 1.0)):
            ours, theirs = list[float](), list[float]()
            for number in range(options.rounds):
                theirs.append(oracle(denoiser, mask_id, temperature, number, options.oracle_steps))
                ours.append(exact(denoiser, mask_id, temperature, number))
                print(f"{shape} {name}: ours {ours[-1]:.2f}, plain loop {theirs[-1]:.2f} tokens/s", flush=True)
            key = f"exact_{name}" if shape == "mmbert-base" else f"mini_exact_{name}"
            ratio[key] = round(statistics.median(ours) / statistics.median(theirs), 2)
            sides[key] = {"ours": [round(each, 2) for each in ours], "plain": [round(each, 2) for each in theirs]}
    if "mini_exact_greedy" in ratio:
        ratio["mini_exact"] = min(ratio["mini_exact_greedy"], ratio["mini_exact_t1"])
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads"
    print(json.dumps({"ratio": ratio, "tokens_per_second": sides, "machine": machine}))


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


def exact(denoiser: Denoiser, mask_id: int, temperature: float, number: int) -> float:
    """Tokens a second over the first block."""
    reader = ExactReader(denoiser, pad_id=0, bias=torch.zeros(denoiser.decoder.out_features))
    settings = SamplerSettings(
        temperature=temperature, top_p=None, block_length=BLOCK, repetition_penalty=1.0, no_repeat_ngram=0
    )
    begun = time.perf_counter()
    steps = denoise(reader, [canvas_of(denoiser, mask_id, number)], settings, mask_id=mask_id)
    taken = sum(1 for _ in itertools.islice(steps, BLOCK))
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
