"""Turkish case: ı with I, i with İ, in every spelling that Unicode allows."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from diffutron.text import lower_tr, upper_tr

ALPHABET = [*zip("abcçdefgğhıijklmnoöprsştuüvyz", "ABCÇDEFGĞHIİJKLMNOÖPRSŞTUÜVYZ", strict=True)]
TURKISH = "".join(small + capital for small, capital in ALPHABET) + "âîûÂÎÛqwxQWX0123456789 .,'’!?-\n"


@pytest.mark.parametrize(("small", "capital"), ALPHABET)
def test_each_letter_of_the_alphabet_has_its_pair(small, capital):
    assert (lower_tr(capital), upper_tr(small)) == (small, capital)
    assert (lower_tr(small), upper_tr(capital)) == (small, capital)


@pytest.mark.parametrize(
    ("capitals", "small"),
    [("ISPARTA", "ısparta"), ("İSTANBUL", "istanbul"), ("IĞDIR'IN IŞIĞI", "ığdır'ın ışığı"),
     ("KÂĞIT, LÂİK", "kâğıt, lâik")],
)  # fmt: skip
def test_words_whose_case_python_gets_wrong(capitals, small):
    assert lower_tr(capitals) == small
    assert upper_tr(small) == capitals
    assert capitals.lower() != small or small.upper() != capitals


@given(st.text(alphabet=TURKISH))
def test_there_and_back_is_the_identity_on_turkish_text(text):
    small, capitals = lower_tr(text), upper_tr(text)
    assert lower_tr(capitals) == small
    assert upper_tr(small) == capitals


@given(st.text(alphabet=TURKISH))
def test_decomposed_input_gives_the_same_as_composed_input(text):
    decomposed = unicodedata.normalize("NFD", text)
    assert lower_tr(decomposed) == lower_tr(text)
    assert upper_tr(decomposed) == upper_tr(text)


def test_an_i_with_a_second_dot_is_an_i():
    trace = "İstanbul".lower()
    assert trace.startswith("i\u0307")
    assert lower_tr(trace) == "istanbul"
    assert upper_tr(trace) == "İSTANBUL"


@given(st.text())
@example("\u0130\u0301")  # dotted capital with an acute: lower() leaves i + U+0301 apart
@example("\u0390")  # has no capital of its own: upper() takes it apart
@example("i\u0307\u0301")
def test_result_is_in_nfc_whatever_comes_in(text):
    assert unicodedata.is_normalized("NFC", lower_tr(text))
    assert unicodedata.is_normalized("NFC", upper_tr(text))


@given(st.text())
def test_case_is_mapped_once_and_for_all(text):
    # upper() of a letter may itself have a longer capital form, so only lower case is stable on any text.
    assert lower_tr(lower_tr(text)) == lower_tr(text)


def test_empty_text_stays_empty():
    assert lower_tr("") == upper_tr("") == ""


def test_an_i_in_a_ligature_keeps_its_dot():
    assert [upper_tr(word) for word in ("ﬁkir", "oﬃs", "ﬂüt", "Aﬀan")] == ["FİKİR", "OFFİS", "FLÜT", "AFFAN"]
