"""The two ways to compute a LoRA layer, timed by shape: is the one that `merging_is_cheaper` picks the faster?

    python benchmarks/lora_paths.py [--repeats 7]

Forward and backward of one layer, float32, alternating; the peer is the thin way, which PEFT always takes. Ends with
one line of JSON; `ratio` is the median over shapes of PEFT's time over ours, and `thin_penalty` the constant that would
fit best here.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from diffutron.model.lora import THIN_PENALTY, merging_is_cheaper

# (out, in, rank): the four matrices of mmBERT-base with the seed's rank, and two of mini's.
SHAPES = ((2304, 768, 256), (768, 768, 256), (768, 1152, 256), (384, 384, 64), (1536, 384, 64), (768, 768, 16))
TOKENS = (64, 512, 1440, 4096)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    ratios, penalties, right, cases = [], [], 0, []
    for out, into, rank in SHAPES:
        for tokens in TOKENS:
            seconds = measure(out, into, rank, tokens, repeats)
            merged = merging_is_cheaper(tokens, out, into, rank)
            chosen = seconds["merged" if merged else "thin"]
            ratios.append(seconds["thin"] / chosen)
            near = abs(seconds["merged"] / seconds["thin"] - 1) < 0.05
            right += near or merged == (seconds["merged"] < seconds["thin"])
            # From both times: what a thin product's operation costs relative to a square one's.
            square = seconds["merged"] / (6 * out * into * (tokens + rank))
            thin = (seconds["thin"] - 4 * tokens * out * into * square) / (6 * tokens * rank * (out + into))
            penalties.append(thin / square)
            cases.append({"out": out, "in": into, "r": rank, "tokens": tokens, "merged_chosen": merged,
                          **{name: round(1e3 * value, 2) for name, value in seconds.items()}})  # fmt: skip
            print(f"{out:>5} x {into:<5} r={rank:<4} {tokens:>5} tokens: thin {1e3 * seconds['thin']:7.2f} ms, merged "
                  f"{1e3 * seconds['merged']:7.2f} ms, takes {'merged' if merged else 'thin'}", flush=True)  # fmt: skip
    print(json.dumps({
        "benchmark": "lora_paths", "ratio": round(statistics.median(ratios), 3),
        "right": right, "cases": len(cases), "thin_penalty_used": THIN_PENALTY,
        "thin_penalty": round(statistics.median(penalties), 2), "milliseconds": cases,
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__},
    }))  # fmt: skip


def measure(out: int, into: int, rank: int, tokens: int, repeats: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(out, into, generator=generator), torch.randn(out, generator=generator)
    a = torch.randn(rank, into, generator=generator).requires_grad_()
    b = torch.randn(out, rank, generator=generator).requires_grad_()
    x = torch.randn(tokens, into, generator=generator).requires_grad_()
    grad = torch.randn(tokens, out, generator=generator)

    def thin() -> Tensor:
        return F.linear(x, weight, bias) + F.linear(F.linear(x, a), b)

    def merged() -> Tensor:
        return F.linear(x, torch.addmm(weight, b, a), bias)

    times: dict[str, list[float]] = {"thin": [], "merged": []}
    for _ in range(repeats + 1):
        for name, way in (("thin", thin), ("merged", merged)):
            start = time.perf_counter()
            way().backward(grad)
            times[name].append(time.perf_counter() - start)
            x.grad = a.grad = b.grad = None
    return {name: statistics.median(values[1:]) for name, values in times.items()}


if __name__ == "__main__":
    main()
