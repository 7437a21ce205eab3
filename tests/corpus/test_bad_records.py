"""Whatever stands in a file: the build ends, what is broken is quarantined with its line, and the totals balance."""

import gzip
import json
import random

import pytest

from diffutron.corpus import CorpusSettings, build_corpus

GOOD = "Bu {} numaralı metindir, yeterince uzundur ve okunabilir."


def cut(draw, line):
    return line[: draw.randrange(1, len(line) - 1)]


def broken_utf8(draw, line):
    place = draw.randrange(10, len(line) - 2)
    return line[:place] + bytes([draw.choice([0xFF, 0xC3, 0x80])]) + b'"' + line[place:]


def another_value(draw, line):
    return json.dumps(draw.choice([None, 7, True, ["metin"], {"a": 1}, 1.5])).encode()


def no_text(draw, line):
    return json.dumps({"metin": json.loads(line)["text"]}).encode()


def text_of_another_kind(draw, line):
    return json.dumps({"text": draw.choice([None, 7, ["metin"], {"tr": "metin"}])}).encode()


def bare_control_character(draw, line):
    return line[:12] + bytes([draw.choice([0, 1, 31])]) + line[12:]


def two_objects(draw, line):
    return line + b" " + line


def lone_surrogate(draw, line):
    return b'{"text": "' + b"a" * 30 + b'\\ud83d"}'


def deep(draw, line):
    return b"[" * draw.randrange(2_000, 90_000)


def no_json(draw, line):
    return draw.choice([b"metin", b"text: metin", b"{'text': 'metin'}", b'{"text": NaN', b"<p>metin</p>"])


WAYS = [cut, broken_utf8, another_value, no_text, text_of_another_kind, bare_control_character, two_objects,
        lone_surrogate, deep, no_json]  # fmt: skip


def build(path, out, **changes):
    settings = {"filters": "none", "duplicates": {"near": False, "paragraphs": False}, "min_characters": 10}
    return build_corpus(CorpusSettings(sources=[{"path": path}], heldout_share=0, **{**settings, **changes}), out)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_300_malformed_records_are_all_quarantined_at_their_lines(tmp_path, name):
    draw = random.Random(7)
    lines = [json.dumps({"text": GOOD.format(number)}).encode() for number in range(700)]
    bad = {place: WAYS[number % len(WAYS)] for number, place in enumerate(sorted(draw.sample(range(700), 300)))}
    for place, spoil in bad.items():
        lines[place] = spoil(draw, lines[place])
    data = b"\n".join(lines) + b"\n"
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)

    corpus = build(tmp_path / name, tmp_path / "corpus")

    report = corpus.report
    assert (report["read"], report["kept"], report["quarantined"]) == (700, 400, 300)
    faults = [json.loads(line) for line in (tmp_path / "corpus" / "quarantine.jsonl").read_text("utf-8").splitlines()]
    assert {int(fault["place"].rpartition(":")[2]) - 1 for fault in faults} == set(bad)
    assert all(fault["reason"] and "\n" not in fault["reason"] for fault in faults)


def test_empty_huge_and_null_filled_documents_are_dropped_for_a_reason(tmp_path):
    huge = "Çok uzun bir metin, bitmek bilmiyor. " * 1_400_000
    texts = ["", " \n\t", "\0" * 5_000, "\0".join(GOOD.format(1)), huge, GOOD.format(2)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    report = build(path, tmp_path / "corpus").report
    # Null bytes are no part of a text; what they stood between is.
    assert (report["read"], report["kept"], report["quarantined"]) == (6, 2, 0)
    assert report["dropped"] == {"no letters": 3, "too long": 1}
    assert sum(report["dropped"].values()) + report["kept"] == report["read"]
