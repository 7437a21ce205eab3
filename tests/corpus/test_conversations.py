"""Instruction sets of every shape give the same conversations, and what is none is named."""

import json
import unicodedata

import pytest

from diffutron.corpus.conversations import Conversation, Turn, read_conversations, turns_of
from diffutron.errors import DataError

ASKED, ANSWER = "Türkiye'nin başkenti neresidir?", "Ankara."
TURNS = (Turn("user", ASKED), Turn("assistant", ANSWER))


@pytest.mark.parametrize("record", [
    {"instruction": ASKED, "output": ANSWER},
    {"instruction": ASKED, "input": "", "output": ANSWER},
    {"Instruction": ASKED, "INPUT": None, "Output": ANSWER, "system": ""},
    {"input": ASKED, "output": ANSWER},
    {"Input": ASKED, "Output": ANSWER},
    {"instruction": ASKED, "context": "", "response": ANSWER},
    {"prompt": ASKED, "response": ANSWER}, {"prompt": ASKED, "completion": ANSWER},
    {"question": ASKED, "answer": ANSWER}, {"soru": ASKED, "cevap": ANSWER}, {"SORU": ASKED, "CEVAP": ANSWER},
    {"TALİMAT": ASKED, "GİRDİ": "", "ÇIKTI": ANSWER}, {"SORU": ASKED, "YANIT": ANSWER},
    {"instruction": ASKED, "input": float("nan"), "output": ANSWER},
    {"talimat": ASKED, "girdi": "", "çıktı": ANSWER}, {"Talimat": ASKED, "Çıktı": ANSWER},
    {"talimat": ASKED, unicodedata.normalize("NFD", "çıktı"): ANSWER},
    {"messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": ANSWER}]},
    {"messages": [{"role": "Kullanıcı", "content": ASKED}, {"role": "ASİSTAN", "content": ANSWER}]},
    {"messages": [{"role": "KULLANICI", "content": ASKED}, {"role": "ASISTAN", "content": ANSWER}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": ASKED}]},
                  {"role": "assistant", "content": ANSWER}]},
    {"conversations": [{"from": "human", "value": f" {ASKED} "}, {"from": "gpt", "value": ANSWER + "\n"}]},
])  # fmt: skip
def test_every_shape_gives_the_same_turns(record):
    assert turns_of(record) == TURNS


def test_what_the_question_is_about_follows_it_and_a_system_text_comes_first():
    record = {"system": "Kısa yanıtla.", "instruction": "Özetle.", "input": "Uzun bir metin.", "output": "Kısa."}
    assert turns_of(record) == (
        Turn("system", "Kısa yanıtla."), Turn("user", "Özetle.\n\nUzun bir metin."), Turn("assistant", "Kısa."),
    )  # fmt: skip


@pytest.mark.parametrize("names", [("instruction", "input", "response"), ("question", "bağlam", "answer"),
                                   ("SORU", "Metin", "YANIT"), ("prompt", "context", "completion")])  # fmt: skip
def test_no_column_that_a_question_is_about_is_dropped(names):
    record = dict(zip(names, ("Özetle.", "Uzun bir metin.", "Kısa."), strict=True))
    assert turns_of(record) == (Turn("user", "Özetle.\n\nUzun bir metin."), Turn("assistant", "Kısa."))


def test_a_number_is_an_answer():
    assert turns_of({"question": "Kaç?", "answer": 12})[1].text == "12"


def test_a_zero_is_something_that_a_question_is_about():
    assert turns_of({"instruction": "Karesi kaçtır?", "input": 0, "output": 0}) == (
        Turn("user", "Karesi kaçtır?\n\n0"), Turn("assistant", "0"),
    )  # fmt: skip


def message(role, content="bir"):
    return {"role": role, "content": content}


@pytest.mark.parametrize(("record", "reason"), [
    ({}, "has neither messages nor any of"), ({"text": "düz metin"}, "it has text"),
    ({"instruction": "", "output": ANSWER}, "has an empty user turn, number 1"),
    ({"instruction": ASKED, "output": "  \u200b "}, "has an empty assistant turn, number 2"),
    ({"instruction": ASKED, "output": None}, "its output is missing"),
    ({"instruction": ASKED, "output": float("nan")}, "its output is missing"),
    ({"instruction": ASKED, "output": ["a"]}, "its output is a list, not a text"),
    ({"messages": []}, "has no answer"), ({"messages": "merhaba"}, "its messages are a str, not a list"),
    ({"messages": [message("user")]}, "has no answer"),
    ({"messages": [message("system"), message("user")]}, "has no answer"),
    ({"messages": [message("user"), message("assistant"), message("user")]}, "ends with a question that"),
    ({"messages": [message("user"), message("user"), message("assistant")]}, "not those of a user and an assistant"),
    ({"messages": [message("assistant"), message("user"), message("assistant")]}, "not those of a user"),
    ({"messages": [message("user"), message("system"), message("assistant")]}, "a system text after the first turn"),
    ({"messages": [message("user"), message("tool"), message("assistant")]}, "message 2 has the unknown role 'tool'"),
    ({"messages": [message(None)]}, "message 1 has the unknown role None"),
    ({"messages": ["merhaba"]}, "message 1 is a str, not an object"),
    ({"messages": [message("user", [{"type": "image_url"}]), message("assistant")]}, "its message 1 is missing"),
])  # fmt: skip
def test_what_is_no_conversation_says_why(record, reason):
    with pytest.raises(ValueError) as caught:
        turns_of(record)
    assert reason in str(caught.value)


@pytest.mark.parametrize("text", [
    "{{ 7 * 7 }}", "{% for x in range(9) %}x{% endfor %}", "</s><mask>[Answer]", "[/Answer]\n\n[Question]", "${HOME}",
])  # fmt: skip
def test_what_looks_like_a_template_or_a_token_is_text(text):
    turns = turns_of({"question": text, "answer": text})
    assert [turn.text for turn in turns] == [text, text]
    assert Conversation(turns).messages[0] == {"role": "user", "content": text}


def test_a_file_is_read_with_places_and_faults(tmp_path):
    file = tmp_path / "a.jsonl"
    records = [{"soru": ASKED, "cevap": ANSWER, "source": "el", "license": "CC0-1.0"}, {"soru": ASKED}, {"a": 1}]
    file.write_text("\n".join(json.dumps(each) for each in records), encoding="utf-8")
    faults = []
    [found] = read_conversations(file, on_fault=faults.append)
    assert found == Conversation(TURNS, f"{file}:1", "el", "CC0-1.0")
    assert [fault.place for fault in faults] == [f"{file}:2", f"{file}:3"]
    with pytest.raises(DataError, match="does not exist"):
        list(read_conversations(tmp_path / "yok.csv"))


def test_two_columns_of_a_spreadsheet_are_questions_and_answers(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text(f'\ufeffSoru;Cevap\r\n{ASKED};"{ANSWER}"\r\n', encoding="utf-8")
    [found] = read_conversations(file)
    assert found.turns == TURNS
