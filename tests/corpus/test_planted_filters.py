"""Good texts and planted bad ones: the filters tell them apart, by their defaults."""

import gzip
import json
import random
from pathlib import Path

import pytest

from diffutron.corpus.filters import FilterSettings, TextView, build_filters
from diffutron.text import normalise

DATA = Path(__file__).parents[2] / "data"
pytestmark = pytest.mark.skipif(not (DATA / "heldout").exists(), reason="needs the training data")

CITIES = ["Ankara", "İstanbul", "İzmir", "Bursa", "Antalya", "Adana", "Konya", "Mersin", "Kayseri", "Samsun"]
BRANDS = ["Betlopya", "Kralbet", "Casinomaks", "Süperbahis", "Vdcasino", "1xbet", "Holiganbet", "Slotistan", "Bahisgo"]
BETTING = [
    "{brand} güncel giriş adresi ile canlı bahis heyecanını hemen yaşayın!",
    "Türkiye'nin en güvenilir casino sitesi {brand} yeni üyelere %{n} hoş geldin bonusu veriyor.",
    "Deneme bonusu veren siteler listesi {year}, yatırımsız deneme bonusu, çevrimsiz bonus fırsatları.",
    "Slot oyunları, rulet, blackjack ve poker masalarında kazanmaya başla, jackpot seni bekliyor.",
    "Yüksek bahis oranları, anında para çekme ve 7/24 canlı destek ile {brand} farkını keşfet.",
    "{brand} üyelik işlemleri çok kolay, hemen üye ol, {n} freespin kazan.",
    "Kaçak iddaa ve canlı bahis siteleri arasında en yüksek oranlar {brand} adresinde.",
    "{brand} mobil giriş, {brand} bonus, {brand} casino, {brand} şikayet, {brand} yeni adres.",
    "Hemen tıkla, bahis yap, kazan! Kayıp bonusu ve freebet kampanyaları seni bekliyor.",
]
ESCORT = [
    "{city} escort bayan ilanları, {city} eskort, vip escort {city}, sınırsız görüşme.",
    "Merhaba beyler ben {city} escort {name}, evinde görüşen gerçek resimli eskort bayanım.",
    "{city} otele gelen escort bayanlar ile unutulmaz geceler için hemen arayın.",
    "Ateşli {city} escort bayanlar, masöz, mutlu son masaj, whatsapp hattımız {phone}.",
    "En iyi {city} escort sitesi, üniversiteli escort, rus escort, olgun escort.",
    "Kaliteli ve gizli görüşme için {phone} numarasından ulaşın, {city} vip eskort.",
]
FOLLOWERS = [
    "Instagram takipçi satın al, en ucuz takipçi hilesi, {n} takipçi sadece {price} TL.",
    "Hemen sipariş ver, anında teslimat, ucuz beğeni satın al, tiktok takipçi paketleri.",
    "SEO paketleri, backlink satın al, hacklink paneli, google ilk sayfa garantili backlink.",
    "Kaliteli tanıtım yazısı ve backlink fiyatları için telegram {phone} iletişime geçin.",
    "Youtube abone satın al, ucuz smm panel, takipçi paketi, güvenilir ödeme, hızlı gönderim.",
]
REMEDIES = [
    "Orijinal cialis satın al, viagra sipariş, geciktirici sprey fiyatı {price} TL, kapıda ödeme.",
    "Gizli paket, ücretsiz kargo, hemen sipariş verin: {phone}, viagra eczane fiyatı.",
    "Geciktirici hap, afrodizyak damla, cialis {n} mg, en ucuz fiyat garantisi, kampanya.",
    "Viagra satış sitesi, orijinal ürün, indirimli fiyat, fırsatı kaçırmayın!",
]
SERVICES = [
    "{city} evden eve nakliyat, {city} nakliyat firmaları, {city} ucuz nakliyat fiyatları, {city} nakliye.",
    "{city} çilingir, 7/24 acil çilingir {city}, en yakın çilingir telefon numarası {phone}.",
    "Uygun fiyat, garantili hizmet, profesyonel ekip, hemen arayın {phone}.",
    "{city} kombi servisi, {city} klima servisi, {city} beyaz eşya servisi, {phone}.",
    "Kefilsiz senetsiz kredi, anında onay, {city} tefeci, masrafsız kredi verenler {phone}.",
    "Kampanya! Fırsat! İndirim! {city} haşere ilaçlama fiyatları {price} TL, ücretsiz keşif!",
    "Sitemiz: www.{slug}nakliyat.com https://{slug}-servis.net hemen tıklayın, iletişim {phone}.",
]
SPAM = [BETTING, ESCORT, FOLLOWERS, REMEDIES, SERVICES]


def spam(generator):
    """One advertisement of 4 to 12 sentences of one kind, about one city and one brand."""
    kind = generator.choice(SPAM)
    city, digits = generator.choice(CITIES), [generator.randrange(10) for _ in range(9)]
    values = {
        "city": city,
        "slug": city.lower().replace("i̇", "i"),
        "brand": generator.choice(BRANDS),
        "name": generator.choice(["Derya", "Ceren", "Selin", "Buse"]),
        "n": generator.choice([50, 100, 250, 500, 1000]),
        "year": generator.choice([2023, 2024, 2025]),
        "price": generator.choice([49, 99, 199, 750]),
        "phone": "05{}{} {}{}{} {}{} {}{}".format(*digits),
    }
    sentences = [generator.choice(kind) for _ in range(generator.randint(4, 12))]
    return generator.choice([" ", "\n"]).join(sentence.format(**values) for sentence in sentences)


def read(file):
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def reasons(texts):
    """For each text the first fault, or None."""
    filters = build_filters(FilterSettings())
    for text in texts:
        view = TextView(normalise(text))
        faults = ((each.name, each.fault(view), view.text[:100]) for each in filters)
        yield next((fault for fault in faults if fault[1]), None)


def test_of_340_good_turkish_texts_at_least_330_stay():
    generator = random.Random(1)
    texts = []
    for file in sorted((DATA / "heldout").glob("*.jsonl.gz")):
        found = [record["text"] for record in read(file)]
        texts += generator.sample(found, min(len(found), 78))
    dropped = list(filter(None, reasons(generator.sample(texts, 340))))
    assert len(dropped) <= 10, dropped


def test_single_sentences_stay():
    texts = [record["text"] for record in read(DATA / "heldout" / "boun_essay_sentences.jsonl.gz")]
    dropped = list(filter(None, reasons(texts)))
    assert len(dropped) <= 0.01 * len(texts), dropped


def test_of_300_planted_bad_texts_at_least_295_are_dropped():
    generator = random.Random(2)
    by_language = {"en": [], "az": [], "uz": []}
    for record in read(DATA / "multilingual" / "multi.jsonl.gz"):
        if record["lang"] in by_language:
            by_language[record["lang"]].append(record["text"])
    planted = [text for texts in by_language.values() for text in generator.sample(texts, 75)]
    planted += [spam(generator) for _ in range(75)]
    stayed = [text[:200] for text, reason in zip(planted, reasons(planted), strict=True) if reason is None]
    assert len(planted) == 300
    assert len(stayed) <= 5, stayed
