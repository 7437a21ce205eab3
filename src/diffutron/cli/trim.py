"""``diffutron trim MODEL --corpus FILE --out DIR``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffutron.cli.console import JsonOption, OfflineOption, ProgressLine, TextFieldOption, count, note, print_json
from diffutron.cli.evaluate import bits

if TYPE_CHECKING:
    from diffutron.evaluation import LikelihoodBound
    from diffutron.model import Loaded


def trim(
    model: Annotated[str, typer.Argument(help="mini, mini-base, a folder (an adapter is merged), or a hub id.")],
    corpus: Annotated[Path, typer.Option("--corpus", help="Texts to trim to: JSONL(.gz), parquet, txt, or a folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to make.")],
    pieces: Annotated[int | None, typer.Option(min=1, help="Keep so many pieces at most.")] = None,
    min_count: Annotated[int, typer.Option(min=1, help="Keep pieces that the corpus uses as often.")] = 1,
    coverage: Annotated[float, typer.Option(help="Keep the most used pieces up to this share of all tokens.")] = 1.0,
    measure: Annotated[
        Path | None, typer.Option("--measure", help="Texts to measure the likelihood bound on, before and after.")
    ] = None,
    text_field: TextFieldOption = "text",
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Cut a model's vocabulary to the pieces that a corpus uses: a smaller model, the same logits for what stays."""
    from diffutron.corpus import files_of, read_texts
    from diffutron.errors import InputError

    if not 0 < coverage <= 1:
        raise InputError(f"--coverage must be above 0 and at most 1, not {coverage}")
    for texts in (corpus, measure) if measure else (corpus,):
        files_of(texts)

    from diffutron.api import DiffusionLM
    from diffutron.model import load_model, save_model
    from diffutron.storage import check_new
    from diffutron.tokens.trim import trim as trim_model
    from diffutron.tokens.vocabulary import Budget

    check_new(out)

    def bound(loaded: Loaded, when: str) -> LikelihoodBound | None:
        if measure is None:
            return None
        show = ProgressLine().counter(f"trim | bound {when}", "draws")
        return DiffusionLM(loaded).bound(read_texts(measure, text_field=text_field), on_progress=show)

    line = ProgressLine()
    loaded = load_model(model)
    before = bound(loaded, "before")
    trimmed, report = trim_model(
        loaded,
        lambda: read_texts(corpus, text_field=text_field),
        Budget(size=pieces, min_count=min_count, coverage=coverage),
        on_progress=lambda what, number: line.show(f"trim | {count(number)} texts {what}"),
    )
    save_model(out, trimmed.denoiser, trimmed.tokenizer, trimmed.diffusion)
    after = bound(trimmed, "after")
    result: dict[str, Any] = {"model": str(out), "trimmed_from": model, "corpus": str(corpus), **report.as_dict()}
    if before and after:
        result |= {"bound_before": before.as_dict(), "bound_after": after.as_dict()}
    if json:
        print_json(result)
    else:
        print(
            f"{out}: {report.pieces_after:,} of {report.pieces_before:,} pieces, {report.parameters_after:,} of "
            f"{report.parameters_before:,} parameters ({report.parameters_after / report.parameters_before - 1:+.1%})"
        )
        print(f"  weights {count(report.bytes_after)}B in float32, {count(report.bytes_before)}B before")
        print(
            f"  {report.num_texts} texts: {report.coverage:.3%} of their tokens stayed, "
            f"{report.tokens_a_text_after:.1f} tokens a text, {report.tokens_a_text_before:.1f} before"
        )
        if before and after:
            print(f"  {bits(after)}, before: {bits(before)}")
    if report.num_changed:
        note(f"warning: {report.num_changed} texts of the corpus no longer decode to the same string")
