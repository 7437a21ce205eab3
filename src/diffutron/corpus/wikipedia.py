"""Wikipedia's XML dumps: articles without their markup."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import IO
from xml.etree import ElementTree

from diffutron.errors import DataError
from diffutron.text import normalise


class DumpError(Exception):
    """The XML is broken; what stood before has been given."""


def articles(stream: IO[bytes], wanted: Callable[[int], bool] = lambda _: True) -> Iterator[tuple[int, str, str]]:
    """(number, title, text) of each article that is no redirect; memory does not grow with the dump.

    Args:
        wanted: which pages to give, by number from 1; the others' markup is not looked at.

    Raises:
        DumpError: the XML ends or breaks off.
    """
    number, root = 0, None
    try:
        # The standard parser expands no external entities, and dumps define none of their own.
        for event, element in ElementTree.iterparse(stream, events=("start", "end")):  # noqa: S314
            if root is None:
                root = element
            if event == "start" or _name(element) != "page":
                continue
            number += 1
            if (
                wanted(number)
                and _find(element, "ns") == "0"
                and not any(_name(each) == "redirect" for each in element)
            ):
                yield number, _find(element, "title"), plain_text(_find(element, "text"))
            root.clear()
    except ElementTree.ParseError as error:
        raise DumpError(f"the XML breaks off: {error}") from None


# What mwparserfromhell keeps of files, categories and the sections that hold links only.
_LINKS = re.compile(
    r"^(?:thumb|küçükresim|sağ|sol|right|left|\d+px)\|.*$|^(?:Kategori|Category|Dosya|File|Resim):.*$", re.M
)
# [[Terminatör 2: Mahşer Günü]] is an article.
_NOT_AN_ARTICLE = re.compile(
    r"\s*(?:|[a-z]{2,3}(?:-[a-z]+)*|(?i:Dosya|File|Resim|Image|Ortam|Media|Kategori|Category|Özel|Special)) *:"
)
_BACK_MATTER = re.compile(
    r"^(=+) *(?:Kaynakça|Dış bağlantılar|Ayrıca bakınız|Notlar|Konuyla ilgili yayınlar) *=+ *$.*?(?=^(?!\1=)=|\Z)",
    re.M | re.S,
)
"""with the sections in them, which have more signs: up to a heading that has as many or fewer"""


def plain_text(markup: str) -> str:
    """An article's text: no templates, tables, files, references, categories, nor its sections of links.

    Raises:
        DataError: mwparserfromhell is not installed.
    """
    try:
        import mwparserfromhell
    except ImportError:
        raise DataError("reading Wikipedia dumps needs: pip install 'diffutron[wiki]'") from None
    code = mwparserfromhell.parse(_BACK_MATTER.sub("", markup), skip_style_tags=False)
    for tag in code.filter_tags(matches=lambda node: str(node.tag).lower() in ("ref", "table", "gallery", "math")):
        try:
            code.remove(tag)
        except ValueError:  # it stood inside one that is gone already
            continue
    for link in code.filter_wikilinks(matches=lambda node: _NOT_AN_ARTICLE.match(str(node.title)) is not None):
        try:
            code.remove(link)
        except ValueError:
            continue
    text = str(code.strip_code(normalize=True, collapse=True))
    return normalise(_LINKS.sub("", text))


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _find(page: ElementTree.Element, name: str) -> str:
    return next((each.text or "" for each in page.iter() if _name(each) == name), "")
