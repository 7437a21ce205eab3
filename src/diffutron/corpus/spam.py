"""Spam that is written in Turkish: betting, escorts, followers for sale, keywords strung together.

Words decide by their share, never by occurring: a report on illegal betting names it often, but does not call on the
reader every other word to sign up.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

from pydantic import Field

from diffutron.corpus.view import TextView
from diffutron.recipe import Settings

# What is hardly named so often but to sell it, by how the words begin; brands of betting by their names.
_BAIT = re.compile(
    r"(?:casino|kumarhane|bahis|canlıbahis|iddaa|slot(?!y)|rulet|blackjack|bakara$|jackpot|free-?(?:spin|bet)|bonus|poker|"
    r"(?:1x|most|tipo|jojo|vd|holigan|matador|mario|seka|peri|süper|super|grandpasha|mr|lider|royal|kral|mega|turbo|"
    r"bets|bet)bet|bets?\d|bet(?:boo|park|ist$|cio|tilt|nano|sat|turka|ebet|vole|kom|matik)|(?:süper|super|kral)bahis|"
    r"e[sk]kort|escort|masöz|porno?(?:$|[lsyi])|sikiş|seks(?!en|ek|iy|ist)|xxx|azgın|backlink|hacklink|takipçi|beğeni$|"
    r"followers?$|viagra|cialis|geciktirici|afrodizyak|keygen|medyum|muska|replika)"
)
_LONGEST_START = 3
_THREE_LETTERS = (
    "cas kum bah can idd slo rul bla bak jac fre bon pok 1xb mos tip joj vdb hol mat mar sek per süp sup gra mrb "
    "lid roy kra meg tur bet esc ekk esk mas por sik xxx azg bac hac tak beğ fol via cia gec afr key med mus rep"
)
_BAIT_STARTS = frozenset(_THREE_LETTERS.split())
# What calls on the reader to buy, to call or to click. Common in other texts too, but not so many together.
_CALL_WORDS = (
    "hemen şimdi tıkla tıklayın tıklayınız kazan kazanın kazanç kazandıran kazanma kazanmaya fırsat fırsatı "
    "fırsatları fırsatlar kaçırma kaçırmayın bedava ücretsiz kampanya kampanyası kampanyalar kampanyaları indirim "
    "indirimli indirimler güvenilir güvenli ucuz uygun fiyat fiyatı fiyata fiyatlar fiyatları fiyatlarla "
    "fiyatlarıyla garanti garantili whatsapp telegram arayın arayınız numara numarası numaramız sipariş siparişi "
    "satın satılık satış kargo üye üyelik olun giriş adresi adres oran oranlar oranları yatırım yatırımsız çekim "
    "çevrimsiz çevrimi lisanslı site sitesi siteleri siteler sitemiz sitemizi sitemize sitemizde vip reklam reklamı "
    "kredi kredisi krediler anında kolay hızlı acil profesyonel kaliteli firma firması firmaları hizmet hizmeti "
    "hizmetleri hizmetinizde iletişim iletişime tel telefon randevu ilan ilanları deneme hoşgeldin promosyon kupon "
    "seo link linki google paket paketi paketleri instagram tiktok youtube güncel resmi mobil canlı nakliyat "
    "nakliye çilingir haşere ilaçlama para tl bayan bayanlar görüşme görüşmek ateşli sınırsız gizli orijinal "
    "masrafsız kefilsiz senetsiz faizsiz ödeme kapıda tamiri tamircisi servisi bonusu bonusları"
)
_CALLS = frozenset(_CALL_WORDS.split())
# What is said of such things by those who report on them.
_REPORT_WORDS = (
    "operasyon operasyonu operasyonda operasyonla şüpheli şüpheliler şüphelilerin savcılık savcılığı savcılığınca "
    "gözaltı gözaltına polis emniyet jandarma mahkeme mahkemesi ceza cezası tutuklandı yasadışı suç suçu suçlaması "
    "kurul kurulu belirlendi açıkladı açıklandı soruşturma soruşturması inceleme belirtti söyledi uzmanlar bakan "
    "bakanlığı yasaklandı bağımlılığı bağımlılık araştırma araştırması tarihçe yüzyılda"
)
_REPORTS = frozenset(_REPORT_WORDS.split())
_URL = re.compile(r"https?://|\bwww\.|\b[a-z0-9-]{2,}\.(?:com|net|org|xyz|info|bet|casino|site|club|online|top)\b")
_URL_PARTS = ("://", "www.", ".com", ".net", ".org", ".xyz", ".info", ".bet", ".site", ".club", ".online")
# Turkish numbers, domestic or with +90; a date or an amount has no such groups.
_PHONE = re.compile(r"(?<!\d)(?:\+?90[ .-]?|0[ .-]?)\(?[2-58]\d{2}\)?[ .-]?\d{3}[ .-]?\d{2}[ .-]?\d{2}(?!\d)")
_DIGITS = "0123456789"
_CAPITALS = "ABCDEFGHIJKLMNOPRSTUVYZÇĞİÖŞÜ"
_ADORNMENTS = frozenset("★☆✓✔✅➤►▶☎☏📞📱🔥💰💯🎁🎰💎⭐👉👇❤💋🚀⚡🏆♥♛♠♣♦")

_FEWEST_SPAM_WORDS, _FEWEST_MARKS, _FEWEST_URLS, _FEWEST_PHONES, _FEWEST_TIMES = 4, 5, 3, 2, 10


class SpamSettings(Settings):
    """What counts as spam."""

    spam: bool = True
    """Drop spam."""
    spam_words: float = Field(default=0.38, ge=0)
    """The greatest weight for each word: 2 for bait (casino, escort), 1 for a call (hurry, click, buy), 1 more where it
    is new, and -2 for what reports on such things say (court, police)."""
    capitals: float = Field(default=0.8, ge=0, le=1)
    """The greatest share of letters that may be capitals; asked from 100 letters on."""
    exclamations: float = Field(default=0.1, ge=0)
    """The most exclamation marks and adornments for each word."""
    urls: float = Field(default=0.1, ge=0)
    """The most addresses for each word."""
    phone_numbers: float = Field(default=0.04, ge=0)
    """The most telephone numbers for each word."""
    most_frequent_word: float = Field(default=0.2, ge=0)
    """The greatest share of one word of four letters or more; asked where it stands ten times."""


class SpamFilter:
    """By the share of words that sell, of addresses, telephone numbers, shouting, and of one word."""

    name = "spam"

    def __init__(self, settings: SpamSettings) -> None:
        self._settings = settings

    def fault(self, view: TextView) -> str | None:
        count = len(view.words)
        if not count:
            return None
        return self._sells(view, count) or self._shouts(view, count) or self._harps(view, count)

    def _sells(self, view: TextView, count: int) -> str | None:
        most = self._settings.spam_words
        calls = [] if view.distinct.isdisjoint(_CALLS) else [word for word in view.words if word in _CALLS]
        suspects = {word for word in view.distinct if word[:_LONGEST_START] in _BAIT_STARTS and is_bait(word)}
        baits = sum(map(suspects.__contains__, view.words)) if suspects else 0
        if len(calls) + baits < _FEWEST_SPAM_WORDS:
            return None
        reports = sum(map(_REPORTS.__contains__, view.words))
        # An article on poker names the game, and calls on nobody.
        bait_weight = 2 if 4 * len(calls) >= baits else 1
        weight = (bait_weight * baits + len(calls) + len(set(calls)) - 2 * reports) / count
        return f"spam words {weight:.2f} > {most:g}" if weight > most else None

    def _shouts(self, view: TextView, count: int) -> str | None:
        settings, text = self._settings, view.text
        marks = text.count("!")
        if not _ADORNMENTS.isdisjoint(text):
            marks += sum(map(_ADORNMENTS.__contains__, text))
        if marks >= _FEWEST_MARKS and marks > settings.exclamations * count:
            return f"exclamations per word {marks / count:.2f} > {settings.exclamations:g}"
        if any(part in view.lowered for part in _URL_PARTS):
            urls = len(_URL.findall(view.lowered))
            if urls >= _FEWEST_URLS and urls > settings.urls * count:
                return f"addresses per word {urls / count:.2f} > {settings.urls:g}"
        if sum(map(text.count, _DIGITS)) >= 10 * _FEWEST_PHONES:
            phones = len(_PHONE.findall(text))
            if phones >= _FEWEST_PHONES and phones > settings.phone_numbers * count:
                return f"telephone numbers per word {phones / count:.3f} > {settings.phone_numbers:g}"
        letters = sum(map(len, view.words))
        if letters >= 100 and (capitals := sum(map(text.count, _CAPITALS))) > settings.capitals * letters:
            return f"capitals {capitals / letters:.2f} > {settings.capitals:g}"
        return None

    def _harps(self, view: TextView, count: int) -> str | None:
        most = self._settings.most_frequent_word
        if len(view.distinct) > (1 - most) * count + 1:
            return None
        (word, times), *_ = Counter(word for word in view.words if len(word) >= 4).most_common(1) or [("", 0)]
        if times >= _FEWEST_TIMES and times > most * count:
            return f"one word, {word!r}, {times / count:.2f} > {most:g}"
        return None


@lru_cache(maxsize=1 << 14)
def is_bait(word: str) -> bool:
    """Whether a word in lower case is one that spam is made of; ``word[:3]`` is in the list of their beginnings."""
    return _BAIT.match(word) is not None
