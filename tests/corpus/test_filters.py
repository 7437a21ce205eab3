"""What the filters call a fault is one, by a plain count; Turkish of every kind stays."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffutron.corpus import language
from diffutron.corpus.filters import FilterSettings, TextView, build_filters
from diffutron.corpus.language import LanguageFilter, pieces
from diffutron.corpus.repetition import RepetitionFilter, Runs
from diffutron.errors import DataError, RecipeError
from diffutron.recipe import check
from diffutron.text.spelling import looks_turkish

TURKISH = (
    "Köyün girişindeki çınarın altında her akşam aynı kişiler toplanırdı. Muhtar çayını karıştırırken yağmurun "
    "gecikmesinden yakınır, öğretmen ise gelecek yıl açılacak kütüphaneyi anlatırdı. Çocuklar dereden topladıkları "
    "taşlarla küçük bir baraj yapmış, suyun önünü kesmişlerdi. Yaşlılardan biri, eskiden buradan bir değirmenin "
    "döndüğünü söyledi ama kimse ona inanmadı. Güneş tepenin ardına çekilince herkes evine dağıldı; geriye yalnız "
    "cırcır böceklerinin sesi ve uzaktan gelen bir köpek havlaması kaldı. "
)
ENGLISH = (
    "Every evening the same people met under the plane tree at the edge of the village. While the mayor stirred his "
    "tea and complained about the late rain, the teacher talked about the library that would open next year. The "
    "children had built a small dam with stones from the creek and were holding back the water. "
)
FOREIGN = {
    "English": ENGLISH,
    "Azerbaijani": "Kəndin girişindəki çinarın altında hər axşam eyni adamlar toplaşırdı. Müəllim gələn il açılacaq "
    "kitabxana haqqında danışır, uşaqlar isə çaydan yığdıqları daşlarla kiçik bir bənd düzəldirdilər.",
    "Uzbek": "Qishloqning kirish qismidagi chinor tagida har kuni kechqurun bir xil odamlar yig'ilishardi. O'qituvchi "
    "kelasi yili ochiladigan kutubxona haqida gapirib berar, bolalar esa kichik to'g'on qurishardi.",
    "Turkmen": "Obanyň girelgesindäki çynaryň aşagynda her agşam şol bir adamlar ýygnanýardylar. Mugallym geljek ýyl "
    "açyljak kitaphana barada gürrüň berýärdi, çagalar bolsa çaýdan ýygnan daşlary bilen kiçijik bent gurýardylar.",
}
BARE = str.maketrans("çğıöşüÇĞİÖŞÜ", "cgiosuCGIOSU")


def fault(text, **settings):
    """The first fault and its filter's name, or None."""
    view = TextView(text)
    found = ((each.name, each.fault(view)) for each in build_filters(FilterSettings(**settings)))
    return next((each for each in found if each[1] is not None), None)


# Repetition, by plain counts ----------------------------------------------------------------------------------------


def plain_top(words, n):
    counts = Counter(" ".join(words[start : start + n]) for start in range(len(words) - n + 1))
    if not counts:
        return 0
    text, times = counts.most_common(1)[0]
    return len(text) * times


def plain_duplicates(words, n):
    seen, found, place = set(), 0, 0
    while place < len(words) - n + 1:
        run = tuple(words[place : place + n])
        if run in seen:
            found += sum(map(len, run))
            place += n
        else:
            seen.add(run)
            place += 1
    return found


few_words = st.lists(st.sampled_from(["a", "bir", "ve", "kapı", "ağaçlar"]), max_size=60)


@given(few_words, st.integers(2, 10))
def test_runs_are_counted_as_a_plain_loop_counts_them(words, n):
    assert Runs(words).top_characters(n) == plain_top(words, n)
    assert Runs(words).duplicate_characters(n) == plain_duplicates(words, n)


@given(few_words, st.integers(0, 200))
def test_what_is_skipped_is_not_more_than_enough_whatever_was_asked_before(words, enough):
    runs = Runs(words)
    for n in range(2, 11):
        for found, plain in (
            (runs.top_characters(n, enough), plain_top(words, n)),
            (runs.duplicate_characters(n, enough), plain_duplicates(words, n)),
        ):
            assert found == plain or (found == 0 and plain <= enough)


@given(st.lists(st.sampled_from(["a", "bir", "ve", "kapı", "ağaçlar", "ev", "su"]), min_size=1, max_size=80))
def test_verdict_on_runs_is_that_of_the_plain_counts(words):
    text = " ".join(words)
    settings = FilterSettings(ngram_words=1)
    expected = any(plain_top(words, n) / len(text) > most for n, most in settings.top_ngrams.items()) or any(
        plain_duplicates(words, n) / len(text) > most for n, most in settings.duplicate_ngrams.items()
    )
    assert (RepetitionFilter(settings).fault(TextView(text)) is not None) == expected


def test_counts_agree_with_datatrove():
    datatrove = pytest.importorskip("datatrove.pipeline.filters.gopher_repetition_filter")
    words = (TURKISH * 2 + "Bir sözcük daha. " * 5).lower().split()
    for n in range(2, 11):
        assert Runs(words).top_characters(n) == datatrove.find_top_duplicate(datatrove.get_n_grams(words, n))
        assert Runs(words).duplicate_characters(n) == datatrove.find_all_duplicate(words, n)


def test_repeated_lines_are_a_fault_and_said_with_their_share():
    lines = [sentence + "." for sentence in TURKISH.strip(" .").split(". ")]
    assert fault("\n".join(lines)) is None
    assert fault("\n".join([lines[0]] * 3 + [lines[1]])) == (
        "repetition",
        "duplicate lines 0.50 > 0.303",
    )


def test_a_text_that_says_all_twice_is_dropped():
    assert fault(TURKISH) is None
    assert fault(TURKISH * 2)[0] == "repetition"


# Language -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOREIGN)
def test_text_in_another_language_is_dropped(name):
    found = LanguageFilter(FilterSettings()).fault(TextView(FOREIGN[name]))
    assert found is not None
    assert "Turkish" in found


@pytest.mark.parametrize(
    "text",
    [
        "Geldim.", "Bugün hava çok güzel, dışarı çıkıp yürüdük.", TURKISH, TURKISH.translate(BARE),
        TURKISH.replace("i", "İ").upper(), "bugun hava cok guzel, disari cikip yuruduk ve eve gec geldik",
        "Merhaba, dun senin icin aradim ama evde yoktun, aksam tekrar ararim.",
    ],
)  # fmt: skip
def test_turkish_stays_short_in_capitals_or_without_its_letters(text):
    assert LanguageFilter(FilterSettings()).fault(TextView(text)) is None


def test_frequent_words_tell_bare_turkish_where_the_detector_errs(monkeypatch):
    monkeypatch.setattr(language, "_detector", lambda: lambda piece: "az")
    assert language.language_of("Bu kadar cok is var ama kimse yok.") == "tr"
    assert language.language_of("HIC GUZEL KI DEGIL ONLAR.") == "tr"
    assert language.language_of(ENGLISH) == "az"


def test_turkish_without_its_letters_is_dropped_only_on_demand():
    bare = TURKISH.translate(BARE)
    for choice in ("keep", "mark"):
        assert fault(bare, ascii_turkish=choice) is None
    assert fault(bare, ascii_turkish="drop") == ("language", "Turkish without its letters")
    assert fault(TURKISH, ascii_turkish="drop") is None


def test_half_english_is_dropped_and_a_quotation_is_not():
    assert fault(TURKISH + ENGLISH + ENGLISH.replace("village", "town"))[0] == "language"
    quoting = TURKISH + "Kapının üstünde “Knock before you enter” yazıyordu."
    assert fault(quoting) is None
    assert fault(TURKISH + ENGLISH, language_share=0.3) is None


@given(st.text("abc ", max_size=6000), st.integers(1, 8), st.integers(1, 400))
def test_pieces_are_few_and_short_and_reach_from_start_to_end(text, most, longest):
    found = pieces(text, most, longest)
    assert 1 <= len(found) <= most
    assert all(len(piece) <= longest and piece in text for piece in found)
    assert text.startswith(found[0])
    if len(found) > 1:
        assert text.endswith(found[-1])


# Words, lines, spam -------------------------------------------------------------------------------------------------


TURKISH_WORDS = (
    "ağaçların ankara'nın kontrol türkçe saat matbaa o ve spor tren elektrik ilginçtir kalp hâlâ sırtlan "
    "afyonkarahisarlılaştıramadıklarımızdan orta-doğu program ihtilâlci boğaziçi'ndeki alt"
)


@pytest.mark.parametrize("word", TURKISH_WORDS.split())
def test_turkish_words_and_loans_look_turkish(word):
    assert looks_turkish(word)


OTHER_WORDS = "ctrl window xyz ğaz strstr html5 aaaa queen grrrl hmm ьо k8s"


@pytest.mark.parametrize("word", OTHER_WORDS.split())
def test_codes_and_foreign_spellings_do_not(word):
    assert not looks_turkish(word)


def test_wreckage_of_letters_is_no_text():
    assert fault("ktr strm plkv wxz qrst bnm " * 10, language=False, words=False, repetition=False)[0] == "valid words"


def test_numbers_and_lists_are_no_running_text():
    table = " ".join(f"Satır {number} | {number * 7} | {number * 13}" for number in range(30))
    assert fault(table, language=False)[0] == "words"
    names = "\n".join(["Ankara", "Bursa", "Çorum", "Denizli", "Edirne", "Giresun", "Hatay"])
    assert fault(names, language=False)[0] == "lines"


def test_words_without_the_frequent_ones_are_no_running_text():
    assert (
        fault(" ".join(f"kelime{'lar' * (number % 3)} kapılar" for number in range(40)), language=False)[0] == "words"
    )


def test_news_about_betting_stays_and_an_advertisement_does_not():
    news = (
        "Emniyet müdürlüğü ekipleri, yasa dışı bahis oynatan bir şebekeye yönelik beş ilde operasyon düzenledi. "
        "Gözaltına alınan on iki kişinin, kurdukları internet siteleri üzerinden bahis oynattığı ve elde edilen parayı "
        "başkalarının hesaplarından geçirdiği belirlendi. Savcılık, bahis gelirinin yurt dışına aktarıldığını "
        "açıkladı. Aramalarda çok sayıda bilgisayar ile telefon ele geçirildi. Şüpheliler adliyeye sevk edildi."
    )
    assert fault(news) is None
    short_news = (
        "Yasa dışı bahis oynatan çeteye operasyon: bahis siteleri üzerinden para kazanan şüphelilerin hesaplarına el "
        "konuldu. Savcılık, bahis sitesi yöneticilerinin ve bahis oynayanların ifadesini alacak."
    )
    assert fault(short_news) is None
    article = (
        "Poker, iskambil kâğıtlarıyla oynanan bir oyundur; oyuncular ellerindeki kâğıtlara göre bahis koyar. Rulet ve "
        "blackjack gibi oyunlarda kasaya karşı, pokerde ise birbirlerine karşı oynarlar."
    )
    assert fault(article) is None
    advertisement = (
        "En güvenilir casino ve canlı bahis sitesi için hemen tıkla! Deneme bonusu ile slot ve rulet oyunlarında "
        "kazan, yatırımsız bonus fırsatları bu adreste. Yüksek oranlar, hızlı çekim ve ücretsiz üyelik seni bekliyor."
    )
    assert fault(advertisement)[0] == "spam"


@pytest.mark.parametrize(
    ("addition", "reason"),
    [
        ("! " * 30, "exclamations"),
        ("https://ornek.com " * 20, "addresses"),
        ("0532 000 00 00 " * 8, "telephone numbers"),
    ],
)
def test_shouting_addresses_and_telephone_numbers_are_spam_when_many(addition, reason):
    name, detail = fault(TURKISH + addition, words=False, language=False, repetition=False)
    assert name == "spam"
    assert detail.startswith(reason)
    assert fault(TURKISH + addition.split()[0]) is None


# Settings -----------------------------------------------------------------------------------------------------------

SWITCHES = {
    "lines": False, "words": False, "language": False, "valid_words": 0.0, "spam": False, "repetition": False,
}  # fmt: skip


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_filter_can_be_switched_off(switch):
    names = [each.name for each in build_filters(FilterSettings(**{switch: SWITCHES[switch]}))]
    assert switch.replace("_", " ") not in names
    assert len(names) == len(SWITCHES) - 1


def test_with_all_off_everything_stays():
    assert build_filters(FilterSettings(**SWITCHES)) == []


def test_settings_come_from_a_recipe_and_json_alike():
    settings = check({"top_ngrams": {2: 0.1}, "language_share": 0.5}, FilterSettings, place="recipe")
    assert settings.top_ngrams == {2: 0.1}
    assert FilterSettings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize("setting", ["top_ngrams", "duplicate_ngrams"])
@pytest.mark.parametrize("shares", [{0: 0.1}, {-1: 0.1}, {2: -0.1}])
def test_runs_have_a_word_or_more_and_shares_are_not_negative(setting, shares):
    with pytest.raises(RecipeError, match=f"{setting}.* input should be greater than or equal to"):
        check({setting: shares}, FilterSettings, place="recipe")


def test_no_text_makes_a_filter_fail():
    for text in ("", " ", "\n\n", "...", "123", "''", "\u0307", "🎉"):
        fault(text)
        for each in build_filters(FilterSettings()):
            each.fault(TextView(text))


@given(st.text(max_size=300))
def test_any_text_gets_a_verdict_and_the_same_one_twice(text):
    assert fault(text) == fault(text)


def test_parts_are_made_once_and_words_are_lower_cased_in_turkish():
    view = TextView("IŞIK söndü!\n\nİzmir'de 3 ev")
    assert view.words == ["ışık", "söndü", "izmir'de", "3", "ev"]
    assert view.words is view.words
    assert view.lines == ["IŞIK söndü!", "İzmir'de 3 ev"]
    assert view.paragraphs == view.lines


def test_a_dictionary_counts_the_words_that_it_knows(tmp_path):
    pytest.importorskip("hunspell")
    (tmp_path / "tr.aff").write_text("SET UTF-8\n", encoding="utf-8")
    (tmp_path / "tr.dic").write_text("3\nkapı\nağaç\nİzmir\n", encoding="utf-8")
    settings = {"dictionary": tmp_path / "tr.dic", "valid_words": 0.7, "language": False}
    assert fault("İzmir'de kapı ve ağaç.", **settings) is None
    assert fault("Falan filan kapı, ağaç.", **settings) == ("valid words", "valid words 0.50 < 0.7")


def test_a_missing_dictionary_is_said_by_name(tmp_path):
    with pytest.raises(DataError, match=r"none\.dic does not exist"):
        build_filters(FilterSettings(dictionary=tmp_path / "none.dic"))
