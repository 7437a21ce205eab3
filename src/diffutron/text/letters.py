"""The letters that Turkish has and ASCII has not: whether a text was typed without them, and dots that went astray."""

from __future__ import annotations

import re
import unicodedata

from diffutron.text.casing import lower_tr

# No I: whether it is a Turkish letter or an ASCII i in capitals, only the reader knows.
TURKISH = "çğıöşüÇĞİÖŞÜ"
_FEWEST_LETTERS, _ENOUGH_LETTERS = 20, 100
_LOWEST_RATE = 0.015
# Frequent words that are no words once they lose their dots and cedillas.
_BARE = re.compile(
    r"\b(?:"
    r"acik|agac|aldigi|altinda|arasinda|artik|asagi|ayni|baslica|basladi|bagli|buyuk|bugun|butun|"
    r"boyle|cikti|cok|cocuk|cunku|degil|degisik|dogru|dunya|dusunce|edildigi|gecen|gore|gorev|"
    r"gun|guzel|hic|icin|iliskin|ilginc|kadin|karsi|kisi|kucuk|nasil|nufus|ogrenci|oldugu|"
    r"olmadigi|onemli|once|ornek|ozel|ozellikle|soyle|soyledi|simdi|tarafindan|turkce|turkiye|"
    r"universite|ustunde|uzerinde|uzerine|ulke|uye|yapildi|yuksek|yuzyil|yalniz|yonetim"
    r")\b"
)

_DOT = "\u0307"
# On an i of either kind, on a Turkish letter that no alphabet dots, or on nothing: the wreckage of İ and i.
_DOTLESS_DOTTED = re.compile(f"ı{_DOT}+")
_STRAY_DOT = re.compile(rf"(?:(?<=[iİçğöşüÇĞÖŞÜ\W\d_])(?<![\u0300-\u036f])|^){_DOT}+")


def lacks_turkish_letters(text: str) -> bool:
    """Whether a Turkish text was typed without ç ğ ı ö ş ü: fewer than 1.5 of 100 letters are (of real texts, 10 are).

    A text of fewer than 100 letters may lack them by chance; it must have none, and a word that can only be bare
    (``cok``). Fewer than 20 letters say nothing. Only to be asked of Turkish text.

    >>> lacks_turkish_letters("Bugun hava cok guzel, disari ciktik")
    True
    """
    turkish = sum(map(text.count, TURKISH))
    if turkish >= _LOWEST_RATE * len(text):
        return False
    letters = sum(map(str.isalpha, text))
    if letters >= _ENOUGH_LETTERS:
        return turkish < _LOWEST_RATE * letters
    return letters >= _FEWEST_LETTERS and not turkish and _BARE.search(lower_tr(text).replace("ı", "i")) is not None


def mend_dots(text: str) -> str:
    """``ı`` + U+0307 is an i; a U+0307 on another i, on ç ğ ö ş ü or on no letter at all is dropped. In NFC.

    Letters that other languages dot (ė, ż, ȧ) and case stay as they are; so does every i that may be an ı.

    >>> mend_dots("ı\\u0307yi \\u0307gün")
    'iyi gün'
    """
    if _DOT not in text:
        return text
    text = _STRAY_DOT.sub("", _DOTLESS_DOTTED.sub("i", unicodedata.normalize("NFC", text)))
    return unicodedata.normalize("NFC", text)
