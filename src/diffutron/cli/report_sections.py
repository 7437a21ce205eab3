"""What other ``eval`` commands printed with ``--json``, as sections of the page of ``eval report``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from diffutron.cli.report import change, interval, table, text_block, told, with_interval
from diffutron.errors import InputError

Result = dict[str, Any]


def read_result(path: Path, *, model: str, weights: str | None) -> Result:
    """What an ``eval`` command printed of a model.

    Args:
        weights: the model's :func:`~diffutron.model.checkpoint.weights_digest`.

    Raises:
        InputError: it cannot be read, is nothing that such a command printed, or does not measure ``model`` as it is.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--with {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    other = InputError(f"--with {path} is nothing that diffutron eval {', '.join(_SECTIONS)} printed with --json")
    if not isinstance(result, dict) or str(result.get("kind")) not in _SECTIONS:
        raise other
    try:
        measured = _models_of(result)
        section(result)
    except (KeyError, TypeError, ValueError, AttributeError):  # edited, or printed by another version
        raise other from None
    if model not in measured:
        raise InputError(f"--with {path} measures {', '.join(map(repr, measured)) or 'no model'}, not {model!r}")
    if measured[model] != weights:
        raise InputError(
            f"--with {path} measured other weights of {model!r}, {measured[model]}, than there are now, {weights}; "
            "measure again"
        )
    if result["kind"] == "chat":  # answers quote what was asked, and that may be anybody's
        own = {name: {key: value for key, value in each.items() if key != "answers"}
               for name, each in result["models"].items()}  # fmt: skip
        result = {**result, "models": own}
    return result


def section(result: Result) -> str:
    """A heading and tables."""
    title, body = _SECTIONS[result["kind"]]
    return f"<h2>{title}</h2>\n{body(result)}"


def _models_of(result: Result) -> dict[str, str | None]:
    """The weights of each model that a command measured."""
    found = result.get("models", [result])
    if isinstance(found, dict):
        return {name: each.get("weights") for name, each in found.items()}
    return {str(each.get("model")): each.get("weights") for each in found}


def _tasks(result: Result) -> str:
    rows = [
        (each["task"], each["metric"], told(each["value"], ".1%"), interval(each, ".1%"),
         told(each["standard_error"], ".1%"), told(each["mc_standard_error"], ".1%"), told(each["chance"], ".1%"),
         told(each["majority"], ".1%"), each["num_documents"], each["seed"], each["fingerprint"], each["verdict"])
        for each in result["tasks"]
    ]  # fmt: skip
    head = ("task", "metric", "score", "95 %", "stderr", "of the draws", "chance", "majority", "documents", "seed",
            "data", "")  # fmt: skip
    return table(head, rows)


def _generation(result: Result) -> str:
    return "\n".join(_written(name, result[name]) for name in ("unconditional", "prompted", "texts") if name in result)


def _written(name: str, found: Result) -> str:
    from diffutron.cli.quality import ROWS

    def cell(score: Result, form: str) -> str:
        if "reason" in score:
            return f"not measured ({score['reason']})"
        return told(score["value"], form) if score["low"] is None else with_interval(score, form)

    samples, real = found["samples"], found["real"]
    rows = [(title, cell(samples[row], form), cell(real[row], form)) for row, title, form in ROWS]
    texts = "\n".join(text_block(each) for each in found["texts"] if "prompt" in each)
    return table((f"{name}, {samples['num_texts']} texts", "written", "real text, as long"), rows) + "\n" + texts


def _probes(result: Result) -> str:
    rows = []
    for name in ("accuracy", "cosine", "ridge"):
        if (each := result.get(name)) is None:
            continue
        difference = each.get("difference")
        against = "" if difference is None else with_interval(difference, "+.3f")
        chance = "" if "chance" not in each else told(max(each["chance"], each["majority"]), ".3f")
        rows.append((name, told(each["value"], ".3f"), interval(each, ".3f"), against, chance, each["num_train"],
                     each["num_test"], each["seed"], each["fingerprint"]))  # fmt: skip
    head = ("probe", "score", "95 %", f"from {result.get('against') or 'no other'}", "chance or majority", "train",
            "test", "seed", "data")  # fmt: skip
    return table(head, rows)


def _chat(result: Result) -> str:
    from diffutron.cli.answers import COLUMNS

    rows = [
        (name, *(with_interval(own[column], ".1%") if own.get(column) else "" for column, _ in COLUMNS))
        for name, own in result["models"].items()
    ]
    return table((f"answers to {result['num']} questions, seed {result['seed']}", *dict(COLUMNS).values()), rows)


def _compare(result: Result) -> str:
    rows = []
    for each in result["models"]:
        bound, score = each["bound"], each["perplexity"]
        bits, nats = each.get("bits_difference"), each.get("nll_difference")
        lossy = f"{each['num_lossy']} of {bound['num_texts']}" if each["num_lossy"] else ""
        rows.append((
            each["model"], f"{each['num_parameters']:,}", told(bound["bits_per_character"], ".3f"),
            interval(bound, ".3f"), "" if bits is None else with_interval(bits, "+.3f"),
            told(score["perplexity"], ".2f"), interval(score, ".2f"), "" if nats is None else change(nats),
            lossy, told(each["characters_per_second"], ",.0f"), f"{each['weight_bytes'] / 1e6:.0f} MB",
            bound["num_texts"], bound["fingerprint"],
        ))  # fmt: skip
    head = ("model", "parameters", "bits a character, at most", "95 %", "from the first", "masked perplexity", "95 %",
            "from the first", "texts it loses a part of", "characters/s", "weights", "texts", "data")  # fmt: skip
    return table(head, rows)


def _ppl(result: Result) -> str:
    def row(name: str, each: Result) -> tuple[object, ...]:
        return name, told(each["perplexity"], ".2f"), interval(each, ".2f"), each["num_texts"], each["num_masked"]

    def rows() -> Iterator[tuple[object, ...]]:
        for each in result.get("curve", [result]):
            how = "" if each["replace"] == "mask" else f", {each['replace']}"
            yield row(f"{each['mask_rate']:.0%} of {each['unit']}s hidden{how}", each)
        for name, groups in result.items():
            if name.startswith("by "):
                yield from (row(f"{name}: {each['name']}", each) for each in groups)

    return table((Path(result["data"]).name, "masked perplexity", "95 %", "texts", "hidden"), list(rows()))


_SECTIONS: dict[str, tuple[str, Callable[[Result], str]]] = {
    "ppl": ("Masked perplexity, in parts", _ppl),
    "tasks": ("Tasks", _tasks),
    "generation": ("What it writes", _generation),
    "probes": ("Linear probes", _probes),
    "chat": ("Answers", _chat),
    "compare": ("Beside other models", _compare),
}
