import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffutron.text.morphemes import stem_length


@pytest.mark.parametrize(("word", "stem"), [
    ("evlerimizden", "ev"), ("okullarda", "okul"), ("İstanbul'a", "İstanbul"), ("Türkiye'nin", "Türkiye"),
    ("kitap", "kitap"), ("çocukların", "çocuk"), ("gidiyorum", "gid"), ("geldiler", "gel"), ("ve", "ve"),
    ("bir", "bir"), ("su", "su"), ("IĞDIR'DAN", "IĞDIR"), ("gitti", "git"), ("güzel", "güzel"),
])  # fmt: skip
def test_stem_ends_where_inflection_begins(word, stem):
    assert word[: stem_length(word)] == stem


@given(st.text(max_size=30))
def test_stem_is_a_part_of_any_string(word):
    assert 0 <= stem_length(word) <= len(word)
    assert stem_length(word) > 0 or not word


def test_long_words_take_no_longer_than_they_are():
    import time

    start = time.perf_counter()
    stem_length("ev" + "lerden" * 2_000)
    stem_length("ı" * 10_000)
    assert time.perf_counter() - start < 5
