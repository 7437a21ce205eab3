"""One spelling for one text."""

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from diffutron.text import normalise

# What breaks normal forms: marks that join, reorder or hide, line ends of all kinds, spaces of all widths.
TRICKY = (
    "iIıİeaz'’ \t\n\r\x0b\x0c\x1c\x85\xa0\xad\u0301\u0307\u0323\u0327\u0338\u200b\u200e\u2028\u2029\u3000\ufeff한각ſ"
)
texts = st.text() | st.text(alphabet=TRICKY)


@given(texts)
@example("e\u200b\u0301")
@example("i\u00ad\u0307")
@example("i\u0307\u0307")
@example("i\u0307\u0301")
@example("a\n\u200b\n \u200b\nb")
def test_normal_form_of_a_normal_form_is_itself(text):
    once = normalise(text)
    assert normalise(once) == once


@given(texts)
@example("e\u200b\u0301")
@example("i\u0307\u0301")
def test_result_is_in_nfc(text):
    assert unicodedata.is_normalized("NFC", normalise(text))


@given(texts)
def test_result_has_one_kind_of_space_and_line_end_and_at_most_one_blank_line(text):
    result = normalise(text)
    assert set(re.findall(r"\s", result)) <= {" ", "\n"}
    assert not re.search(r"  | \n|\n |\n{3}", result)
    assert result == result.strip()


@given(texts)
def test_composed_and_decomposed_spellings_are_one(text):
    assert normalise(unicodedata.normalize("NFD", text)) == normalise(unicodedata.normalize("NFC", text))


@pytest.mark.parametrize(
    "invisible",
    ["\u200b", "\u00ad", "\ufeff", "\u2060", "\u200e", "\u200f", "\u202a", "\u202e", "\0", "\x1b", "\x7f", "\x9f",
     "\u2061", "\u2064", "\u2066", "\u2069", "\u061c", "\u180e", "\u034f"],
)  # fmt: skip
def test_invisible_characters_leave_nothing_behind(invisible):
    assert normalise(f"{invisible}kap{invisible}ı\n{invisible}\nson{invisible}") == "kapı\n\nson"


def test_an_invisible_character_between_a_letter_and_its_mark_does_not_part_them():
    assert normalise("e\u200b\u0301") == "é"
    assert normalise("I\u00ad\u0307stanbul") == "İstanbul"


@pytest.mark.parametrize("joiner", ["\u200c", "\u200d"])
def test_joiners_stay_because_some_scripts_spell_with_them(joiner):
    assert normalise(f"می{joiner}خواهم") == f"می{joiner}خواهم"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\u2028", "\u2029", "\u0085", "\x0b", "\x0c"])
def test_every_line_end_becomes_a_newline(end):
    assert normalise(f"bir{end}iki") == "bir\niki"


def test_crlf_is_one_line_end():
    assert normalise("bir\r\niki\r\n\r\nüç") == "bir\niki\n\nüç"


def test_any_number_of_blank_lines_becomes_one():
    assert normalise("bir\n\n\n\n \t\n\niki") == "bir\n\niki"
    assert normalise("bir\n\niki") == "bir\n\niki"
    assert normalise("bir\niki") == "bir\niki"


def test_runs_of_any_space_become_one_space():
    assert normalise("bir \t\u00a0\u3000\u2003iki") == "bir iki"
    assert normalise("  bir \n\t iki  ") == "bir\niki"


@pytest.mark.parametrize("apostrophe", ["'", "’", "ʼ", "`", "´"])
def test_apostrophes_are_left_as_they_were_typed(apostrophe):
    assert normalise(f"Türkiye{apostrophe}nin") == f"Türkiye{apostrophe}nin"


@pytest.mark.parametrize(
    "text", ["IŞIK ışık İLİK ilik", "“tırnak” – çizgi … ﬁ ½ ² ①", "Ⅳ. Murat", "5 × 3 − 2", "😀👍🏽"]
)
def test_case_letters_quotes_and_compatibility_forms_are_left_alone(text):
    assert normalise(text) == text


def test_an_i_with_a_second_dot_is_an_i():
    assert normalise("İstanbul".lower()) == "istanbul"
    assert normalise("I\u0307stanbul") == "İstanbul"
    assert normalise("ij\u0307") == "ij\u0307"  # only the i has a dot of its own to lose


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\ufeff", "\u200b \r\n"])
def test_a_text_of_nothing_is_empty(text):
    assert normalise(text) == ""
