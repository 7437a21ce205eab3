"""Restoring changes words and nothing between them, and only into what they may have been."""

import unicodedata

import pytest

from diffutron.errors import InputError
from diffutron.generation import Generator
from diffutron.generation.restore import Restorer
from diffutron.testing import TINY_TEXTS, tiny_codec, tiny_denoiser
from diffutron.text.variants import bare, marked_variants, misread, num_ambiguous, slips

CODEC = tiny_codec()


def restorer(**settings):
    return Restorer(Generator(tiny_denoiser(), CODEC), **settings)


def test_marked_variants_are_all_ways_to_mark_a_word_and_bare_undoes_each():
    found = dict(marked_variants("Isik"))
    assert found == {
        "Isik": 0, "Isık": 1, "Işik": 1, "Işık": 2, "İsik": 1, "İsık": 2, "İşik": 2, "İşık": 3,
    }  # fmt: skip
    assert next(iter(marked_variants("çok"))) == ("çok", 0)
    assert {bare(form) for form in found} == {"Isik"}
    assert len(list(marked_variants("i" * 40))) == 2**12


def test_slips_undo_what_a_finger_does():
    for typed, meant in (
        ("oklu", "okul"),
        ("okkul", "okul"),
        ("okl", "okul"),
        ("iyki", "iyi"),
        ("sabsh", "sabah"),
        ("kita", "kitap"),
    ):
        assert meant in slips(typed), (typed, meant)
    assert "okul" not in slips("okul")


def test_misread_shapes_are_read_as_they_were_meant():
    for read, meant in (("0kul", "okul"), ("kıl1k", "kılık"), ("arna", "ama"), ("I5tanbul", "Istanbul")):
        assert meant in misread(read), (read, meant)


@pytest.mark.parametrize("text", [*TINY_TEXTS[:4], "  Ali  eve\n\ngitti. ", "", "\n", "1923'te 3,5 %", "çok " * 90])
def test_text_between_words_stays_and_confidence_is_a_probability(text):
    typed = bare(text)
    found = restorer(confidence=0.0).restore(typed)
    assert bare(found.text) == typed
    assert [word.before for word in found.words] == typed.split()
    assert all(0 < word.confidence <= 1 for word in found.words)
    for word in found.words:
        assert typed[word.start : word.start + len(word.before)] == word.before


def test_only_sure_changes_are_made():
    typed = bare(" ".join(TINY_TEXTS))
    loose, strict = restorer(confidence=0.0).restore(typed), restorer(confidence=0.8).restore(typed)
    assert len(strict.changes) < len(loose.changes)
    assert all(word.confidence >= 0.8 for word in strict.changes)
    sure = {word.start for word in loose.changes if word.confidence >= 0.8}
    assert {word.start for word in strict.changes} == sure


def test_marks_are_less_expected_where_others_stand():
    """One lost mark is likelier in a text that has none than among many."""
    one = restorer()
    assert one._loss("Bugun hava cok guzel") > 0.9
    assert one._loss("Bugün hava çok güzel, dışarı çıktık") < 0.05
    assert num_ambiguous("şis") == (2, 1)


def test_diff_shows_both_sides():
    found = restorer(confidence=0.0).restore(bare(TINY_TEXTS[0]))
    assert found.diff.count("[-") == len(found.changes)
    assert found.as_dict()["text"] == found.text


@pytest.mark.parametrize(("settings", "message"), [
    ({"confidence": 1.0}, "below 1"), ({"confidence": float("nan")}, "below 1"),
    ({"faults": frozenset({"grammar"})}, "not grammar"), ({"faults": frozenset()}, "not nothing"),
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        restorer(**settings)


@pytest.mark.parametrize("faults", [frozenset({"letters"}), frozenset({"ocr"})])
def test_a_word_that_is_longer_than_the_model_reads_stays_and_the_others_are_restored(faults):
    long = "iVBORw0KGgo" * 60
    typed = f"Ankara buyuk\n{long} bir okul"
    told = []
    found = restorer(faults=faults, confidence=0.0).restore(typed, lambda done, total: told.append((done, total)))
    words = {word.before: word for word in found.words}
    assert words[long].after == long
    assert words[long].confidence == 1.0
    assert [word.before for word in found.words] == typed.split()
    assert words["buyuk"].confidence < 1.0
    assert told[-1] == (4, 4)


@pytest.mark.parametrize("text", TINY_TEXTS)
def test_text_whose_marks_are_characters_of_their_own_is_restored_like_any_other(text):
    one = restorer(confidence=0.3)
    whole, apart = one.restore(text), one.restore(unicodedata.normalize("NFD", text))
    assert unicodedata.normalize("NFC", apart.text) == whole.text
    for word, other in zip(whole.words, apart.words, strict=True):
        assert other.confidence == pytest.approx(word.confidence)
        assert (other.after == other.before) == (word.after == word.before)


def test_what_is_spelled_well_is_asked_of_the_dictionary_in_normal_form():
    asked = set()
    one = restorer(is_well_spelled=lambda word: asked.add(word) or True)
    one.restore(unicodedata.normalize("NFD", "çocuk güldü"))
    assert {"çocuk", "güldü"} <= asked
    assert all(unicodedata.is_normalized("NFC", word) for word in asked)


@pytest.mark.parametrize("faults", [{"letters"}, {"typing"}, {"ocr"}])
def test_characters_that_the_vocabulary_does_not_have_are_never_taken_for_a_fault(faults):
    # Of all that it may have been, so that forms without the strange character are among them.
    found = restorer(faults=frozenset(faults), confidence=0.0, most=10_000).restore("geldi🫠 \u200b 🫠")
    assert found.text == "geldi🫠 \u200b 🫠"
    assert {word.confidence for word in found.words} == {1.0}
