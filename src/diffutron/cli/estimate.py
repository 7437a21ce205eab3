"""``diffutron estimate RECIPE``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffutron.cli.console import JsonOption, OfflineOption, ProgressLine, SetOption, count, duration, print_json

if TYPE_CHECKING:
    from diffutron.training.estimate import Estimate
    from diffutron.training.measure import Measurement


def estimate(
    recipe: Annotated[Path, typer.Argument(help="A training recipe (YAML), or the name of one that ships.")],
    set_: SetOption = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Take real steps on random weights for about 20 seconds.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Parameters, memory and arithmetic of a recipe, before anything is downloaded."""
    from diffutron.cli.recipes import find_recipe
    from diffutron.recipe import load_recipe
    from diffutron.training.recipe import TrainRecipe

    settings = load_recipe(find_recipe(recipe), TrainRecipe, set_ or ())

    import torch

    from diffutron.training.estimate import estimate as estimate_recipe
    from diffutron.training.run import is_built

    if threads is not None:
        torch.set_num_threads(threads)
    corpus = settings.data.corpus
    own = Path("runs") / recipe.stem / "corpus"
    if settings.data.build is not None and is_built(settings.data.build, own):
        corpus = own
    expected = estimate_recipe(settings, corpus=corpus)
    measured = None
    if measure:
        from diffutron.training.measure import measure as measure_recipe

        line = ProgressLine(every_seconds=2.0)
        measured = measure_recipe(settings, expected, on_progress=lambda what: line.show(f"measuring | {what}"))
        if line.live:
            line.show(f"measured for {duration(measured.seconds)}", last=True)
    if json:
        print_json({**expected.as_dict(), "measured": measured.as_dict() if measured else None})
        return
    _print(expected)
    if measured is not None:
        _print_measured(expected, measured)


def _print(expected: Estimate) -> None:
    print(
        f"{expected.model}: {expected.total_parameters:,} parameters, "
        f"{expected.trainable_parameters:,} trained ({expected.trainable_percent:.2f} %)"
    )
    memory = expected.memory
    print(
        f"  memory {count(memory.total)}B at micro-batches of {expected.micro_batch_tokens} tokens, "
        f"{expected.precision} on {expected.device}:"
    )
    for name in ("weights", "merged_lora", "gradients", "optimizer", "activations", "logits"):
        print(f"    {name.replace('_', ' '):<12} {count(getattr(memory, name)):>7}B")
    print(f"  arithmetic {expected.flop_per_token / 1e9:.3f} GFLOP a token at mask rate {expected.mask_rate:.2f}")
    if expected.train_tokens is not None:
        flop = expected.flop_per_token * expected.train_tokens
        print(f"  {count(expected.train_tokens)} tokens: {flop / 1e15:.2f} PFLOP, {flop / 3.6e14:.1f} h at 100 GFLOP/s")
    else:
        print("  how many tokens: unknown until the corpus is built")


def _print_measured(expected: Estimate, measured: Measurement) -> None:
    print(
        f"measured in {measured.seconds:.0f} s, {measured.steps} steps with micro-batches of "
        f"{measured.micro_batch_tokens} tokens:"
    )
    if measured.micro_batch_tokens < expected.micro_batch_tokens:
        print("  (smaller than the recipe's, which would take too long; a run may be faster)")
    to_end = f", {measured.hours:.1f} h for {count(expected.train_tokens or 0)} tokens" if measured.hours else ""
    print(f"  {count(measured.tokens_per_second)} tok/s{to_end}")
    print(
        f"  peak memory {count(measured.peak_bytes)}B, {measured.peak_bytes / measured.estimated_bytes:.0%} of the "
        f"{count(measured.estimated_bytes)}B estimated for these"
    )
    print(
        f"  {measured.share_of_peak:.0%} of the machine's matrix peak, {measured.peak_flops / 1e9:,.0f} GFLOP/s in "
        f"{expected.precision}"
    )
