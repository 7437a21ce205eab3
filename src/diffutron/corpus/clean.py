"""Repairs of a text before it is judged: encoding, apostrophes, dots, page furniture, and personal data on request.

Every repair is one that a reader of Turkish would make without asking; what is a matter of opinion stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import ftfy

from diffutron.corpus import compared
from diffutron.recipe import Settings
from diffutron.text import normalise
from diffutron.text.letters import lacks_turkish_letters, mend_dots

__all__ = [
    "Cleaned", "Cleaner", "CleaningSettings", "hide_personal_data", "lacks_turkish_letters", "mend_apostrophes",
    "mend_encoding", "remove_boilerplate",
]  # fmt: skip


class CleaningSettings(Settings):
    """What is repaired in a text."""

    encoding: bool = True
    """Repair text that was decoded with the wrong encoding (mojibake)."""
    punctuation: bool = True
    """Make accents, backticks, primes and doubled apostrophes between letters the apostrophe that they stand for."""
    dotless: bool = True
    """Repair the dots of i and ı where only one reading is possible."""
    boilerplate: bool = True
    """Remove lines of page furniture: menus, cookie notes, share buttons, copyright lines, repeated paragraphs."""
    personal_data: bool = False
    """Replace identity numbers, IBANs, telephone numbers and e-mail addresses by placeholders."""


@dataclass(frozen=True)
class Cleaned:
    """A text in its normal form, and the names of the steps that changed something, in the order of the settings."""

    text: str
    repairs: tuple[str, ...]


class Cleaner:
    """Applies the steps that are switched on until none of them finds anything: cleaning twice is cleaning once.

    Takes the text as it was read: in its normal form, mojibake has already lost some of its bytes.
    """

    # A repair can uncover another: letters that were mojibake, lines that are neighbours now. Two rounds are common.
    _MOST_ROUNDS = 50

    def __init__(self, settings: CleaningSettings) -> None:
        steps: dict[str, Callable[[str], str]] = {
            "punctuation": mend_apostrophes,
            "dotless": mend_dots,
            "boilerplate": remove_boilerplate,
            "personal_data": hide_personal_data,
        }
        self._mends_encoding = settings.encoding
        self._steps = [(name, step) for name, step in steps.items() if getattr(settings, name)]

    def __call__(self, text: str) -> Cleaned:
        repairs: dict[str, None] = {}
        for _ in range(self._MOST_ROUNDS):
            before = text
            if self._mends_encoding and (mended := mend_encoding(text)) != text:
                repairs["encoding"], text = None, mended
            text = normalise(text)
            for name, step in self._steps:
                if (mended := step(text)) != text:
                    repairs[name], text = None, normalise(mended)
            if text == before:
                break
        return Cleaned(text, tuple(name for name in CleaningSettings.model_fields if name in repairs))


# Encoding

# Where a byte of UTF-8 was taken for a character, a character beyond ASCII precedes another, and it is neither one of
# Turkish nor a quotation mark; or a control character stands where none belongs; or a hard space has become a soft one.
_SUSPICIOUS = re.compile(r"[^\x00-\x7fçğıöşüÇĞİÖŞÜ’‘“”–—…][^\x00-\x7f]|[\x80-\x9f]|[ÃÂ] ")
# A word in capitals may end in a circumflex: of “VELÎ” ftfy would make “VELΔ (a Greek delta). Such a line is left.
_CAPITAL_CIRCUMFLEX = re.compile("[A-ZÇĞİÖŞÜ][ÂÎÛ][’‘“”–—… ]")
# What ftfy leaves where other parts of the line are right; no language puts these letters side by side.
_LEFT_OVER = {"ÄŸ": "ğ", "Äž": "Ğ", "ÅŸ": "ş", "Åž": "Ş"}
_LATIN_5 = str.maketrans("ðýþÐÝÞ", "ğışĞİŞ")
_MISREAD = "ðýþÐÝÞ"
_LATIN_5_ONLY = re.compile("[ğışĞİŞ]")
# Beyond ASCII, all that a misread Turkish text may have: Icelandic and Czech, which spell with ð, þ and ý, have more.
_NOT_MISREAD = re.compile(r"(?![çöüÇÖÜâîûÂÎÛðýþÐÝÞ])[^\W\d_a-zA-Z]")
_LOWEST_MISREAD_RATE = 0.02


def mend_encoding(text: str) -> str:
    """Undo mojibake: UTF-8 read as another encoding (``ÅŸ``), and Turkish Latin-5 read as Latin-1 (``ýþýk``).

    The latter only if the whole text is so: not one ğ, ı or ş, and at least 2 of 100 characters are ð, ý or þ.
    """
    if text.isascii():
        return text
    if _SUSPICIOUS.search(text):
        # By lines: one that is right would keep another, wrong one from being decoded.
        text = "\n".join(map(_mend_line, text.split("\n")))
        for wrong, right in _LEFT_OVER.items():
            text = text.replace(wrong, right)
    misread = sum(map(text.count, _MISREAD))
    if misread < 3 or misread < _LOWEST_MISREAD_RATE * len(text):
        return text
    if _LATIN_5_ONLY.search(text) or _NOT_MISREAD.search(text):
        return text
    return text.translate(_LATIN_5)


def _mend_line(line: str) -> str:
    if not _SUSPICIOUS.search(line) or _CAPITAL_CIRCUMFLEX.search(line):
        return line
    return ftfy.fix_encoding(line)


# Apostrophes

_APOSTROPHE = "'"  # four times as common as ’ in Turkish text; a ’ is right as well and stays
_LETTER = r"[^\W\d_]"
_ACCENT = re.compile(rf"(?<=[^\W_])[´‘ʼ](?={_LETTER})")
_BACKTICK = re.compile(rf"(?<=[^\W_])`(?={_LETTER})")
# Not the minutes of 41°13′N or 41°13′kuzey, nor the prime of x′y.
_PRIME = re.compile(r"(?<=\w\w)(?<!°\d)(?<!°\d\d)′(?=[a-zçğıöşü])")
_DOUBLED = re.compile(rf"(?<=[^\W_])['’´`‘ʼ′]{{2}}(?={_LETTER})")
_TWO = re.compile("['’´`‘ʼ′]{2}")  # faster than what looks behind, and rare
_OPENING_QUOTE = re.compile(r"(?<![\w'’´`‘ʼ′])['’´`‘ʼ′]")


def mend_apostrophes(text: str) -> str:
    """Make ' of ´ ‘ ʼ ` ′ and of doubled apostrophes, where they stand between a letter and a suffix.

    Doubled ones are left in a line that has an opening quote, which one of the two may close: ``'evet''e``. Backticks
    are left in a text that has others, which are code.

    >>> mend_apostrophes("Ankara´da, İzmir''de")
    "Ankara'da, İzmir'de"
    """
    if "´" in text or "‘" in text or "ʼ" in text:
        text = _ACCENT.sub(_APOSTROPHE, text)
    if "′" in text:
        text = _PRIME.sub(_APOSTROPHE, text)
    if "`" in text and len(_BACKTICK.findall(text)) == text.count("`"):
        text = _BACKTICK.sub(_APOSTROPHE, text)
    if _TWO.search(text):
        text = "\n".join(
            line if _OPENING_QUOTE.search(line) else _DOUBLED.sub(_APOSTROPHE, line) for line in text.split("\n")
        )
    return text


# Boilerplate


def _phrases(listed: str) -> frozenset[str]:
    return frozenset(" ".join(phrase.split()) for phrase in listed.split(","))


# A whole line of this is a link or a notice wherever it stands.
_ALWAYS = _phrases(
    """devamını oku, devamını okuyun, devamını göster, devamını okumak için tıklayın, devamını okumak için tıklayınız,
    haberin devamı için tıklayın, haberin devamı için tıklayınız, haberin devamını oku, bu haberi paylaş, haberi paylaş,
    bu yazıyı paylaş, yazıyı paylaş, bu sayfayı paylaş, sayfayı yazdır, arkadaşına gönder, içeriğe geç, içeriğe atla,
    ana içeriğe geç, ana içeriğe atla, yukarı çık, sayfa başına dön, yorum yapmak için giriş yapın,
    yorum yapmak için giriş yapınız, yorum yazmak için giriş yapın, yorum yapabilmek için giriş yapmalısınız,
    yorum yapabilmek için üye girişi yapmalısınız, ilk yorumu siz yapın, ilk yorumu sen yap, henüz yorum yapılmamış,
    henüz yorum yapılmadı, çerezleri kabul et, tüm çerezleri kabul et, facebook'ta paylaş, twitter'da paylaş,
    x'te paylaş, whatsapp'ta paylaş, linkedin'de paylaş, telegram'da paylaş, pinterest'te paylaş, facebook ile paylaş,
    whatsapp ile paylaş, e-posta ile paylaş, google news'te takip et, google haberler'de takip et,
    bültenimize abone olun, e-bültenimize abone olun"""
)
# Links that only the frame of a page has; but they may be headings too.
_FRAME = _phrases(
    """ana sayfa, anasayfa, giriş yap, üye ol, üye girişi, kayıt ol, şifremi unuttum, iletişim, bize ulaşın, künye,
    hakkımızda, gizlilik politikası, gizlilik, çerez politikası, kullanım koşulları, kullanım şartları, kvkk,
    kvkk aydınlatma metni, aydınlatma metni, site haritası, foto galeri, video galeri, fotogaleri, web tv, rss,
    sitene ekle, reklam, reklam ver, sık sorulan sorular, sepetim, hesabım, favorilerim, abone ol, bülten, e-bülten,
    yayın ilkeleri, veri politikası, yazarlar, son dakika, canlı yayın, paylaş, yazdır, menü, arama yap, ara,
    sonraki haber, önceki haber, sonraki yazı, önceki yazı, beğen, yorum yap, yorum yaz, yorumlar, tweetle, yanıtla,
    cevapla, ilgili haberler, benzer haberler, diğer haberler, çok okunanlar, en çok okunanlar, manşetler, arşiv,
    namaz vakitleri, nöbetçi eczaneler, puan durumu, seri ilanlar, resmi ilanlar, hava durumu, takip et, kapat"""
)
# What stands beside them: parts of a newspaper or a shop, and networks to share on.
_SECTIONS = _phrases(
    """gündem, spor, ekonomi, dünya, siyaset, politika, magazin, sağlık, teknoloji, eğitim, kültür, sanat, kültür sanat,
    kültür-sanat, yaşam, otomobil, otomotiv, finans, borsa, döviz, altın, video, videolar, galeri, foto, haberler,
    haber, yerel, asayiş, bilim, çevre, turizm, seyahat, astroloji, burçlar, kadın, moda, televizyon, sinema, müzik,
    röportaj, röportajlar, emlak, yemek, tarifler, blog, ürünler, hizmetlerimiz, projeler, referanslar, duyurular,
    kurumsal, kariyer, medya, futbol, basketbol, facebook, twitter, x, whatsapp, instagram, youtube, linkedin,
    pinterest, telegram, e-posta, google news, etiketler, kategoriler, türkçe, english"""
)
_LINK_EDGES = " »«›‹→←>|•·*+-–—[]()…. :!▼▾↓↑"
_BETWEEN_LINKS = re.compile(r" ?[|»›>•·] ?")
_LONGEST_LINK = 30
_LONGEST_ALWAYS = max(map(len, _ALWAYS)) + 8
_FEWEST_LINKS = 3
_SHORTEST_REPEATED = 200  # a paragraph: steps of instructions and refrains are shorter, and are repeated on purpose
_FEWEST_REPEATED_LINKS = 3

_SAVED = r"(?:(?:tüm|bütün) hakları|her hakkı) saklıdır"
# By a word that each notice has: to look for a word is far cheaper than to match.
_NOTICES = {
    "saklıdır": (
        # "© 2021 Gazete. Tüm hakları saklıdır.", but no sentence that speaks of it
        re.compile(rf"(?:©|\(c\)|copyright|telif hakkı).{{0,120}}{_SAVED}.{{0,120}}"),
        re.compile(rf"(?:[^.!?,:;\"“”'’]{{0,40}} )?{_SAVED}(?: ?[.|©–-].{{0,120}})?"),
    ),
    "rights reserved": (re.compile(r"(?:.{0,80}(?:©|\(c\)|copyright).{0,80})?all rights reserved.{0,60}"),),
    "çerez": (
        re.compile(
            r"(?:bu (?:web |internet )?site(?:si|sinde|de)?|(?:web |internet )?sitemiz(?:de|i)?|size|sizlere) "
            r"(?:.{0,160} )?çerez.{0,80}kullan(?:ıyor|ıl|makta|ır).{0,200}"
        ),
        re.compile(
            r"(?:.{0,120} )?çerez(?:leri|lerin)? kullan(?:ımını|ılmasını|mamızı) kabul ed(?:iyorsunuz|ersiniz).{0,120}"
        ),
    ),
}
_TEASER_END = re.compile(r"(?:(?<=…)|(?<=\.\.\.)|(?<=…\])) ?\[?devamını oku\]?[ »›→>….]*$")


def remove_boilerplate(text: str) -> str:
    """Remove lines that belong to a page and not to its text; of a repeated paragraph, keep the first.

    A line goes if it is a link known for nothing else (``Devamını oku``), a notice of copyright or cookies, or part of
    a menu: three known links or more in lines that follow one another, or in one line; two of them such as only the
    frame of a page has; and half of all that stands there. Of such a link that stands alone three times or more, the
    first stays. Other short lines are left, alike or repeated: poems, dialogues, lists, headings, steps.
    """
    lowered_text = compared.lowered(text)
    lines, lowered = text.split("\n"), lowered_text.split("\n")
    dropped = {*_links(lowered), *_menus(lowered), *_repeated(lines, lowered)}
    for word, notices in _NOTICES.items():
        if word in lowered_text:
            dropped.update(_notices(lowered, notices))
    if "devamını oku" in lowered_text:
        lines = [_without_teaser_end(line, low) for line, low in zip(lines, lowered, strict=True)]
    elif not dropped:
        return text
    return "\n".join(line for place, line in enumerate(lines) if place not in dropped)


def _without_teaser_end(line: str, lowered: str) -> str:
    """The line without a ``Devamını oku`` behind its last dots."""
    found = _TEASER_END.search(lowered) if len(line) == len(lowered) else None
    return line[: found.start()] if found else line


def _links(lowered: list[str]) -> Iterator[int]:
    for place, line in enumerate(lowered):
        if len(line) <= _LONGEST_ALWAYS and line.strip(_LINK_EDGES).replace("’", "'") in _ALWAYS:
            yield place


def _notices(lowered: list[str], patterns: tuple[re.Pattern[str], ...]) -> Iterator[int]:
    for place, line in enumerate(lowered):
        if any(pattern.fullmatch(line) for pattern in patterns):
            yield place


def _repeated(lines: list[str], lowered: list[str]) -> Iterator[int]:
    seen = set[str]()
    links: dict[str, list[int]] = {}
    for place, line in enumerate(lines):
        if len(line) >= _SHORTEST_REPEATED:
            if line in seen:
                yield place
            seen.add(line)
        elif len(line) <= _LONGEST_LINK and (link := lowered[place].strip(_LINK_EDGES)) in _FRAME:
            links.setdefault(link, []).append(place)
    for places in links.values():
        if len(places) >= _FEWEST_REPEATED_LINKS:
            yield from places[1:]


def _menus(lowered: list[str]) -> Iterator[int]:
    run = list[tuple[int, str]]()
    for place, line in enumerate(lowered):
        if not line:  # blank lines part nothing here
            continue
        link = line.strip(_LINK_EDGES)
        if len(link) <= _LONGEST_LINK and line[-1] not in ".,;:?!…":
            run.append((place, link))
            continue
        yield from _menu(run)
        run = []
        cells = _BETWEEN_LINKS.split(line) if len(line) < 2_000 else []
        if len(cells) >= _FEWEST_LINKS:
            yield from _menu([(place, cell.strip(_LINK_EDGES)) for cell in cells if cell])
    yield from _menu(run)


def _menu(run: list[tuple[int, str]]) -> Iterator[int]:
    """The places of a run's lines from the first to the last known link, if it is a menu."""
    if len(run) < _FEWEST_LINKS:
        return
    known = [number for number, (_, link) in enumerate(run) if link in _FRAME or link in _SECTIONS]
    if len(known) < _FEWEST_LINKS or sum(run[number][1] in _FRAME for number in known) < 2:
        return
    menu = run[known[0] : known[-1] + 1]
    if 2 * len(known) >= len(menu):
        yield from range(menu[0][0], menu[-1][0] + 1)


# Personal data

# Its check digits are right in one of a hundred numbers only, so almost anything may stand beside it.
_IDENTITY = re.compile(r"(?<!\d)(?<!\d[.,-])[1-9]\d{10}(?!\d)", re.ASCII)
_IBAN = re.compile(r"(?<!\w)[Tt][Rr] ?\d\d(?: ?\d){22}(?!\d)", re.ASCII)
# With a prefix the digits may stand in any grouping, between any characters, and one number after the other; without
# one only a mobile number or an area code in brackets in the usual grouping, standing alone, is sure.
_PREFIXED = re.compile(
    r"(?:(?:\+|00)90[ -]?(?:\(?0\)?[ -]?)?|\(?0[ -]?)"
    r"\(?(?:[2-4]\d\d|5\d\d|8[05]0)\)?[ ./-]?\d{3}[ .-]?\d\d[ .-]?\d\d(?!\d)",
    re.ASCII,
)
_PREFIXED_IN_A_ROW = re.compile(rf"(?<!\d)(?<!\d[.,-]){_PREFIXED.pattern}(?:[.,;/-]{_PREFIXED.pattern})*", re.ASCII)
_UNPREFIXED = re.compile(
    r"(?<![\w.,+-])(?:"
    r"\(0?[2-5]\d\d\)[ -]?\d{3}[ .-]?\d\d[ .-]?\d\d"
    r"|5[0-5]\d[ -]\d{3}[ -]\d\d[ -]?\d\d"
    r")(?![\w-]|[.,]\d)",
    re.ASCII,
)
_ADDRESS = re.compile(r"(?<![\w.+])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?!\w)")
_TEN_DIGITS = re.compile(r"[0-9](?:[ ()./-]{0,3}[0-9]){9}")  # the fewest that any of them has


def hide_personal_data(text: str) -> str:
    """Identity numbers and IBANs whose check digits are right, Turkish telephone numbers and e-mail addresses become
    [KİMLİK], [IBAN], [TELEFON] and [E-POSTA].

    Telephone numbers without a prefix are recognised in their usual grouping only; 444 numbers belong to no person.
    """
    if "@" in text:
        text = _ADDRESS.sub("[E-POSTA]", text)
    if _TEN_DIGITS.search(text):
        text = _IBAN.sub(lambda found: "[IBAN]" if _is_iban(found[0]) else found[0], text)
        text = _IDENTITY.sub(lambda found: "[KİMLİK]" if _is_identity_number(found[0]) else found[0], text)
        text = _PREFIXED_IN_A_ROW.sub(lambda found: _PREFIXED.sub("[TELEFON]", found[0]), text)
        text = _UNPREFIXED.sub("[TELEFON]", text)
    return text


def _is_identity_number(number: str) -> bool:
    digits = [int(digit) for digit in number]
    tenth = (7 * sum(digits[0:9:2]) - sum(digits[1:8:2])) % 10
    return digits[9] == tenth and digits[10] == sum(digits[:10]) % 10


def _is_iban(number: str) -> bool:
    number = number.replace(" ", "").upper()
    return int(f"{number[4:]}2927{number[2:4]}") % 97 == 1  # T is 29, R is 27
