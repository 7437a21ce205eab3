"""``diffutron eval ppl``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffutron.cli.console import JsonOption, ModelOption, OfflineOption, ProgressLine, SeedOption, duration, print_json

app = typer.Typer(help="Measure a model.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Measure a model."""


@app.command("ppl")
def ppl(
    data: Annotated[Path, typer.Option("--data", help="JSONL(.gz), parquet or txt, or a folder of them.")],
    model: ModelOption = "mini",
    mask_rate: Annotated[float, typer.Option(help="Share of tokens hidden.")] = 0.15,
    text_field: Annotated[str, typer.Option(help="The field that holds the text.")] = "text",
    seed: SeedOption = 0,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Masked perplexity, with a 95 % interval over documents."""
    import time

    from diffutron.corpus import files_of, read_texts
    from diffutron.errors import InputError
    from diffutron.model.names import go_offline

    if offline:
        go_offline()
    if not 0 < mask_rate <= 1:
        raise InputError(f"--mask-rate must be above 0 and at most 1, not {mask_rate}")
    files_of(data)

    from diffutron.api import load

    line, start = ProgressLine(), time.monotonic()

    def progress(done: int, total: int) -> None:
        left = (time.monotonic() - start) / done * (total - done)
        line.show(f"eval ppl | {done}/{total} windows | eta {duration(left)}", last=done == total and line.live)

    lm = load(model)
    result = lm.perplexity(
        read_texts(data, text_field=text_field), mask_rate=mask_rate, seed=seed, on_progress=progress
    )
    if json:
        print_json({"model": model, "data": str(data), **result.as_dict()})
        return
    print(f"masked perplexity {result.perplexity:.3f}  (95 % {result.low:.3f} to {result.high:.3f})")
    print(f"  nats a hidden token {result.nll:.4f} | top-1 {result.top1:.2%} | mask rate {result.mask_rate}")
    print(
        f"  {result.num_texts} texts, {result.num_tokens} tokens, {result.num_masked} hidden | seed {result.seed} "
        f"| data {result.fingerprint}"
    )
    print("  comparable only between models with the same tokenizer")
