"""``diffutron eval chat``: answers beside those that were wanted, and instructions that can be checked."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from diffutron.cli.console import (
    AdapterOption,
    JsonOption,
    ModelOption,
    OfflineOption,
    ProgressLine,
    SeedOption,
    note,
    print_json,
)
from diffutron.errors import DataError

if TYPE_CHECKING:
    from diffutron.corpus.conversations import Conversation
    from diffutron.evaluation.answers import AnswerScores
    from diffutron.generation.chat import Chat


def chat(
    data: Annotated[Path | None, typer.Option(help="Conversations whose last answers are wanted.")] = None,
    model: ModelOption = "mini-instruct",
    adapter: AdapterOption = None,
    against: Annotated[str | None, typer.Option(help="Another model, compared answer by answer.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="Only conversations of this source; repeatable.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, chosen by a hash.")] = None,
    template: Annotated[
        str, typer.Option(help="turkish, tags (Diffutron's), a file of Jinja, or model: what it was trained with.")
    ] = "model",
    max_new_tokens: Annotated[int, typer.Option(help="The most an answer may have, in tokens.")] = 64,
    steps: Annotated[int | None, typer.Option(help="Denoiser calls an answer; one a token unless given.")] = None,
    block_length: Annotated[int, typer.Option(help="Tokens to a block.")] = 32,
    temperature: Annotated[float, typer.Option(help="0 takes the most probable token.")] = 0.0,
    end_penalty: Annotated[float, typer.Option(help="Nats against ending an answer; below 0, in favour.")] = 0.0,
    fitting: Annotated[
        bool, typer.Option("--fitting", help="Only questions that fit into every model's context, with room to answer.")
    ] = False,
    show: Annotated[int, typer.Option(min=0, help="Print so many answers.")] = 0,
    seed: SeedOption = 0,
    json: JsonOption = False,
    offline: OfflineOption = False,
) -> None:
    """Judge answers: exact match, words and chrF against the wanted ones, own endings, instructions followed."""
    from diffutron.corpus.draws import draw
    from diffutron.evaluation.answers import asked, compare_answers, nearest_sentence, reply_to, score_answers
    from diffutron.generation.chat import Reply
    from diffutron.generation.sampler import SamplerSettings
    from diffutron.model.checkpoint import weights_digest
    from diffutron.recipe import check

    sampler = {"steps": steps, "block_length": block_length, "temperature": temperature, "end_penalty": end_penalty}
    settings = check(sampler, SamplerSettings, place="eval chat")
    shown = " + ".join([model, *map(str, adapter or [])])
    talkers = {shown: _chat(model, adapter, template)}
    if against is not None and against != shown:
        talkers[against] = _chat(against, None, template)
    digests = {shown: weights_digest(model, adapter or ())}
    if against is not None:
        digests.setdefault(against, weights_digest(against))
    conversations: list[Conversation] = []
    unfit = 0
    if data is not None:
        found = _read(data, source or [])
        if fitting:
            fits = [all(each.fits(turns.turns[:-1], max_new_tokens=max_new_tokens) for each in talkers.values())
                    for turns in found]  # fmt: skip
            unfit = fits.count(False)
            found = [each for each, fit in zip(found, fits, strict=True) if fit]
            if not found:
                raise DataError(f"no question of {data} fits into the context; lower --max-new-tokens")
        conversations = sorted(found, key=lambda each: draw(each.text, seed, "eval"))[:limit]
    questions, wanted = asked(conversations)
    groups = [each.group for each in conversations]
    result: dict[str, Any] = {
        "kind": "chat", "data": str(data), "num": len(questions), "unfit": unfit, "seed": seed,
        "max_new_tokens": max_new_tokens, "sampler": settings.model_dump(mode="json"), "models": {},
    }  # fmt: skip
    scores: dict[str, AnswerScores] = {}
    if questions:
        result["sources"] = Counter(each.source for each in conversations)
        nearest = [Reply(nearest_sentence(each), "stop", 0, seed) for each in questions]
        scores["nearest sentence"] = score_answers(nearest, wanted, groups=groups, seed=seed)
        result["num_groups"] = scores["nearest sentence"].exact.num_groups
    for name, talker in talkers.items():
        own: dict[str, Any] = {"weights": digests[name], "followed": _followed(talker, settings, max_new_tokens, seed)}
        if questions:
            progress = ProgressLine().counter(f"eval chat | {name}", "answers")
            replies = reply_to(
                talker, questions, settings, max_new_tokens=max_new_tokens, seed=seed, on_progress=progress
            )
            scores[name] = score_answers(replies, wanted, groups=groups, seed=seed)
            own["answers"] = [reply.text for reply in replies]
            for turns, reply, text in list(zip(questions, replies, wanted, strict=True))[:show]:
                note(f"{turns[-1].text[:120]!r}\n  wanted {text!r}\n  {reply.finish_reason:>6} {reply.text!r}")
        result["models"][name] = own
    for name, score in scores.items():
        result["models"].setdefault(name, {}).update(score.as_dict())
    result["differences"] = {
        name: {each: asdict(compare_answers(scores[shown], other, each, seed=seed)) for each in ("exact", "f1", "chrf")}
        for name, other in scores.items() if name != shown and shown in scores
    }  # fmt: skip
    if json:
        print_json(result)
    else:
        _print(result)


def _read(data: Path, sources: list[str]) -> list[Conversation]:
    """
    Raises:
        DataError: there is none.
    """
    from diffutron.corpus.conversations import read_conversations
    from diffutron.corpus.read import Fault

    faults = list[Fault]()
    found = [each for each in read_conversations(data, on_fault=faults.append)
             if not sources or each.source in sources]  # fmt: skip
    if not found:
        raise DataError(f"{data} holds no conversation{' of ' + ', '.join(sources) if sources else ''}")
    if faults:  # the held-out part of a mixed corpus holds texts too
        first = f"{faults[0].place}: {faults[0].reason}"
        note(f"{len(faults)} records are no conversations, and left out; the first: {first}")
    return found


def _chat(name: str, adapter: list[Path] | None, template: str) -> Chat:
    from diffutron.generation import Generator
    from diffutron.generation.chat import Chat
    from diffutron.model import load_model
    from diffutron.tokens.codec import TextCodec
    from diffutron.tokens.instructions import ChatSettings

    loaded = load_model(name, adapters=adapter or ())
    codec = TextCodec(loaded.tokenizer)
    return Chat(Generator.of(loaded, codec), ChatSettings(template=template).format(codec))


def _followed(chat: Chat, settings: Any, max_new_tokens: int, seed: int) -> dict[str, Any]:
    """How many instructions are followed, and how many of them, ``unread``, did not fit into the context."""
    from diffutron.corpus.conversations import Turn
    from diffutron.evaluation.answers import instructions, rate, reply_to

    asked = instructions()
    questions = [[Turn("user", each.prompt)] for each in asked]
    replies = reply_to(chat, questions, settings, max_new_tokens=max_new_tokens, seed=seed)
    found = rate([float(each.followed(reply.text)) for each, reply in zip(asked, replies, strict=True)], seed=seed)
    return {**asdict(found), "unread": sum(reply.finish_reason == "failed" for reply in replies)}


COLUMNS = (("exact", "exact"), ("f1", "F1 of words"), ("chrf", "chrF"), ("ended", "ended itself"),
            ("tagged", "with a tag"), ("followed", "instructions"))  # fmt: skip


def _print(result: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for _, title in COLUMNS:
        table.add_column(title)
    for name, own in result["models"].items():
        table.add_row(name, *(_cell(own.get(column)) for column, _ in COLUMNS))
    Console(width=140).print(table)
    for name, differences in result["differences"].items():
        told = "; ".join(
            f"{each} {found['value']:+.3f} ({_spread(found, '+.3f')}, p {found['p_value']:.4f})"
            for each, found in differences.items()
        )
        print(f"against {name}: {told}")
    for name, own in result["models"].items():
        if own.get("unread"):
            print(f"{name}: {own['unread']} questions do not fit into the context, and count as answered with nothing")
        if unread := own.get("followed", {}).get("unread"):
            print(f"{name}: {unread} instructions do not fit into the context, and count as not followed")
    if result["unfit"]:
        print(f"{result['unfit']} questions do not fit into the context, and are left out")
    groups = result.get("num_groups", result["num"])
    units = "answers" if groups == result["num"] else f"the {groups} groups of answers"
    print(f"{result['num']} answers of {result['data']}, seed {result['seed']}; 95 % intervals over {units}")


def _cell(found: dict[str, float] | None) -> str:
    if found is None:
        return ""
    return f"{found['value']:.1%} ({_spread({name: 100 * found[name] for name in ('low', 'high')}, '.1f')})"


def _spread(found: dict[str, float], form: str) -> str:
    if math.isnan(found["low"]):
        return "one group: no interval"
    return f"{found['low']:{form}} to {found['high']:{form}}"
