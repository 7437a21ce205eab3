"""What 8-bit layers cost: masked perplexity of a model and of the same in 8 bits, on the same hidden tokens.

    python scripts/measure_int8.py --data data/heldout/wiki_exams_para.jsonl.gz [--model mini] [--texts 150]

Prints, for each mask rate, both perplexities with their intervals, the paired change, and its p-value. What `--fast`
does beside that, remembering keys and values, is measured by what it writes: scripts/compare_settings.py, row `fast`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from diffutron.corpus import read_texts
from diffutron.corpus.draws import text_digest
from diffutron.errors import DiffutronError
from diffutron.evaluation import masked_perplexity
from diffutron.evaluation.perplexity import compare
from diffutron.model import load_model
from diffutron.model.int8 import in_int8
from diffutron.tokens.codec import TextCodec

RATES = (0.15, 0.5, 0.85)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a file or folder of held-out texts")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--texts", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        measure(options)
    except DiffutronError as error:
        sys.exit(f"error: {error}")


def measure(options: argparse.Namespace) -> None:
    loaded = load_model(options.model)
    codec = TextCodec(loaded.tokenizer)
    texts = sorted(set(read_texts(options.data)), key=text_digest)[: options.texts]
    lighter = in_int8(loaded.denoiser)
    print("| mask rate | 32 bits | 8 bits | change | p |\n|---|---|---|---|---|")
    for rate in RATES:
        whole, light = (
            masked_perplexity(each, codec, texts, mask_rate=rate, seed=options.seed)
            for each in (loaded.denoiser, lighter)
        )
        change = compare(whole, light).as_change()
        told = " | ".join(f"{each.perplexity:.1f} ({each.low:.1f} to {each.high:.1f})" for each in (whole, light))
        print(
            f"| {rate:g} | {told} | {change.value:+.2%} ({change.low:+.2%} to {change.high:+.2%}) "
            f"| {change.p_value:.2g} |"
        )
    print(f"\n{whole.num_texts} texts, fingerprint {whole.fingerprint}, seed {options.seed}")


if __name__ == "__main__":
    main()
