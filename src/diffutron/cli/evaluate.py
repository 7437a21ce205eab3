"""``diffutron eval ppl`` and ``diffutron eval bound``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffutron.cli.console import JsonOption, ModelOption, OfflineOption, ProgressLine, SeedOption, print_json

if TYPE_CHECKING:
    from diffutron.evaluation import LikelihoodBound

app = typer.Typer(help="Measure a model.", no_args_is_help=True)

DataOption = Annotated[Path, typer.Option("--data", help="JSONL(.gz), parquet or txt, or a folder of them.")]
TextFieldOption = Annotated[str, typer.Option(help="The field that holds the text.")]


@app.callback()
def _group() -> None:
    """Measure a model."""


@app.command("ppl")
def ppl(
    data: DataOption,
    model: ModelOption = "mini",
    mask_rate: Annotated[float, typer.Option(help="Share of tokens hidden.")] = 0.15,
    text_field: TextFieldOption = "text",
    seed: SeedOption = 0,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Masked perplexity, with a 95 % interval over documents."""
    from diffutron.corpus import files_of, read_texts
    from diffutron.errors import InputError
    from diffutron.model.names import go_offline

    if offline:
        go_offline()
    if not 0 < mask_rate <= 1:
        raise InputError(f"--mask-rate must be above 0 and at most 1, not {mask_rate}")
    files_of(data)

    from diffutron.api import load

    lm = load(model)
    show = ProgressLine().counter("eval ppl", "windows")
    result = lm.perplexity(read_texts(data, text_field=text_field), mask_rate=mask_rate, seed=seed, on_progress=show)
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


@app.command("bound")
def bound(
    data: DataOption,
    model: ModelOption = "mini",
    draws: Annotated[int, typer.Option(help="Draws for each window; an even number.")] = 8,
    text_field: TextFieldOption = "text",
    seed: SeedOption = 0,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """The likelihood bound in bits per character, comparable between tokenizers."""
    from diffutron.corpus import files_of, read_texts
    from diffutron.errors import InputError
    from diffutron.model.names import go_offline

    if offline:
        go_offline()
    if draws < 2 or draws % 2:
        raise InputError(f"--draws must be an even number, at least 2, not {draws}")
    files_of(data)

    from diffutron.api import load

    lm = load(model)
    show = ProgressLine().counter("eval bound", "draws")
    result = lm.bound(read_texts(data, text_field=text_field), num_draws=draws, seed=seed, on_progress=show)
    if json:
        print_json({"model": model, "data": str(data), **result.as_dict()})
        return
    print(f"at most {bits(result)}")
    print(
        f"  nats a token {result.nats_per_token:.4f} | standard error from the draws {result.standard_error:.4f} bits"
    )
    print(
        f"  {result.num_texts} texts, {result.num_tokens} tokens, {result.num_characters} characters "
        f"| {result.num_draws} draws | seed {result.seed} | data {result.fingerprint}"
    )
    if result.num_unknown:
        print(f"  {result.num_unknown} tokens are <unk>: they cost nothing here, so the bound is too low")


def bits(result: LikelihoodBound) -> str:
    """``1.234 bits a character  (95 % 1.200 to 1.270)``."""
    return f"{result.bits_per_character:.4f} bits a character  (95 % {result.low:.4f} to {result.high:.4f})"
