import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffutron.text import lower_tr, upper_tr
from diffutron.text.harmony import apostrophe_fault, breaks_harmony
from diffutron.text.words import Word, words

# The suffixes that each last vowel asks for: "in", "of", "his", by the grammar book.
DATIVE = dict(zip("aıoueiöü", "aaaaeeee", strict=True))
GENITIVE = dict(zip("aıoueiöü", "ııuuiiüü", strict=True))


def fault(text):
    [word] = words(text)
    return apostrophe_fault(word)


@pytest.mark.parametrize(("word", "breaks"), [
    ("kitaplarda", False), ("kitaplarde", True), ("evlerimizden", False), ("evlerimizdan", True),
    ("okullarında", False), ("İSTANBULDA", False), ("İSTANBULDE", True), ("ISPARTALI", False), ("saatler", True),
    ("Kitap", None), ("ev", None), ("", None), ("psst", None),
])  # fmt: skip
def test_the_end_of_a_word_agrees_or_does_not(word, breaks):
    assert breaks_harmony(word) is breaks


@pytest.mark.parametrize(
    "word", ["geliyorum", "geliyorlar", "gidiyordunuz", "okuldaki", "sonrakiler", "evdekinin", "okumuşken", "kadarki"]
)
def test_suffixes_that_never_change_break_nothing(word):
    assert not breaks_harmony(word)


def test_what_follows_an_unchanging_suffix_agrees_with_it():
    assert breaks_harmony("geliyorler")
    assert breaks_harmony("okuldakılar") is False
    assert breaks_harmony("okuldakilar")


@pytest.mark.parametrize("vowel", DATIVE)
@pytest.mark.parametrize("name", ["B{}r", "B{}z", "P{}n"])
def test_of_all_suffix_vowels_only_the_one_that_the_name_asks_for_agrees(vowel, name):
    name = name.format(vowel)
    right = {DATIVE[vowel], GENITIVE[vowel]}
    for written in (f"{name}'{{}}n", f"{name}’d{{}}n"):
        assert {each for each in "aeıiuü" if fault(written.format(each)) is None} == right
        assert {fault(written.format(each)) for each in set("aeıiuü") - right} == {"harmony"}


@pytest.mark.parametrize("last", "bcçdfgğhjklmnprsştvyz")
def test_a_suffix_begins_voiceless_after_a_voiceless_consonant_and_nowhere_else(last):
    name, voiceless = f"Ma{last}", last in "fıstıkçı şahap"
    assert fault(f"{name}'ta") == (None if voiceless else "assimilation")
    assert fault(f"{name}'da") == ("assimilation" if voiceless else None)
    assert fault(f"{name}'ça") == (None if voiceless else "assimilation")
    assert fault(f"{name}'la") is None


@pytest.mark.parametrize(("text", "found"), [
    ("Ankara'da", None), ("Türkiye’nin", None), ("ANKARA'DA", None), ("ANKARA'DE", "harmony"), ("Atatürk'ün", None),
    ("IRAK'A", None), ("IRAK'E", "harmony"), ("Ankara'ta", "assimilation"), ("Ankara''da", "doubled"),
    ("Ankara'’da", "doubled"), ("Ankara`da", "character"), ("Ankara´da", "character"), ("Ankara‘da", "character"),
    ("kitap'ta", "capital"), ("ışık'ta", "capital"), ("Işık'ta", None), ("İzmir'da", "harmony"),
    ("İstanbul'ın", "harmony"), ("kitap", None), ("ABD'de", None), ("ABD''de", "doubled"), ("O'Neill", None),
    ("Qu'Elle", None), ("İstiklâl'e", None), ("İstiklâl'a", None), ("Ali'm", None),
])  # fmt: skip
def test_faults_of_an_apostrophe(text, found):
    assert fault(text) == found


@given(st.text("abıiuüoöeâ", min_size=1, max_size=6), st.text("aeıiuünd", min_size=1, max_size=4))
def test_a_line_of_capitals_is_judged_like_any_other(name, suffix):
    low = Word(upper_tr(name[0]) + name[1:] + "b", "'", suffix)
    high = Word(upper_tr(low.letters), "'", upper_tr(suffix))
    assert lower_tr(high.letters) == lower_tr(low.letters)
    assert apostrophe_fault(low) == apostrophe_fault(high)


@given(st.text(max_size=40))
def test_any_string_is_judged(text):
    for word in words(text):
        apostrophe_fault(word)
        breaks_harmony(word.letters)


@given(st.text("aIğâ 1²½Ⅻ'’-_\n", max_size=20))
def test_the_letters_of_a_text_are_those_of_its_words(text):
    found = list(words(text))
    assert all(each.isalpha() for word in found for each in word.letters + word.suffix)
    suffixed = re.sub(r"(?<=\d)['’]+[^\W\d_]+", "", re.sub("[²½Ⅻ]", "-", text))
    assert "".join(word.letters + word.suffix for word in found) == "".join(filter(str.isalpha, suffixed))


def test_words_are_runs_of_letters_and_suffixes_are_none():
    text = "1923'te Ankara'da, «Türkiye’nin» 2. büyük şehri... kuruldu! 'Evet' dedi; A4 kâğıt\nSonra"
    found = [(word.letters, word.suffix) for word in words(text)]
    assert found == [
        ("Ankara", "da"), ("Türkiye", "nin"), ("büyük", ""), ("şehri", ""), ("kuruldu", ""), ("Evet", ""), ("dedi", ""),
        ("A", ""), ("kâğıt", ""), ("Sonra", ""),
    ]  # fmt: skip


def test_sentences_open_after_marks_and_line_ends_and_after_nothing():
    opens = [word.letters for word in words("Bir. «İki» üç? Dört, beş\naltı… Yedi (sekiz)") if word.opens_sentence]
    assert opens == ["Bir", "İki", "Dört", "altı", "Yedi"]
    assert [word.opens_sentence for word in words("1923 yılında")] == [False]


def test_long_texts_take_no_longer_than_they_are():
    import time

    start = time.perf_counter()
    assert sum(1 for _ in words("ağaç'" * 50_000)) == 25_000
    assert len(list(itertools.islice(words("a " * 100_000), 100_000))) == 100_000
    assert time.perf_counter() - start < 20
