"""Every document is kept or counted under the reason for which it left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffutron.corpus import CurationReport, Document
from diffutron.corpus.curate import curate


def run(texts, *, min_characters=5, max_characters=None):
    report = CurationReport()
    documents = [Document(text, place=f"f:{number}", source="s") for number, text in enumerate(texts, start=1)]
    kept = list(curate(documents, report, min_characters=min_characters, max_characters=max_characters))
    return kept, report


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no letters"),
        ("1234567890 -- 😀 ...", "no letters"),
        ("dört", "near-empty"),
        ("on bir harf", "too long"),
        ("beşli", None),
        ("on harfli", None),
        ("٣٤٥٦٧ ا", None),
    ],
)
def test_each_reason_catches_its_own(text, reason):
    kept, report = run([text], min_characters=5, max_characters=10)
    assert [document.text for document in kept] == ([] if reason else [text])
    assert report.dropped == ({reason: 1} if reason else {})


def test_bounds_are_inclusive():
    kept, _ = run(["aaaa", "aaaaa", "a" * 10, "a" * 11], min_characters=5, max_characters=10)
    assert [len(document.text) for document in kept] == [5, 10]


def test_of_equal_texts_the_first_stays():
    kept, report = run(["birinci", "ikinci", "birinci", "birinci"])
    assert [document.place for document in kept] == ["f:1", "f:2"]
    assert report.dropped == {"exact duplicate": 2}


def test_texts_that_differ_in_one_letter_or_in_case_both_stay():
    kept, report = run(["ışıklar", "ışikler", "Işıklar"])
    assert len(kept) == 3
    assert not report.dropped


def test_documents_come_one_by_one_and_are_counted_as_they_come():
    report = CurationReport()
    endless = (Document(f"metin {number}", place="f") for number in iter(int, 1))
    stream = curate(endless, report, min_characters=1, max_characters=None)
    assert next(stream).text == "metin 0"
    assert (report.read, report.kept) == (1, 1)


@given(
    st.lists(st.text(alphabet="ab1 ", max_size=6), max_size=40),
    st.integers(1, 4),
    st.none() | st.integers(1, 6),
)
def test_counts_add_up_and_every_text_is_kept_at_most_once(texts, min_characters, max_characters):
    kept, report = run(texts, min_characters=min_characters, max_characters=max_characters)
    assert report.read == len(texts)
    assert report.read == report.kept + sum(report.dropped.values())
    assert report.kept == len(kept) == len({document.text for document in kept}) == sum(report.by_source.values())
    assert report.characters == sum(len(document.text) for document in kept)
    assert sum(report.licenses.values()) == report.kept


@given(st.lists(st.text(alphabet="ab1 ", max_size=6), max_size=40), st.randoms(use_true_random=False))
def test_what_is_kept_does_not_depend_on_the_order(texts, random):
    shuffled = random.sample(texts, len(texts))
    kept, report = run(texts, min_characters=2)
    kept_too, report_too = run(shuffled, min_characters=2)
    assert {document.text for document in kept} == {document.text for document in kept_too}
    assert report.dropped == report_too.dropped
