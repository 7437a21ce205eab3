"""``diffutron merge ADAPTER --out DIR``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffutron.cli.console import JsonOption, OfflineOption, print_json


def merge(
    adapter: Annotated[str, typer.Argument(help="A PEFT adapter folder, or an embedded model's name.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to make.")],
    dtype: Annotated[str, typer.Option(help="float32 or float16.")] = "float32",
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Fold an adapter into its base: a plain checkpoint for AutoModelForMaskedLM, head and tied weights intact."""
    from diffutron.errors import InputError

    if dtype not in ("float32", "float16"):
        raise InputError(f"--dtype is float32 or float16, not {dtype!r}")
    import torch

    from diffutron.model import load_model, save_model
    from diffutron.storage import check_new

    check_new(out)

    loaded = load_model(adapter)
    save_model(out, loaded.denoiser, loaded.tokenizer, loaded.diffusion, dtype=getattr(torch, dtype))
    parameters = sum(param.numel() for param in loaded.denoiser.parameters())
    if json:
        print_json({"model": str(out), "parameters": parameters, "dtype": dtype})
    else:
        print(out)
