"""``diffutron eval ppl`` and ``diffutron eval bound``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffutron.cli import answers, compare, evaluation_report, probes, quality, tasks
from diffutron.cli.console import (
    AdapterOption,
    DataOption,
    DrawsOption,
    JsonOption,
    ModelOption,
    OfflineOption,
    ProgressLine,
    SeedOption,
    TextFieldOption,
    check_mask_rates,
    check_texts,
    interval,
    print_json,
    texts_of,
)

if TYPE_CHECKING:
    from diffutron.api import DiffusionLM
    from diffutron.evaluation import LikelihoodBound
    from diffutron.evaluation.perplexity import GroupScore, MaskedPerplexity

app = typer.Typer(help="Measure a model.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Measure a model."""


app.command("compare")(compare.compare)
app.command("report")(evaluation_report.report)
app.command("tasks")(tasks.tasks)
app.command("chat")(answers.chat)
app.command("generation")(quality.generation)
app.command("probes")(probes.probes)


CURVE = (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95)


@app.command("ppl")
def ppl(
    data: DataOption,
    model: ModelOption = "mini",
    adapter: AdapterOption = None,
    mask_rate: Annotated[
        list[float] | None,
        typer.Option(callback=check_mask_rates, help="Share of tokens hidden; may be repeated.  [default: 0.15]"),
    ] = None,
    curve: Annotated[bool, typer.Option("--curve", help="Mask rates from 5 to 95 %.")] = False,
    unit: Annotated[str, typer.Option(help="What is hidden as a whole: token, word or morpheme.")] = "token",
    replace: Annotated[str, typer.Option(help="What stands for it: mask, or 80-10-10 (BERT's way).")] = "mask",
    against: Annotated[
        str | None, typer.Option(help="A model to compare with, on the same masks: difference and p-value.")
    ] = None,
    by: Annotated[str | None, typer.Option(metavar="FIELD", help="Also a score for each value of this field.")] = None,
    frequency: Annotated[
        Path | None, typer.Option(metavar="DATA", help="Also a score by how often the hidden word stands in DATA.")
    ] = None,
    text_field: TextFieldOption = "text",
    seed: SeedOption = 0,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Masked perplexity, with a 95 % interval over documents."""
    from diffutron.corpus import files_of
    from diffutron.errors import InputError

    if curve and mask_rate:
        raise InputError("--curve has mask rates of its own; leave --mask-rate out, or repeat it instead")
    rates = CURVE if curve else tuple(mask_rate or (0.15,))
    for name, value, known in (
        ("unit", unit, ("token", "word", "morpheme")),
        ("replace", replace, ("mask", "80-10-10")),
    ):
        if value not in known:
            raise InputError(f"--{name} is {', '.join(known[:-1])} or {known[-1]}, not {value!r}")
    if len(rates) > 1 and (by or frequency):
        raise InputError("--by and --frequency split the score at one mask rate; give one")
    files_of(data)
    if frequency is not None:
        files_of(frequency)
    texts, groups = _texts_and_groups(data, text_field, by)

    from diffutron.api import load
    from diffutron.evaluation.hiding import AtRate
    from diffutron.evaluation.perplexity import by_group, check_same_tokenizer
    from diffutron.evaluation.perplexity import compare as compare_scores
    from diffutron.evaluation.word_frequency import count_words, perplexity_by_frequency
    from diffutron.model.checkpoint import weights_digest

    lm = load(model, adapters=adapter or ())
    other = load(against) if against else None
    if other is not None:
        check_same_tokenizer(other.name, other.codec, lm.name, lm.codec)

    def score(model: DiffusionLM, rate: float) -> MaskedPerplexity:
        show = ProgressLine().counter(f"eval ppl {rate:.0%} | {model.name}", "windows")
        kind: Any = {"unit": unit, "replace": replace}
        return model.perplexity(texts, mask_rate=rate, seed=seed, on_progress=show, **kind)

    found = []
    for rate in rates:
        result = score(lm, rate)
        difference = compare_scores(score(other, rate), result) if other else None
        found.append((result, difference))
    result, _ = found[0]
    parts: dict[str, list[GroupScore]] = {}
    if by:
        parts[f"by {by}"] = by_group(result, groups)
    if frequency is not None:
        hiding = AtRate(rates[0], unit, replace)  # type: ignore[arg-type]  # checked above
        counts = count_words(texts_of(frequency, text_field))
        parts["by frequency of the word"] = perplexity_by_frequency(
            lm.denoiser, lm.codec, texts, counts, hiding=hiding, seed=seed,
            on_progress=ProgressLine().counter("eval ppl by frequency", "windows"),
        )  # fmt: skip

    if json:
        rows = [
            {**result.as_dict(), **({"against": against, "difference": asdict(difference)} if difference else {})}
            for result, difference in found
        ]
        groups_json = {name: [asdict(each) for each in scores] for name, scores in parts.items()}
        body = rows[0] if len(rows) == 1 else {"curve": rows}
        print_json({
            "kind": "ppl", "model": lm.name, "weights": weights_digest(model, adapter or ()), "data": str(data),
            **body, **groups_json,
        })  # fmt: skip
        return
    for result, difference in found:
        spread = interval(result.perplexity, result.low, result.high, ".3f")
        print(f"masked perplexity {result.perplexity:.3f}  ({spread})")
        print(
            f"  nats a hidden token {result.nll:.4f} | top-1 {result.top1:.2%} | mask rate {result.mask_rate} "
            f"| {result.num_masked} hidden"
        )
        if difference:
            change = difference.as_change()
            print(
                f"  against {against}: {change.value:+.1%} perplexity "
                f"({interval(change.value, change.low, change.high, '+.1%')}), "
                f"{difference.value:+.4f} nats, p = {difference.p_value:.4f}"
            )
    print(f"  {result.num_texts} texts, {result.num_tokens} tokens | seed {result.seed} | data {result.fingerprint}")
    for name, scores in parts.items():
        print(f"{name}:")
        for each in scores:
            print(
                f"  {each.name:24} {each.perplexity:10.2f}  "
                f"({interval(each.perplexity, each.low, each.high, '.2f')})  "
                f"{each.num_texts} texts, {each.num_masked} hidden"
            )
    print("  comparable only between models with the same tokenizer")


def _texts_and_groups(data: Path, text_field: str, by: str | None) -> tuple[list[str], list[str]]:
    """The texts, and for each what it says in the field ``by``."""
    from diffutron.corpus import Fault
    from diffutron.corpus.read import read_all, warn_of_fault
    from diffutron.errors import InputError

    if by is None:
        return texts_of(data, text_field), []
    texts, groups, is_known = list[str](), list[str](), False
    for place, record in read_all(data):
        if isinstance(record.get(text_field), str):
            texts.append(record[text_field])
            groups.append(str(record.get(by, "-")))
            is_known |= by in record
        else:
            warn_of_fault(Fault(place, f"has no text in the field {text_field!r}"))
    if texts and not is_known:
        raise InputError(f"--by {by}: no record of {data} has that field")
    return check_texts(texts, data, text_field), groups


@app.command("bound")
def bound(
    data: DataOption,
    model: ModelOption = "mini",
    adapter: AdapterOption = None,
    draws: DrawsOption = 8,
    text_field: TextFieldOption = "text",
    seed: SeedOption = 0,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """The likelihood bound in bits per character, comparable between tokenizers."""
    texts = texts_of(data, text_field)

    from diffutron.api import load

    lm = load(model, adapters=adapter or ())
    show = ProgressLine().counter("eval bound", "windows")
    result = lm.bound(texts, num_draws=draws, seed=seed, on_progress=show)
    if json:
        print_json({"kind": "bound", "model": lm.name, "data": str(data), **result.as_dict()})
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
    spread = interval(result.bits_per_character, result.low, result.high, ".4f")
    return f"{result.bits_per_character:.4f} bits a character  ({spread})"
