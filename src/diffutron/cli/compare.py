"""``diffutron eval compare``: models side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from diffutron.cli.console import (
    DataOption,
    DrawsOption,
    JsonOption,
    OfflineOption,
    ProgressLine,
    SeedOption,
    TextFieldOption,
    check_mask_rates,
    count,
    interval,
    print_json,
    texts_of,
)

if TYPE_CHECKING:
    from diffutron.evaluation.side_by_side import Measured


def compare(
    models: Annotated[list[str], typer.Argument(metavar="A B …", help="Two models or more; names as for --model.")],
    data: DataOption,
    mask_rate: Annotated[
        float, typer.Option(callback=check_mask_rates, help="Share of tokens hidden, for masked perplexity.")
    ] = 0.15,
    draws: DrawsOption = 8,
    text_field: TextFieldOption = "text",
    seed: SeedOption = 0,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Put models side by side: bits a character, masked perplexity, speed, memory; differences are from the first."""
    from diffutron.evaluation.side_by_side import side_by_side

    texts = texts_of(data, text_field)
    show = ProgressLine().counters("eval compare", "windows")
    rows = []
    for row in side_by_side(
        models, texts, mask_rate=mask_rate, num_draws=draws, seed=seed, on_progress=show
    ):  # fmt: skip
        rows.append(row)
        if not json:
            print(_told(row, rows[0]), flush=True)
    if json:
        print_json({"kind": "compare", "data": str(data), "models": [row.as_dict() for row in rows]})
        return
    bound = rows[0].bound
    print(
        f"{bound.num_texts} texts, {bound.num_characters} characters | {draws} draws | mask rate {mask_rate} "
        f"| seed {seed} | data {bound.fingerprint}"
    )


def _told(row: Measured, first: Measured) -> str:
    bound, score = row.bound, row.perplexity
    spread = interval(bound.bits_per_character, bound.low, bound.high, ".4f")
    lines = [
        row.model,
        f"  {row.num_parameters:,} parameters, {row.num_pieces:,} pieces | {count(row.characters_per_second)} "
        f"characters/s | {count(row.weight_bytes)}B of weights, {count(row.peak_bytes)}B beside them",
        f"  at most {bound.bits_per_character:.4f} bits a character  ({spread})",
    ]
    if row.num_lossy:
        lines.append(
            f"    of {row.num_lossy} of {bound.num_texts} texts the tokenizer loses something (case, accents, unknown "
            "characters), which costs nothing here: too low"
        )
    if row.bits_difference:
        each = row.bits_difference
        lines.append(
            f"    {each.value:+.4f} from {first.model}  ({interval(each.value, each.low, each.high, '+.4f')}), "
            f"p = {each.p_value:.4f}"
        )
    spread = interval(score.perplexity, score.low, score.high, ".3f")
    lines.append(f"  masked perplexity {score.perplexity:.3f}  ({spread})")
    if row.nll_difference:
        each = row.nll_difference.as_change()
        lines.append(
            f"    {each.value:+.1%} from {first.model}  ({interval(each.value, each.low, each.high, '+.1%')}), "
            f"p = {each.p_value:.4f}"
        )
    elif row is not first:
        other = "another tokenizer" if score.tokenizer != first.perplexity.tokenizer else "texts cut elsewhere"
        lines.append(f"    {other} than {first.model}'s: not comparable with it")
    return "\n".join(lines)
