"""Instruction sets become corpora as texts do: checked, split without sharing a passage, counted, and read back."""

import json
from collections import Counter

import pytest

from diffutron.corpus import CorpusSettings, build_corpus
from diffutron.corpus.conversations import read_conversations
from diffutron.errors import DiffutronError

# Thirty of which no two share words.
PASSAGES = [" ".join(f"kent{place}bölüm{number}" for place in range(16)) + "." for number in range(30)]


def asked(passage, question, answer="Uzun geçmişini."):
    return {"instruction": question, "input": passage, "output": answer, "license": "MIT"}


RECORDS = [asked(passage, f"{number}. Metin neyi anlatır?") for passage in PASSAGES for number in range(4)]


def build(tmp_path, records, **changes):
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records), encoding="utf-8")
    source = {"path": path, "kind": "conversations", "name": "set", **changes.pop("source", {})}
    plain = {"filters": "none", "duplicates": {"near": False}, "min_characters": 10, "heldout_share": 0.3}
    return build_corpus(CorpusSettings(sources=[source], **{**plain, **changes}), tmp_path / "corpus")


def passages_of(file):
    return {conversation.turns[0].text.rsplit("\n\n", 1)[1] for conversation in read_conversations(file)}


def test_a_corpus_keeps_the_turns_and_what_is_said_of_them(tmp_path):
    corpus = build(tmp_path, RECORDS[:1], heldout_share=0.0)
    [conversation] = read_conversations(corpus.train)
    assert [turn.role for turn in conversation.turns] == ["user", "assistant"]
    assert conversation.turns[0].text == f"{RECORDS[0]['instruction']}\n\n{PASSAGES[0]}"
    assert (conversation.source, conversation.license) == ("set", "MIT")
    assert corpus.report["conversations"] == corpus.report["kept"] == 1


def test_no_passage_is_trained_on_and_held_out(tmp_path):
    corpus = build(tmp_path, RECORDS, source={"group_field": "input"})
    train, heldout = passages_of(corpus.train), passages_of(corpus.heldout)
    assert train
    assert heldout
    assert not train & heldout
    assert train | heldout == set(PASSAGES)
    # Without the field they are shared, or the test would say nothing.
    loose = build(tmp_path, RECORDS)
    assert passages_of(loose.train) & passages_of(loose.heldout)


def test_a_group_may_be_called_by_a_number_zero_among_them(tmp_path):
    numbered = [{**each, "id": number // 4} for number, each in enumerate(RECORDS[:20])]
    corpus = build(tmp_path, numbered, source={"group_field": "id"})
    kept = [*read_conversations(corpus.train), *read_conversations(corpus.heldout)]
    assert len(kept) == 20
    assert sorted(Counter(each.group for each in kept).values()) == [4] * 5
    assert "" not in {each.group for each in kept}


def test_a_group_is_kept_beside_its_conversations(tmp_path):
    corpus = build(tmp_path, RECORDS, source={"group_field": "input"})
    groups = {}
    for each in [*read_conversations(corpus.train), *read_conversations(corpus.heldout)]:
        groups.setdefault(each.group, set()).add(each.turns[0].text.partition("\n\n")[2])
    assert "" not in groups
    assert sorted(groups.values(), key=str) == [{passage} for passage in sorted(PASSAGES, key=lambda text: str({text}))]


def test_a_group_field_that_records_lack_is_told(tmp_path):
    with pytest.raises(DiffutronError, match="has no field 'passage' to be grouped by"):
        build(tmp_path, RECORDS, source={"group_field": "passage"})


def test_every_broken_conversation_is_quarantined_with_its_reason(tmp_path):
    broken = [
        {"instruction": "Soru?", "output": ""}, {"messages": [{"role": "tool", "content": "x"}]}, {"text": "düz metin"},
        {"messages": [{"role": "user", "content": "Soru?"}]}, {"instruction": "Soru?", "output": "\u200b"},
    ]  # fmt: skip
    corpus = build(tmp_path, [*RECORDS[:3], *broken])
    told = [json.loads(line) for line in (corpus.folder / "quarantine.jsonl").read_text("utf-8").splitlines()]
    assert [each["reason"].split(",")[0] for each in told] == [
        "has an empty assistant turn", "message 1 has the unknown role 'tool'", "has neither messages nor any of"
        " instruction and output", "has no answer", "has an empty assistant turn",
    ]  # fmt: skip
    assert [each["place"].rsplit(":", 1)[1] for each in told] == ["4", "5", "6", "7", "8"]
    assert corpus.report["quarantined"] == 5


def test_equal_conversations_and_those_of_evaluation_sets_go(tmp_path):
    test_set = tmp_path / "test.jsonl"
    test_set.write_text(json.dumps({"text": RECORDS[5]["input"]}, ensure_ascii=False), encoding="utf-8")
    sets = [{"path": test_set, "name": "sınav"}]
    corpus = build(tmp_path, [*RECORDS, RECORDS[0]], decontaminate=sets)
    assert corpus.report["dropped"] == {"contaminated": 4, "exact duplicate": 1}


def test_each_turn_is_cleaned_for_itself(tmp_path):
    record = asked(PASSAGES[0], "Metin\u00a0neyi, kimi anlatır?", "Bir kentin uzun geçmişini anlatır.\r\nBitti.")
    [conversation] = read_conversations(build(tmp_path, [record], heldout_share=0.0).train)
    assert conversation.turns[0].text == f"Metin neyi, kimi anlatır?\n\n{PASSAGES[0]}"
    assert conversation.turns[1].text == "Bir kentin uzun geçmişini anlatır.\nBitti."


def test_texts_and_conversations_may_be_mixed(tmp_path):
    texts = tmp_path / "texts.jsonl"
    texts.write_text(json.dumps({"text": "Düz bir metin, kimse kimseye sormuyor."}), encoding="utf-8")
    build(tmp_path, RECORDS[:2], heldout_share=0.0)
    sources = [{"path": tmp_path / "set.jsonl", "kind": "conversations"}, {"path": texts}]
    settings = CorpusSettings(sources=sources, filters="none", duplicates={"near": False}, min_characters=10,
                              heldout_share=0.0)  # fmt: skip
    corpus = build_corpus(settings, tmp_path / "mixed")
    assert (corpus.report["kept"], corpus.report["conversations"]) == (3, 2)


@pytest.mark.parametrize("field", ["sample", "max_documents"])
def test_a_sample_is_chosen_by_what_was_said(tmp_path, field):
    corpus = build(tmp_path, RECORDS, source={field: 0.5 if field == "sample" else 60}, heldout_share=0.0)
    again = build(tmp_path, RECORDS[::-1], source={field: 0.5 if field == "sample" else 60}, heldout_share=0.0)
    chosen = [sorted(each.text for each in read_conversations(one.train)) for one in (corpus, again)]
    assert chosen[0] == chosen[1]
    assert 40 < len(chosen[0]) < 80


def test_conversations_that_a_weight_drops_are_not_counted(tmp_path):
    corpus = build(tmp_path, RECORDS, source={"weight": 0.3})
    assert corpus.report["dropped"]["weight below 1"] > 0
    assert corpus.report["conversations"] == corpus.report["kept"]
