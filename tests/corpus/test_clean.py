"""What is repaired is what a reader would repair; right text passes unchanged, and a second pass finds nothing."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from diffutron.corpus.clean import Cleaner, CleaningSettings
from diffutron.text import normalise
from diffutron.text.letters import lacks_turkish_letters

ALL = Cleaner(CleaningSettings(personal_data=True))
DEFAULT = Cleaner(CleaningSettings())
STEPS = ("encoding", "punctuation", "dotless", "boilerplate", "personal_data")

SENTENCE = "Işıl Öğretmen, Şubat'ta İzmir'den Çorlu'ya güneşli bir günde taşındı; ağaçlar çiçeğe durmuştu."
DATA = Path(__file__).parents[2] / "data" / "tr" / "human.jsonl.gz"


def only(step):
    return Cleaner(CleaningSettings(**{name: name == step for name in STEPS}))


# What each step looks for, in pieces that can meet: neighbours after one repair may need another.
PIECES = [
    "Ankara", "ı", "i", "ğ", "ş", "İ", "a", "\n", "\n\n", " ", "'", "''", "’", "‘", "`", "´", "ʼ", "′", "°", "41",
    "\u0307", "\u0327", "\u200b", "Ã", "Ä", "Å", "Ÿ", "ž", "±", "\x9f", "\x85", "â€™", "Â ", "ý", "þ", "ð", "|", "…",
    "©", "[", "]", "Ana Sayfa", "Künye", "Spor", "Paylaş", "Devamını oku", "Tüm hakları saklıdır", "çerez",
    "uzun " * 45, "0532 123 45 67", "10000000146", "a@b.co", "TR33",
]  # fmt: skip
texts = st.text() | st.lists(st.sampled_from(PIECES), max_size=25).map("".join)


@given(texts)
@example("Ã\u200b¶")
@example("i\u200b\u0307")
@example("Ana Sayfa\nDevamını oku\nKünye\nTüm hakları saklıdır\nSpor")
@example("… Devamını oku\nDevamını oku")
@example("Ankara'''da")
def test_cleaning_twice_is_cleaning_once(text):
    once = ALL(text)
    again = ALL(once.text)
    assert again.text == once.text
    assert again.repairs == ()


@given(texts)
def test_result_is_in_normal_form_and_repairs_stand_in_the_order_of_the_settings(text):
    cleaned = ALL(text)
    assert normalise(cleaned.text) == cleaned.text
    assert [name for name in STEPS if name in cleaned.repairs] == list(cleaned.repairs)


@given(texts)
def test_with_every_step_off_only_the_normal_form_is_made(text):
    cleaned = only(None)(text)
    assert cleaned.text == normalise(text)
    assert cleaned.repairs == ()


SMALL, CAPITAL = "a-zçğıöşü", "A-ZÇĞİÖŞÜ"
turkish_words = st.from_regex(
    f"[{CAPITAL}]?[{SMALL}][{SMALL}âîû]{{1,6}}|[{CAPITAL}]([{CAPITAL}]|[ÂÎÛ][{CAPITAL}]){{0,3}}[ÂÎÛ]?|[0-9]{{1,4}}",
    fullmatch=True,
)
between = st.sampled_from(
    [" ", ", ", ". ", "’", "'", " “", "” ", "”, ", " ‘", "’ ", " – ", "–", "—", "… ", "…", "!\n", "\n— "]
)


@given(st.lists(st.tuples(turkish_words, between)).map(lambda parts: "".join(word + sign for word, sign in parts)))
@example("“YUNUS EMRE VE HACI BEKTAŞ-I VELÎ”, BELÂ – KÂĞIT, BELÂ – André’nin")
def test_turkish_letters_and_punctuation_are_never_taken_for_mojibake(text):
    assert only("encoding")(text).repairs == ()


@pytest.mark.skipif(not DATA.exists(), reason="needs the training data")
def test_real_text_is_left_alone():
    with gzip.open(DATA, "rt", encoding="utf-8") as lines:
        documents = [json.loads(line)["text"] for line, _ in zip(lines, range(2000), strict=False)]
    repairs = [DEFAULT(text).repairs for text in documents]
    assert sum("boilerplate" in names for names in repairs) == 0
    assert sum("dotless" in names for names in repairs) == 0
    assert sum("encoding" in names for names in repairs) <= 2
    assert sum("punctuation" in names for names in repairs) <= 20
    assert not any(lacks_turkish_letters(text) for text in documents)


def test_unknown_settings_are_refused():
    with pytest.raises(ValidationError):
        CleaningSettings(deasciify=True)


# Encoding


@pytest.mark.parametrize("encoding", ["latin-1", "sloppy-windows-1252", "sloppy-windows-1254", "cp437", "macroman"])
def test_utf8_read_as_another_encoding_is_read_again(encoding):
    assert DEFAULT(SENTENCE.encode().decode(encoding)).text == SENTENCE


def test_text_that_was_misread_twice_is_read_again():
    twice = SENTENCE.encode().decode("sloppy-windows-1252").encode().decode("sloppy-windows-1252")
    assert DEFAULT(twice).text == SENTENCE


@pytest.mark.parametrize("between", [" ", "\n"])
def test_a_misread_part_is_mended_beside_a_right_one(between):
    misread = SENTENCE.encode().decode("sloppy-windows-1252")
    assert DEFAULT(SENTENCE + between + misread).text == SENTENCE + between + SENTENCE


def test_turkish_latin5_read_as_latin1_is_read_again():
    misread = SENTENCE.encode("iso-8859-9").decode("latin-1")
    assert "þ" in misread
    cleaned = DEFAULT(misread)
    assert (cleaned.text, cleaned.repairs) == (SENTENCE, ("encoding",))


@pytest.mark.parametrize(
    "text",
    [
        "Það er gott veður í dag og sólin skín á fjöllin.",  # Icelandic
        "Dobrý den, jaký je dnes krásný a nový svět?",  # Czech
        "Þráinn ile Þórr adlı iki kişi ýþ harfleriyle yazılır; bu açık.",  # foreign names in right Turkish
        "Ålesund’un “küçük” évi; ÂŞIK VEYSEL – 25 °C, §3, 5 × 3 ± 2, naïve, Dvořák’ın",
    ],
)
def test_foreign_letters_are_no_mojibake(text):
    assert only("encoding")(text).repairs == ()


# Punctuation


@pytest.mark.parametrize("mark", ["´", "`", "‘", "ʼ", "′", "''", "’’", "'’", "´´", "``"])
def test_every_stand_in_between_name_and_suffix_becomes_an_apostrophe(mark):
    cleaned = DEFAULT(f"Ankara{mark}da 1923{mark}te yazıldı.")
    assert (cleaned.text, cleaned.repairs) == ("Ankara'da 1923'te yazıldı.", ("punctuation",))


@pytest.mark.parametrize(
    "text",
    [
        "Ankara'da ve Ankara’da, “söz” ile ‘söz’ ve «söz».",
        "Adı 'Ankara''dır; 'evet''e basın.",
        "`print`e bakın, sonra `input`u deneyin.",
        "13°41′N 89°11′W, 10°39′kuzey, x′y = A′B",
        "rock 'n' roll, '90'lar, 5'' ekran",
    ],
)
def test_quotes_code_and_primes_are_left(text):
    assert DEFAULT(text).text == text


# Dots


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("i\u0307stanbul", "istanbul"),
        ("ı\u0307stanbul", "istanbul"),
        ("İ\u0307stanbul", "İstanbul"),
        ("gu\u0308zel s\u0327is\u0327e, dag\u0306", "güzel şişe, dağ"),
        ("bir \u0307ki, ş\u0307ey", "bir ki, şey"),
    ],
)
def test_dots_go_where_only_one_reading_is_possible(wrong, right):
    assert only("dotless")(wrong).text == right


@pytest.mark.parametrize("text", ["isparta IZMIR KADIN kadin", "żaba, ėjo, ṁ", "j\u0307 x\u0307", "o\u0323\u0307"])
def test_no_letter_is_guessed_and_foreign_dots_stay(text):
    assert only("dotless")(text).text == normalise(text)


# Boilerplate

STORY = "Yağmur bütün gece yağdı ve sabaha karşı dindi."


@pytest.mark.parametrize(
    "lines",
    [
        "Devamını oku",
        "DEVAMINI OKU »",
        "[Devamını Oku…]",
        "Facebook’ta Paylaş",
        "Yorum yapabilmek için üye girişi yapmalısınız.",
        "Tüm hakları saklıdır.",
        "© 2019 Örnek Gazetesi - Tüm Hakları Saklıdır. İzinsiz alıntı yapılamaz.",
        "Copyright © 2020 Örnek A.Ş. All rights reserved.",
        "Bu site çerez kullanmaktadır. Devam ederek kabul etmiş olursunuz.",
        "Sitemizde size daha iyi hizmet verebilmek için çerezler kullanılmaktadır.",
        "Siteyi gezerek çerez kullanımını kabul ediyorsunuz",
        "Ana Sayfa\nGündem\nSpor\nKünye",
        "Ana Sayfa\n\nGündem\n\nKöşe Taşları\n\nİletişim",
        "Ana Sayfa | Gündem | Ekonomi | İletişim",
        "Anasayfa » Hakkımızda » Ürünler",
        "Facebook\nTwitter\nPaylaş\nYazdır",
    ],
)
def test_page_furniture_goes_and_the_story_stays(lines):
    cleaned = DEFAULT(f"{STORY}\n{lines}\n{STORY[:20]} başladı.")
    assert cleaned.text == f"{STORY}\n{STORY[:20]} başladı."
    assert cleaned.repairs == ("boilerplate",)
    assert DEFAULT(lines).text == ""


def test_the_link_behind_a_teaser_goes_and_the_teaser_stays():
    assert DEFAULT(f"{STORY}\nYağmur yine başladı... Devamını oku »").text == f"{STORY}\nYağmur yine başladı..."


def test_of_a_repeated_paragraph_the_first_stays():
    paragraph = "Bu uzun paragraf sayfada iki kez durur. " * 6
    assert DEFAULT(f"{paragraph}\n{STORY}\n{paragraph}\nSon.").text == f"{paragraph.strip()}\n{STORY}\nSon."


def test_of_a_link_that_stands_alone_again_and_again_the_first_stays():
    assert (
        DEFAULT(f"Reklam\n{STORY}\nReklam\nYağmur dindi.\nReklam\nSon.").text == f"Reklam\n{STORY}\nYağmur dindi.\nSon."
    )


@pytest.mark.parametrize(
    "text",
    [
        "Gel gönül\nGel gönül\n\nDağlara çıkalım\nGel gönül\n\nSular aksın\nGel gönül\nGel gönül",  # a song's refrain
        "— Geldin mi?\n— Evet.\n— Gördün mü?\n— Evet.\n— Evet.",
        "Malzemeler\n- Un\n- Su\n- Tuz\n- Yağ\nYapılışı\n- Un\n- Su",
        "Spor\nEkonomi\nSağlık\nEğitim\nKültür\nSanat",  # a list of subjects
        "İletişim\nİnsanlar konuşarak anlaşır.\nReklam\nReklam, bir ürünü tanıtır.\nHakkımızda\nBiz iki kardeşiz.",
        "Facebook\nTwitter\nInstagram\nYouTube",
        "Kitabın arkasında şu yazıyordu: Tüm hakları saklıdır.",
        "Sanatçı, tüm hakları saklıdır dedi.",
        "Çerez, tarayıcının sakladığı küçük bir dosyadır. Siteler kullanıcıyı tanımak için çerez kullanır.",
        "Misafirlere çay ve çerez sunuldu.",
        "Annem her akşam bana masalın devamını okurdu... Devamını okumak isterdim.",
        "Haberi paylaştı ve yukarı çıktı.",
        "a | b | c\n1 | 2 | 3",
    ],
)
def test_poems_dialogues_lists_headings_and_talk_of_such_things_stay(text):
    assert DEFAULT(text).text == text


# Personal data


def test_personal_data_stays_unless_it_is_asked_for():
    text = "Bana ayse@ornek.com.tr veya 0532 123 45 67 ile ulaşın."
    assert DEFAULT(text).text == text


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("Kimlik no: 10000000146.", "Kimlik no: [KİMLİK]."),
        ("TR330006100519786457841326", "[IBAN]"),
        ("Hesap TR33 0006 1005 1978 6457 8413 26, lütfen", "Hesap [IBAN], lütfen"),
        ("ayse.yilmaz+is@ornek.com.tr'ye yazın.", "[E-POSTA]'ye yazın."),
        ("0532 123 45 67", "[TELEFON]"),
        ("05321234567", "[TELEFON]"),
        ("0 (532) 123 45 67", "[TELEFON]"),
        ("+90 532 123 45 67", "[TELEFON]"),
        ("+905321234567'yi arayın", "[TELEFON]'yi arayın"),
        ("0090 212 123 4567", "[TELEFON]"),
        ("(0212) 123 45 67", "[TELEFON]"),
        ("Tel:(212) 123-45-67", "Tel:[TELEFON]"),
        ("0212-123-45-67", "[TELEFON]"),
        ("0850 123 45 67", "[TELEFON]"),
        ("532 123 45 67", "[TELEFON]"),
        ("0532 123 45 67,0533 765 43 21", "[TELEFON],[TELEFON]"),
        ("0532 123 45 67-0533 765 43 21", "[TELEFON]-[TELEFON]"),
        ("0212 555 12 12-13", "[TELEFON]-13"),
        ("Tel.0532 123 45 67", "Tel.[TELEFON]"),
        ("GSM.05321234567", "GSM.[TELEFON]"),
        ("Ali,0532 123 45 67,Ankara", "Ali,[TELEFON],Ankara"),
        ("05321234567-ev", "[TELEFON]-ev"),
        ("TC No.10000000146", "TC No.[KİMLİK]"),
        ("Ad,10000000146,Soyad", "Ad,[KİMLİK],Soyad"),
        ("10000000146,10000000146,0532 123 45 67", "[KİMLİK],[KİMLİK],[TELEFON]"),
        ("ali@gmail.com-dan", "[E-POSTA]-dan"),
        ("ali@gmail.com-veli@gmail.com", "[E-POSTA]-[E-POSTA]"),
    ],
)
def test_personal_data_becomes_a_placeholder_on_request(text, hidden):
    cleaned = only("personal_data")(text)
    assert (cleaned.text, cleaned.repairs) == (hidden, ("personal_data",))


@pytest.mark.parametrize(
    "text",
    [
        "10000000147",  # wrong check digit
        "010000000146 100000001460 3.10000000146",
        "TR330006100519786457841327",  # wrong check digits
        "2 123 456 789 kişi, 1 250 300 45 67, 12345678",
        "1990-1995, 15.04.2021 12:30:45, 192.168.100.100, ISBN 978-605-123-456-7",
        "kullanıcı@makine ve @ayse, paket@1.2.3",
        "0,5321234567 ve 0.2123456789",
        "3.05321234567 ve 3,05321234567, 1990-05321234567",
        "ISBN 978-0-321-12345-6, 9780321123456, 0-306-40615-2; 053212345678",
    ],
)
def test_other_numbers_are_no_personal_data(text):
    assert only("personal_data")(text).text == text


@given(st.integers(100_000_000, 999_999_999), st.integers(0, 99))
def test_an_identity_number_is_one_only_with_its_two_check_digits(nine, last):
    digits = [int(digit) for digit in str(nine)]
    tenth = (7 * (digits[0] + digits[2] + digits[4] + digits[6] + digits[8]) - sum(digits[1:8:2])) % 10
    right = 10 * tenth + (sum(digits) + tenth) % 10
    assert only("personal_data")(f"{nine}{right:02d}").text == "[KİMLİK]"
    if last != right:
        assert only("personal_data")(f"{nine}{last:02d}").text == f"{nine}{last:02d}"


# Letters


@pytest.mark.parametrize(
    "text",
    [
        "Bugun hava cok guzel, disari ciktik",
        "BUGUN HAVA COK GUZEL OLACAK",
        "Kardesim okuldan geldi ve anneme yardim etti. Aksam hep birlikte sofraya oturduk, sohbet ettik. " * 3,
        "Kardesim okuldan geldi ve anneme yardim etti, sonra disarida oynadi ve yoruldu. " * 3 + "Imza: Gül",
        "BU BENIM ICIN ONEMLI, DEDI",  # the only bare word has an I
    ],
)
def test_turkish_typed_without_its_letters_is_flagged(text):
    assert lacks_turkish_letters(text)


@pytest.mark.parametrize(
    "text", ["", "cok", "Ne haber?", "Ali okula gitti ve sonra eve geldi.", SENTENCE, SENTENCE * 20]
)
def test_turkish_letters_or_too_few_words_are_not_flagged(text):
    assert not lacks_turkish_letters(text)
