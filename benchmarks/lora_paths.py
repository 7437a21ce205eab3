"""The three ways to compute a LoRA layer, timed by shape: is the one that `cheapest_way` picks the fastest?

    python benchmarks/lora_paths.py [--repeats 7]

Forward and backward of one layer, float32, alternating; the peer is the thin way, which PEFT always takes. Ends with
one line of JSON; `ratio` is the median over shapes of PEFT's time over ours.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from unittest import mock

import torch
from peft import LoraConfig, get_peft_model

from diffutron.model import lora
from diffutron.model.lora import THIN_PENALTY, Way, cheapest_way

# (out, in, rank): the four matrices of mmBERT-base with the seed's rank, and two of mini's.
SHAPES = ((2304, 768, 256), (768, 768, 256), (768, 1152, 256), (384, 384, 64), (1536, 384, 64), (768, 768, 16))
TOKENS = (64, 512, 1440, 4096)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    ratios, lost, cases = [], [], []
    for out, into, rank in SHAPES:
        for tokens in TOKENS:
            seconds = measure(out, into, rank, tokens, repeats)
            way = cheapest_way(tokens, out, into, rank)
            ratios.append(seconds[Way.THIN] / seconds[way])
            lost.append(seconds[way] / min(seconds.values()) - 1)
            times = {each.value: round(1e3 * value, 2) for each, value in seconds.items()}
            cases.append({"out": out, "in": into, "r": rank, "tokens": tokens, "way": way.value, "ms": times})
            print(f"{out:>5} x {into:<5} r={rank:<4} {tokens:>5} tokens: {times}, takes {way.value}", flush=True)
    print(json.dumps({
        "benchmark": "lora_paths", "ratio": round(statistics.median(ratios), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "median_loss_to_best": round(statistics.median(lost), 3), "worst_loss_to_best": round(max(lost), 3),
        "thin_penalty": THIN_PENALTY, "cases": cases,
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__},
    }))  # fmt: skip


def measure(out: int, into: int, rank: int, tokens: int, repeats: int) -> dict[Way, float]:
    """Median seconds of each way, one after the other in every round."""
    torch.manual_seed(0)
    holder = torch.nn.Sequential(torch.nn.Linear(into, out))
    layer = get_peft_model(holder, LoraConfig(r=rank, target_modules=["0"])).base_model.model[0]
    layer.__class__ = lora.LoraLinear
    x = torch.randn(tokens, into).requires_grad_()
    grad = torch.randn(tokens, out)
    times: dict[Way, list[float]] = {way: [] for way in Way}
    for _ in range(repeats + 1):
        for way in Way:
            with mock.patch.object(lora, "cheapest_way", lambda *shape, way=way: way):
                start = time.perf_counter()
                layer(x).backward(grad)
                times[way].append(time.perf_counter() - start)
            layer.zero_grad()
            x.grad = None
    return {way: statistics.median(values[1:]) for way, values in times.items()}


if __name__ == "__main__":
    main()
