"""Evaluation texts are found in training texts, in whatever dress, and nothing else is."""

import gzip
import json
import random
from pathlib import Path

import pytest

from diffutron.corpus.compared import hashes_for, words_of
from diffutron.corpus.contamination import ContaminationIndex, grams_of, heaviest_common
from diffutron.text import upper_tr

DATA = Path(__file__).parents[2] / "data"
SENTENCE = "Eski değirmenin arkasındaki patikadan yürüyerek gölün kıyısına indik ve orada uzun süre sessizce oturduk."
SHORT = "Kırmızı bisikletin zinciri yokuşta aniden koptu."
FILLER = "Sabah pazara gittim. Domates, biber ve taze ekmek aldım, sonra eve döndüm. "


@pytest.fixture(scope="module")
def index():
    return ContaminationIndex.build(
        [("deneme", SENTENCE + " " + SHORT), ("öbürü", "Bu kümede yalnızca tek bir uzunca cümle var.")]
    )


@pytest.mark.parametrize(
    "leak",
    [
        SENTENCE,
        upper_tr(SENTENCE),
        SENTENCE.upper(),  # by a program that knows no Turkish
        SENTENCE.translate(str.maketrans("ığüşöç", "igusoc")),
        SENTENCE.replace(" ", "\n- ").replace(".", ""),
        SENTENCE.replace("Eski değirmenin arkasındaki patikadan", "Başka bir yerden gelip"),
        SENTENCE.replace("sessizce ", "").replace("gölün", "denizin").replace("indik", "vardık"),
        SHORT,
        SHORT.replace("aniden ", ""),
    ],
)
def test_a_leak_is_found_with_the_name_of_its_set(index, leak):
    hit = index.hit(FILLER + leak + " " + FILLER)
    assert hit is not None
    assert hit.name == "deneme"


@pytest.mark.parametrize(
    "clean",
    [
        FILLER,
        "",
        "Kırmızı bisiklet.",
        "Gölün kıyısına indik ve orada balık tutan iki adamla karşılaştık.",  # six words of the sentence's, by chance
        "Patikadan yürüyerek eve döndük.",
    ],
)
def test_words_in_common_are_no_leak(index, clean):
    assert index.hit(clean) is None


def test_words_in_another_order_are_no_leak(index):
    words = SENTENCE.rstrip(".").split()
    random.Random(3).shuffle(words)
    assert index.hit(" ".join(words)) is None


def test_an_index_comes_back_from_its_file(index, tmp_path):
    with open(tmp_path / "index.npz", "wb") as file:
        index.save(file)
    loaded = ContaminationIndex.load(tmp_path / "index.npz")
    assert loaded.names == index.names
    for text in (SENTENCE, SHORT, FILLER, SENTENCE.upper()):
        assert loaded.hit(text) == index.hit(text)


def test_an_empty_index_finds_nothing():
    assert ContaminationIndex.build([]).hit(SENTENCE) is None


def test_a_run_has_one_hash_wherever_it_stands():
    words = words_of(FILLER * 40)
    run = hashes_for(words[5:18])
    assert grams_of(hashes_for(words), 13)[5] == grams_of(run, 13)[0]
    assert len(grams_of(run, 14)) == 0


@pytest.mark.parametrize(
    ("one", "other", "length"), [("abcd", "xaxbxd", 3), ("", "abc", 0), ("abc", "cba", 1), ("aab", "ab", 2)]
)
def test_the_heaviest_common_subsequence(one, other, length):
    letters, others = [*map(ord, one)], [*map(ord, other)]
    assert heaviest_common(letters, others, [1.0] * len(one)) == (length, float(length))


def test_of_two_common_subsequences_the_heavier_counts():
    assert heaviest_common([1, 2, 3], [3, 1, 2], [1.0, 1.0, 5.0]) == (1, 5.0)


def test_a_stock_phrase_about_something_else_is_no_leak():
    topics = ["bellek", "çizelge", "yazıcı", "güvenlik", "bağlantı", "yedekleme", "bildirim", "rapor"]
    index = ContaminationIndex.build(("kılavuz", f"{topic} hakkında daha fazla bilgi için bkz.") for topic in topics)
    assert index.hit(f"{FILLER} Lisans hakkında daha fazla bilgi için bkz. {FILLER}") is None
    assert index.hit(f"{FILLER} Yazıcı hakkında daha fazla bilgi için bkz. {FILLER}") is not None


def texts_of(path):
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line)["text"] for line in stream]


def planted(text, draw):
    """A leak as it comes: as it is, in capitals, without punctuation, or with up to three words changed."""
    kind = draw.randrange(4)
    words = text.split()
    if kind == 1:
        return upper_tr(text)
    if kind == 2:
        return " ".join(word.strip(".,;:!?'\"()") for word in words)
    if kind == 3:
        for _ in range(min(3, len(words) // 6)):
            place = draw.randrange(len(words))
            here, following = words[place : place + 1], words[place + 1 : place + 2]
            # Dropped, replaced, with a word before it, or swapped with the next.
            changes = [following, ["bambaşka", *following], ["şöyle", *here, *following], [*following, *here]]
            words[place : place + 2] = draw.choice(changes)
    return " ".join(words)


@pytest.mark.skipif(not (DATA / "heldout").is_dir(), reason="needs the held-out texts")
def test_planted_leaks_are_found_and_clean_texts_are_left_alone():
    names = ("boun_essay_sentences", "docs_human", "synthetic_essays", "wiki_exams_para")
    heldout = {name: texts_of(DATA / "heldout" / f"{name}.jsonl.gz") for name in names}
    index = ContaminationIndex.build((name, text) for name, texts in heldout.items() for text in texts)
    draw = random.Random(0)
    clean = [text for text in texts_of(DATA / "tr" / "human.jsonl.gz") if len(text) > 200]
    hits = [index.hit(text) for text in draw.sample(clean, 2000)]
    # Passages of wiki_exams_para share whole sentences with others of Wikipedia: those are found, rightly.
    alarms = [hit for hit in hits if hit is not None and hit.name != "wiki_exams_para"]
    assert len(alarms) < 20, alarms[:3]
    pool = [text for text in heldout["boun_essay_sentences"] if len(text.split()) >= 6] + heldout["wiki_exams_para"]
    found = 0
    for text in draw.sample(pool, 100):
        host = draw.choice(clean)
        found += index.hit(f"{host[: len(host) // 2]}\n{planted(text, draw)}\n{host[len(host) // 2 :]}") is not None
    assert found >= 99


def test_sentence_that_stands_in_a_set_many_times_is_found_like_any_other():
    # A passage has a record for each question about it.
    index = ContaminationIndex.build([("soru", SHORT + " " + SENTENCE)] * 5)
    assert index.hit(FILLER + SHORT) is not None
    assert index.hit(FILLER + SENTENCE.replace("sessizce ", "").replace("indik", "vardık")) is not None


def test_a_text_of_sentences_that_are_all_short_is_found_as_one():
    riddle = "Dağdan gelir taştan gelir. Kükremiş aslan gelir. Nedir bu?"
    index = ContaminationIndex.build([("bilmece", riddle), ("kısa", "Evet. Hayır, gelmedi.")])
    assert index.hit(FILLER + riddle + FILLER) is not None
    assert index.hit(FILLER + "Evet. Hayır, gelmedi. " + FILLER) is None
    assert index.hit(FILLER) is None
