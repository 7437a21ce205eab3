"""Is it Turkish? Two detectors on a few pieces of the text: one for every language, one for Turkish's near kin."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

from pydantic import Field

from diffutron.corpus.view import TextView
from diffutron.recipe import Settings
from diffutron.text import lower_tr
from diffutron.text.letters import lacks_turkish_letters

_PIECES, _LONGEST_PIECE, _SHORTEST_PIECE = 8, 300, 150
_VETO_PIECES, _VETO_PIECE = 3, 200

# py3langid's labels of Turkish and of the languages that eldc lacks and takes for Turkish or Azerbaijani.
_KIN = ("tr", "az", "uz", "uzs", "tk", "tt", "crh", "kk", "ky", "ba")
# What Turkish is written without and its kin are full of: q, w, x, ə, Turkmen ä ň ý ž, Crimean ñ, Gagauz ê ţ, Uzbek oʻ.
_FOREIGN = "qwxəäňýžñêţʻ"
_UZBEK = re.compile(r"[og]['‘’`][a-z]")
_FOREIGN_RATE = 0.01

# Frequent words of Turkish typed without its letters; no other language has many of them.
_BARE_WORDS = (
    "ama ancak artik bana ben benim bir biraz biri birlikte biz bize boyle bu bugun bunu bunun butun cok cunku da "
    "daha de degil diger diye dogru gibi gore gun guzel hem hep her hic icin ile ilk ise kadar kendi ki kisi mi mu "
    "nasil ne neden niye o olan olarak oldu oldugu olur onlar onu onun once ona sana sen seni sey simdi siz size "
    "sonra tum uzere uzerinde var ve veya ya yani yeni yer yok zaman"
)
_BARE = frozenset(_BARE_WORDS.split())
_BARE_SHARE = 0.15


class LanguageSettings(Settings):
    """Which texts are Turkish."""

    language: bool = True
    """Drop texts that are not Turkish."""
    language_share: float = Field(default=0.7, ge=0, le=1)
    """The least share of a text's pieces that must be Turkish."""
    ascii_turkish: Literal["keep", "mark", "drop"] = "keep"
    """Turkish typed without ç ğ ı ö ş ü: drop drops it; the report counts what stays either way."""


class LanguageFilter:
    """Turkish, by up to 8 pieces of at most 300 characters, evenly spread.

    Azerbaijani, Uzbek, Turkmen, Tatar and Crimean Tatar may look Turkish to the first detector. Texts with letters that
    Turkish lacks are shown to a second, which is slow but knows them.
    """

    name = "language"

    def __init__(self, settings: LanguageSettings) -> None:
        self._share = settings.language_share
        self._drop_ascii = settings.ascii_turkish == "drop"

    def fault(self, view: TextView) -> str | None:
        found = Counter(map(language_of, pieces(view.text, _PIECES, _LONGEST_PIECE)))
        del found["und"]
        if not found:
            return "no language recognised"
        if (share := found["tr"] / found.total()) < self._share:
            del found["tr"]
            return f"Turkish {share:.2f} < {self._share:g}, mostly {found.most_common(1)[0][0]}"
        if (kin := _kin(view)) is not None:
            return f"{kin}, not Turkish"
        if self._drop_ascii and lacks_turkish_letters(view.text):
            return "Turkish without its letters"
        return None


def pieces(text: str, most: int, longest: int) -> list[str]:
    """Up to ``most`` pieces, evenly spread, the first at the start and the last at the end of the text."""
    count = min(most, max(1, len(text) // _SHORTEST_PIECE))
    if count == 1:
        return [text[:longest]]
    size = min(longest, -(-len(text) // count))
    step = (len(text) - size) / (count - 1)
    return [text[(start := round(step * number)) : start + size] for number in range(count)]


def language_of(piece: str) -> str:
    """The language's ISO 639-1 code, or und. Turkish may lack its letters, and may be in capitals."""
    is_bare = piece.isascii()
    if piece.isupper():
        piece = lower_tr(piece)  # the detector takes I for the capital of i
    found: str = _detector()(piece)
    if found not in ("tr", "und") and is_bare:
        words = re.findall("[a-z]+", piece.lower().replace("ı", "i"))
        if words and sum(word in _BARE for word in words) >= _BARE_SHARE * len(words):
            return "tr"
    return found


def _kin(view: TextView) -> str | None:
    """The language near Turkish that most of the pieces are in; None if it is Turkish."""
    lowered = view.lowered
    foreign = sum(map(lowered.count, _FOREIGN))
    if any(sign in lowered for sign in "'‘’`"):
        foreign += len(_UZBEK.findall(lowered))
    if foreign < _FOREIGN_RATE * len(lowered):
        return None
    votes = Counter(_kin_detector()(piece)[0] for piece in pieces(lowered, _VETO_PIECES, _VETO_PIECE))
    kin, count = votes.most_common(1)[0]
    return None if kin == "tr" or 2 * count <= votes.total() else kin


@cache
def _detector() -> Callable[[str], str]:
    import eldc

    eldc.init()
    detect: Callable[[str], str] = eldc.instance().detect
    return detect


@cache
def _kin_detector() -> Callable[[str], tuple[str, float]]:
    from py3langid import langid

    # An instance of our own: the module's is shared with whoever else imports it.
    identifier: Any = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE)
    identifier.set_languages([label for label in _KIN if label in identifier.labels])
    classify: Callable[[str], tuple[str, float]] = identifier.classify
    return classify
