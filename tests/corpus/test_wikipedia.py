"""Wikipedia's dumps: articles come as a reader sees them, without the markup, and without what is no article."""

import bz2
from xml.sax.saxutils import escape

import pytest

from diffutron.corpus import CorpusSettings, build_corpus, read_texts
from diffutron.corpus.wikipedia import plain_text

ARTICLE = """{{Şehir bilgi kutusu|ad=Ankara|nüfus=5.8 milyon}}
'''Ankara''', [[Türkiye]]'nin [[Başkent|başkentidir]].<ref>{{Web kaynağı|url=http://a.b|başlık=Nüfus}}</ref> Şehir,
[[Dosya:Ankara Kalesi.jpg|küçükresim|sağ|200px|[[Ankara Kalesi]] ve çevresi]] ''İç Anadolu'' bölgesindedir.

== Tarihçe ==
Hititlerden beri yerleşim vardır.
{| class="wikitable"
! Yıl !! Nüfus
|-
| 1927 || 74.553
|}
=== Cumhuriyet dönemi ===
* 13 Ekim 1923'te başkent oldu.

== Kaynakça ==
{{kaynakça}}
* Bir kitap, 1990.

== Dış bağlantılar ==
* [http://ankara.example Resmî site]

[[Kategori:Ankara]]
"""


def page(title, text, namespace=0, redirect=False):
    turned = '<redirect title="Başka" />' if redirect else ""
    return (
        f"<page><title>{title}</title><ns>{namespace}</ns><id>1</id>{turned}<revision><id>2</id>"
        f"<text bytes='9' xml:space='preserve'>{escape(text)}</text></revision></page>"
    )


def dump(*pages):
    opening = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="tr"><siteinfo/>'
    return (opening + "".join(pages) + "</mediawiki>").encode()


def test_an_article_is_what_a_reader_sees():
    text = plain_text(ARTICLE)
    assert text.startswith("Ankara, Türkiye'nin başkentidir. Şehir,")
    assert "İç Anadolu bölgesindedir." in text
    assert "Tarihçe\nHititlerden beri yerleşim vardır." in text
    assert "13 Ekim 1923'te başkent oldu." in text
    for leftover in (
        "nüfus=",
        "küçükresim",
        "Kalesi.jpg",
        "74.553",
        "Bir kitap",
        "Resmî site",
        "Kategori",
        "==",
        "[[",
        "'''",
    ):
        assert leftover not in text, leftover


@pytest.mark.parametrize(("title", "stays"), [
    ("=== Notlar ===", ["Tarihçe", "İkinci", "Kültür"]), ("== Notlar ==", ["Kültür"]),
    ("==== Notlar ====", ["Tarihçe", "İkinci", "Kültür"]),
])  # fmt: skip
def test_back_matter_ends_with_the_next_heading_of_its_level_or_above(title, stays):
    markup = f"{title}\n* Not.\n===== İç başlık =====\nİç.\n=== İkinci ===\nBir.\n== Kültür ==\nİki.\n"
    if title.startswith("==="):
        markup = "== Tarihçe ==\nGiriş.\n" + markup
    text = plain_text(markup)
    assert [word for word in ("Tarihçe", "Not.", "İç.", "İkinci", "Kültür") if word in text] == stays


def test_articles_with_a_colon_in_their_names_keep_their_words():
    links = "[[Terminatör 2: Mahşer Günü]] ve [[Star Wars: Bölüm IV|ilk film]] [[en:Ankara]][[Kategori:A]]."
    assert plain_text(links).split() == "Terminatör 2: Mahşer Günü ve ilk film .".split()


def texts_of(path, out):
    return build_corpus(CorpusSettings(sources=[{"path": path}], heldout_share=0, filters="none"), out)


def test_a_dump_gives_its_articles_and_nothing_else(tmp_path):
    path = tmp_path / "trwiki.xml.bz2"
    path.write_bytes(bz2.compress(dump(
        page("Ankara", ARTICLE),
        page("Tartışma:Ankara", "Bu maddenin tartışma sayfasıdır ve uzundur, hem de çok.", namespace=1),
        page("Angora", "#YÖNLENDİRME [[Ankara]]", redirect=True),
        page("Konya", "'''Konya''', İç Anadolu'da bir şehirdir ve ovası çok geniştir."),
    )))  # fmt: skip
    corpus = texts_of(path, tmp_path / "corpus")
    assert [text.split(",")[0] for text in read_texts(corpus.train)] == ["Ankara", "Konya"]
    assert corpus.report["quarantined"] == 0


@pytest.mark.parametrize("tail", [b"<page><title>Yar", b"<page></title>", b"\xff\xfe"])
def test_a_dump_that_breaks_off_gives_what_stood_before(tmp_path, tail):
    path = tmp_path / "trwiki.xml"
    path.write_bytes(dump(page("Ankara", ARTICLE)).removesuffix(b"</mediawiki>") + tail)
    report = texts_of(path, tmp_path / "corpus").report
    assert (report["kept"], report["quarantined"]) == (1, 1)
