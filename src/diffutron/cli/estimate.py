"""``diffutron estimate RECIPE``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffutron.cli.console import JsonOption, OfflineOption, SetOption, count, print_json


def estimate(
    recipe: Annotated[Path, typer.Argument(help="A training recipe (YAML), or the name of one that ships.")],
    set_: SetOption = None,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Parameters, memory and arithmetic of a recipe, before anything is downloaded."""
    from diffutron.cli.recipes import find_recipe
    from diffutron.model.names import go_offline
    from diffutron.recipe import load_recipe

    if offline:
        go_offline()
    from diffutron.training.recipe import TrainRecipe

    settings = load_recipe(find_recipe(recipe), TrainRecipe, set_ or ())

    from diffutron.training.estimate import estimate as estimate_recipe

    result = estimate_recipe(settings)
    if json:
        print_json(result.as_dict())
        return
    print(
        f"{result.model}: {result.total_parameters:,} parameters, "
        f"{result.trainable_parameters:,} trained ({result.trainable_percent:.2f} %)"
    )
    print(f"  memory: weights {count(result.weights_bytes)}B, gradients and optimizer {count(result.optimizer_bytes)}B")
    print(f"  arithmetic: {result.gflop_per_token:.3f} GFLOP a token at mask rate {result.mask_rate:.2f}")
    if result.train_tokens:
        flop = result.gflop_per_token * 1e9 * result.train_tokens
        hours = flop / 1e11 / 3600
        print(f"  {count(result.train_tokens)} tokens: {flop / 1e15:.2f} PFLOP, {hours:.1f} h at 100 GFLOP/s")
