"""The models that ship."""

from pathlib import Path

import pytest

import diffutron

FOLDER = Path(__file__).parents[2] / "models" / "mini" / "src" / "diffutron_mini"


@pytest.fixture(scope="module")
def mini():
    return diffutron.load("mini")


def test_shards_are_small_safetensors_and_nothing_is_pickled():
    files = [file for file in FOLDER.rglob("*") if file.is_file()]
    assert all(file.stat().st_size < 45_000_000 for file in files)
    assert not [file for file in files if file.suffix in (".bin", ".pt", ".pth", ".pkl")]
    for model in ("mini", "mini-base"):
        assert {"README.md", "recipe.yaml", "training.json"} <= {file.name for file in (FOLDER / model).iterdir()}


def test_tokenizer_keeps_turkish_and_single_characters(mini):
    codec = mini.codec
    assert 24_000 <= len(codec) <= 32_000
    text = "Iğdır'ın ışığında, İstanbul'un çiçekleri: üç öğün söğüş!\n\nâlim, îman, hükûmet… «ŞÇĞÜÖİI» 3,14 €"
    assert codec.decode(codec.encode(text)) == text.replace("…", "...")  # NFKC, as XLM-R
    for letter in "abcçdefgğhıijklmnoöprsştuüvyzABCÇDEFGĞHIİJKLMNOÖPRSŞTUÜVYZâîûÂÎÛäßéñøłžабвαβγאبپ中あ":
        assert codec.unk_id not in codec.encode(letter), letter


def test_mini_is_less_surprised_by_sentences_than_by_their_words_in_disorder(mini):
    sentences = [
        "Çocuklar okuldan sonra bahçede top oynadılar ve akşam eve döndüler.",
        "Türkiye'nin başkenti Ankara, ülkenin en kalabalık ikinci şehridir.",
        "Kitabı okuduktan sonra bu konuda daha çok şey öğrenmek istedim.",
        "Osmanlı Devleti on dokuzuncu yüzyılda birçok alanda yenilik yaptı.",
        "Yağmur yağdığı için maç ertelendi, seyirciler evlerine gitti.",
    ]
    disorder = [" ".join(word for step in range(3) for word in sentence.split()[step::3]) for sentence in sentences]
    sense, nonsense = (mini.perplexity(texts, mask_rate=0.5) for texts in (sentences, disorder))
    assert sense.nll < nonsense.nll


def test_adaptation_helps_on_turkish(mini):
    import gzip
    import json

    # Package texts that neither model was trained on.
    with gzip.open(FOLDER / "samples" / "speeches.jsonl.gz", "rt", encoding="utf-8") as stream:
        texts = [json.loads(line)["text"][:400] for line in stream][:40]
    base = diffutron.load("mini-base").perplexity(texts)
    adapted = mini.perplexity(texts)
    assert (base.num_masked, base.fingerprint) == (adapted.num_masked, adapted.fingerprint)
    assert adapted.perplexity < base.perplexity


def test_generated_text_holds_no_special_token(mini):
    for completion in mini.generate(["Bir varmış bir yokmuş", "", "Türkiye"], max_new_tokens=24, seed=3):
        assert completion.text == completion.prompt + completion.completion
        assert not [special for special in ("<s>", "</s>", "<pad>", "<unk>", "<mask>") if special in completion.text]


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_mini_writes_the_same_text_alone_and_in_a_batch_for_500_cases(mini, temperature):
    from diffutron.generation import Generator, Request, SamplerSettings

    words = [
        "Türkiye",
        "deniz",
        "kitap",
        "sabah",
        "çocuk",
        "yol",
        "Ankara",
        "ağaç",
        "tarih",
        "bilim",
        "kapı",
        "ışık",
        "su",
    ]
    requests = [
        Request(" ".join(words[(number * step) % 13] for step in range(1, 1 + number % 5)), 6 + number % 7, seed=number)
        for number in range(500)
    ]
    generator = Generator(mini.denoiser, mini.codec, learned_end=True)
    settings = SamplerSettings(temperature=temperature, block_length=8)
    alone = [generator.complete([request], settings)[0] for request in requests]
    together = []
    for start, stop in ((0, 2), (2, 9), (9, 41), (41, 500)):
        together += generator.complete(requests[start:stop], settings)
    different = [(one, other) for one, other in zip(alone, together, strict=True) if one.text != other.text]
    assert len(different) <= 2
    assert all(min(one.closest, other.closest) < 1e-4 for one, other in different)
