"""``diffutron chat`` and ``eval chat`` as somebody uses them: through a pipe, with commands, with faults."""

import json

import pytest

from diffutron.corpus.conversations import read_conversations
from diffutron.testing import TINY_TEXTS, tiny_folder


@pytest.fixture
def place(tmp_path, monkeypatch):
    tiny_folder(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(cli, place):
    return cli


CHAT = ("chat", "--model", "tiny", "--max-new-tokens", 6, "--temperature", 0.8)


def test_every_line_of_a_pipe_is_a_question_and_gets_an_answer(run):
    out, err = run(*CHAT, "--json", said="evde ne var\n\n  denizde ne var  \n")
    replies = [json.loads(line) for line in out.splitlines()]
    assert len(replies) == 2
    assert set(replies[0]) == {"text", "finish_reason", "num_steps", "seed", "num_forgotten"}
    assert not err
    assert run(*CHAT, said="evde ne var\n\n  denizde ne var  \n")[0].splitlines() == [each["text"] for each in replies]
    assert run(*CHAT, said="")[0] == ""


def test_a_pipe_of_another_encoding_is_told_of(run):
    _, err = run(*CHAT, said="ışık nedir\n".encode("windows-1254"), code=1)
    assert err.startswith("error: the input is not UTF-8: it holds the byte 0xfd")
    assert "Traceback" not in err


def test_commands_change_the_talk(run, place):
    once, _ = run(*CHAT, said="evde ne var\n")
    out, err = run(
        *CHAT, said="/seed 5\nevde ne var\n/reset\n/seed 0\nevde ne var\n/save talk.jsonl\n/quit\nevde ne var\n"
    )
    _, again = out.splitlines()
    assert again + "\n" == once
    assert "forgotten" in err
    run(*CHAT, said="denizde ne var\n/save talk.jsonl\n")
    kept = list(read_conversations(place / "talk.jsonl"))  # as train reads it
    assert [each.turns[0].text for each in kept] == ["evde ne var", "denizde ne var"]
    assert kept[0].turns[1].text == again


def test_watch_shows_the_answer_and_not_the_question(run):
    _, err = run(*CHAT, said="/watch\nevde ne var\n")
    hidden = [line.count("░") for line in err.splitlines() if "░" in line]
    assert hidden == sorted(hidden, reverse=True)
    assert hidden[0] > hidden[-1]
    assert "evde ne var" not in err


def test_a_full_context_is_told(run, place):
    out, err = run(*CHAT, said="evlerimizden ve denizden ne var\n" * 12 + "/save talk.jsonl\n")
    assert len(out.splitlines()) == 12
    assert "the context is full: the first" in err
    [kept] = read_conversations(place / "talk.jsonl")
    assert len(kept.turns) == 24  # what the model forgot is saved all the same


def test_in_a_pipe_a_line_that_is_no_command_is_a_question(run):
    out, _ = run(*CHAT, said="/etc nedir?\nevde ne var\n")
    assert len(out.splitlines()) == 2


@pytest.mark.parametrize(("said", "told"), [
    ("/seed x\n", "/seed needs a whole number, at least 0, not 'x'"), ("/steps 0\n", "/steps needs a whole number"),
    ("/save\n", "/save needs a file that ends with .jsonl"), ("/save x.json\n", "/save needs a file that ends with"),
    ("/save x.jsonl\n", "there is nothing to save yet"),
    ("ev\n/save no/such/folder/x.jsonl\n", "no/such/folder/x.jsonl could not be written"),
    ("ev " * 300 + "\n", "the question does not fit"),
])  # fmt: skip
def test_a_fault_in_a_pipe_is_one_line_and_code_1(run, said, told):
    _, err = run(*CHAT, said=said, code=1)
    assert told in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(("arguments", "told"), [
    (["--template", "nothing"], "the chat template 'nothing' is none of turkish, tags, model"),
    (["--adapter", "nowhere"], "model 'nowhere' is neither"), (["--adapter", "tiny"], "tiny is no adapter"),
])  # fmt: skip
def test_a_wrong_option_is_one_line(run, arguments, told):
    _, err = run(*CHAT, *arguments, said="ev\n", code=1)
    assert told in err


def test_a_template_that_does_harm_is_refused_in_one_line(run, place):
    (place / "bad.jinja").write_text("{{ ''.__class__.__mro__ }}")
    _, err = run(*CHAT, "--template", "bad.jinja", said="ev\n", code=1)
    assert len(err.splitlines()) == 1
    (place / "deaf.jinja").write_text("{% generation %}x{% endgeneration %}")
    _, err = run(*CHAT, "--template", "deaf.jinja", said="ev\n", code=1)
    assert "leaves out turn 1" in err


def test_answers_are_judged_beside_the_baseline(run, place):
    records = [{"instruction": f"{number}. ne var?", "input": text, "output": "deniz", "source": "ev"}
               for number, text in enumerate(TINY_TEXTS[:4])]  # fmt: skip
    (place / "asked.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    asked = ("eval", "chat", "--model", "tiny", "--data", "asked.jsonl", "--max-new-tokens", 4, "--json")
    out, _ = run(*asked, "--against", "tiny", "--limit", 3)
    result = json.loads(out)
    assert result["num"] == 3
    assert set(result["models"]) == {"tiny", "nearest sentence"}
    assert set(result["models"]["tiny"]) == {
        "followed", "answers", "weights", "exact", "f1", "chrf", "ended", "tagged", "unread",
    }  # fmt: skip
    assert result["models"]["tiny"]["followed"]["num"] == 40
    assert set(result["differences"]["nearest sentence"]["chrf"]) == {"value", "low", "high", "p_value"}
    assert result["unfit"] == result["models"]["tiny"]["unread"] == 0
    records += [{"text": "Bu bir metin."}, {**records[0], "input": "ev " * 70}]
    (place / "mixed.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    mixed = ("eval", "chat", "--model", "tiny", "--data", "mixed.jsonl", "--max-new-tokens", 4, "--json")
    out, err = run(*mixed)
    assert "1 records are no conversations, and left out; the first: mixed.jsonl:5" in err
    assert json.loads(out)["num"] == 5
    unread = json.loads(out)["models"]["tiny"]["unread"]
    assert unread >= 1
    out, _ = run(*mixed, "--fitting")
    assert (json.loads(out)["num"], json.loads(out)["unfit"]) == (5 - unread, unread)
    assert json.loads(out)["models"]["tiny"]["unread"] == 0
    _, err = run(*asked, "--source", "nothing", code=1)
    assert "holds no conversation of nothing" in err
    table, _ = run(*asked[:-1])
    assert "nearest sentence" in table
