"""Repetitions: what is the same is found whatever its dress, and what is not is left alone."""

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest

from diffutron.corpus.compared import words_of
from diffutron.corpus.duplicates import (
    DuplicateSettings,
    MinHash,
    all_but_one,
    clusters,
    exact_key,
    paragraph_keys,
    repeated,
)
from diffutron.text import upper_tr

HUMAN = Path(__file__).parents[2] / "data" / "tr" / "human.jsonl.gz"
STEMS = (
    "ev okul deniz kitap yol güneş bahçe çocuk şehir ağaç kalem ışık gölge rüzgâr sabah akşam köy dağ göl kuş".split()
)
ENDINGS = ["", "ler", "de", "den", "in", "e", "i", "siz", "li", "ce"]


def text(seed, length=150):
    draw = random.Random(seed)
    return " ".join(draw.choice(STEMS) + draw.choice(ENDINGS) for _ in range(length)).capitalize() + "."


def is_candidate(minhash, one, other):
    return bool((minhash.keys(one) == minhash.keys(other)).any())


def test_case_spaces_and_punctuation_do_not_make_another_text():
    assert exact_key("İstanbul'un ışıkları, ÖYLE güzel!") == exact_key(
        "ISTANBUL".replace("I", "İ", 1) + "un IŞIKLARI öyle\n güzel"
    )
    assert exact_key("kar") != exact_key("kâr")
    assert exact_key("ısı") != exact_key("isi")


def changed(seed, kind):
    draw = random.Random(seed)
    words = text(seed).split()
    if kind == "words":
        for place in draw.sample(range(len(words)), 3):
            words[place] = "bambaşka"
    elif kind == "sentence":
        words += "Buraya sonradan bir cümle daha eklendi.".split()
    elif kind == "shortened":
        words = words[6:]
    return upper_tr(" ".join(words)).replace(".", " !") if kind == "dress" else " ".join(words)


@pytest.mark.parametrize("kind", ["words", "sentence", "shortened", "dress"])
def test_forty_of_forty_near_duplicates_are_found(kind):
    minhash = MinHash(DuplicateSettings())
    found = [is_candidate(minhash, text(seed), changed(seed, kind)) for seed in range(40)]
    assert sum(found) == 40


def test_different_texts_are_no_candidates():
    minhash = MinHash(DuplicateSettings())
    keys = np.concatenate([minhash.keys(text(seed)) for seed in range(1000)])
    assert len(repeated(keys, np.repeat(np.arange(1000, dtype=np.uint64), 20))) == 0


@pytest.mark.parametrize(("similarity", "low", "high"), [(0.5, 0.02, 0.16), (0.8, 0.92, 1.0)])
def test_the_share_of_candidates_follows_the_curve(similarity, low, high):
    minhash = MinHash(DuplicateSettings(shingle_words=1))
    # Sets of 300 words of which a share J of the union is common.
    common = round(300 * 2 * similarity / (1 + similarity))
    found = 0
    for trial in range(200):
        shared = [f"ortak{trial}x{n}" for n in range(common)]
        one, other = (" ".join(shared + [f"{side}{trial}x{n}" for n in range(300 - common)]) for side in "ab")
        found += is_candidate(minhash, one, other)
    assert low < found / 200 <= high


def jaccard(one, other):
    first, second = (set(zip(words, words[1:], words[2:], strict=False)) for words in (words_of(one), words_of(other)))
    return len(first & second) / max(len(first | second), 1)


@pytest.mark.skipif(not HUMAN.is_file(), reason="needs the Turkish texts")
def test_fewer_than_one_real_text_in_a_thousand_is_dropped_without_being_similar():
    with gzip.open(HUMAN, "rt", encoding="utf-8") as stream:
        texts = [json.loads(line)["text"] for line in stream]
    minhash = MinHash(DuplicateSettings())
    keys = np.concatenate([minhash.keys(each) for each in texts])
    pairs = repeated(keys, np.repeat(np.arange(len(texts), dtype=np.uint64), minhash.settings.bands))
    false = {other for first, other in pairs.tolist() if jaccard(texts[first], texts[other]) < 0.5}
    assert len(false) < len(texts) / 1000


@pytest.mark.parametrize("short", ["", "?!", "tek", "iki söz"])
def test_texts_shorter_than_a_shingle_equal_only_themselves(short):
    minhash = MinHash(DuplicateSettings())
    assert (minhash.keys(short) == MinHash(DuplicateSettings()).keys(short)).all()
    assert not is_candidate(minhash, short, "başka iki söz daha")


def test_a_long_text_is_hashed_as_in_one_piece():
    minhash = MinHash(DuplicateSettings())
    book = text(1, length=5000)
    least = minhash._least(minhash._shingles(book))
    values = (minhash._shingles(book)[:, None] * minhash._factors + minhash._offsets) >> np.uint64(32)
    assert (least == values.min(axis=0)).all()


def test_paragraphs_are_lines_that_are_long_enough_with_their_places():
    first, second = "Bu satır yeterince uzundur, sayılır. " * 3, "İkinci satır da yeterince uzundur. " * 3
    document = f"{first}\nkısa\n\n{second}"
    found = paragraph_keys(document, 100)
    assert [document[start:end] for _, start, end in found] == [first, second]
    assert [key for key, _, _ in found] == [exact_key(first), exact_key(second)]


def test_of_equal_keys_the_smallest_id_is_the_first_in_any_order():
    keys, ids = np.array([5, 9, 5, 7, 5, 9], np.uint64), np.array([3, 4, 1, 2, 8, 6], np.uint64)
    expected = {(1, 3), (1, 8), (4, 6)}
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(6)
        assert {tuple(map(int, pair)) for pair in repeated(keys[order], ids[order])} == expected
    assert repeated(keys[:0], ids[:0]).shape == (0, 2)


def test_clusters_keep_the_smallest_of_what_is_connected_through_others_too():
    pairs = np.array([[10, 11], [12, 13], [11, 13], [40, 20], [5, 6]], np.uint64)
    assert dropped_of(pairs) == [6, 11, 12, 13, 40]
    chain = np.array([[n, n + 1] for n in range(999, -1, -1)], np.uint64)
    assert dropped_of(chain) == list(range(1, 1001))
    assert dropped_of(np.empty((0, 2), np.uint64)) == []


def test_what_is_gone_already_makes_no_other_go():
    pairs = np.array([[10, 11], [12, 13], [11, 13], [40, 20], [5, 6]], np.uint64)
    assert dropped_of(pairs, without=[10, 12, 20, 7]) == [6, 13]
    assert dropped_of(pairs, without=[5, 6, 10, 11, 12, 13, 20, 40]) == []


def dropped_of(pairs, without=()):
    return all_but_one(clusters(pairs), np.array(without, np.uint64)).tolist()


def test_a_long_chain_in_any_order_is_one_cluster():
    # Labels that move one pair a round would take hours.
    ids = np.random.default_rng(0).permutation(200_001).astype(np.uint64)
    assert dropped_of(np.stack([ids[:-1], ids[1:]], axis=1)) == list(range(1, 200_001))


def test_clusters_agree_with_a_plain_search():
    generator = np.random.default_rng(0)
    for _ in range(20):
        pairs = generator.integers(0, 60, (40, 2)).astype(np.uint64)
        neighbours = {}
        for one, other in pairs.tolist():
            neighbours.setdefault(one, set()).add(other)
            neighbours.setdefault(other, set()).add(one)
        dropped, seen = set(), set()
        for start in sorted(neighbours):
            if start in seen:
                continue
            group, heap = set(), [start]
            while heap:
                here = heap.pop()
                if here not in group:
                    group.add(here)
                    heap += neighbours[here]
            seen |= group
            dropped |= group - {min(group)}
        assert dropped_of(pairs) == sorted(dropped)
