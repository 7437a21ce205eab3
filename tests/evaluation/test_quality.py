"""Qualities of texts against answers known beforehand, a dictionary made here, a judge against a loop."""

import math
import random

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from diffutron.errors import DataError, InputError, ModelError
from diffutron.evaluation.judge import Judge, load_judge
from diffutron.evaluation.quality import NotMeasured, Score, equally_long, text_quality, without_cut_word
from diffutron.testing import TINY_TEXTS, tiny_codec, tiny_tokenizer
from diffutron.text import spelling
from diffutron.text.spelling import Dictionary, NoDictionary, open_dictionary
from diffutron.text.words import words

CODEC = tiny_codec()
NOTHING = NotMeasured("not asked for")
KNOWN = Dictionary("a few words", {"ev", "su", "Ankara", "Türkiye'nin"}.__contains__)


def quality(*texts, dictionary=NOTHING, judge=NOTHING):
    return text_quality(texts, dictionary=dictionary, judge=judge)


def value(score):
    assert isinstance(score, Score)
    return score.value


@pytest.mark.parametrize("size", [1, 2, 8, 64])
def test_entropy_of_equally_frequent_words_is_the_logarithm_of_their_number(size):
    names = [f"{first}{second}" for first in "abcdefgh" for second in "abcdefgh"][:size]
    assert value(quality(" ".join(names), " ".join(names)).entropy) == pytest.approx(math.log2(size))


def test_a_text_that_repeats_itself_has_one_new_run_and_two_words():
    # a b a b a b: of the runs abab, baba, abab the third occurred before; of the pairs ab, ba, ab, ba, ab two are new.
    found = quality("ev su ev su Ev SU")
    assert value(found.repeated_4grams) == pytest.approx(1 / 3)
    assert value(found.distinct_1) == pytest.approx(2 / 6)
    assert value(found.distinct_2) == pytest.approx(2 / 5)
    assert value(found.entropy) == pytest.approx(1)


def test_repetition_is_a_matter_of_one_text_and_variety_of_all():
    text = "bir iki üç dört beş"
    found = quality(text, text)
    assert value(found.repeated_4grams) == 0
    assert value(found.distinct_2) == pytest.approx(1 / 2)


def test_no_pair_goes_from_one_text_into_the_next():
    assert value(quality("a b", "c d", "b c").distinct_2) == 1


def test_runs_agree_with_a_search_from_the_beginning():
    draw = random.Random(0)
    for _ in range(20):
        texts = [draw.choices("abc", k=draw.randrange(30)) for _ in range(4)]
        seen = again = 0
        for text in texts:
            for end in range(4, len(text) + 1):
                seen += 1
                again += any(text[start : start + 4] == text[end - 4 : end] for start in range(end - 4))
        score = quality(*map(" ".join, texts)).repeated_4grams
        assert value(score) == pytest.approx(again / seen)


def test_lengths_are_means_with_an_interval_and_so_has_what_is_counted_over_all_texts():
    found = quality("ev", "ev su", "ev su ev su")
    assert value(found.words) == pytest.approx(7 / 3)
    assert value(found.characters) == pytest.approx((2 + 5 + 11) / 3)
    assert 1 <= found.words.low < found.words.value < found.words.high <= 4
    assert found.num_texts == 3
    for score in (found.distinct_1, found.distinct_2, found.entropy):
        assert score.low <= score.value <= score.high


def test_the_interval_of_what_is_counted_over_all_texts_is_that_of_a_ratio_where_it_is_one():
    # Each text repeats a word of its own, so distinct-1 is texts by words, whose error is known.
    sizes = np.random.default_rng(0).integers(1, 5, size=26)
    found = quality(*(" ".join([f"{letter}el"] * size) for letter, size in zip("abcdefghijklmnopqrstuvwxyz", sizes,
                                                                               strict=True))).distinct_1  # fmt: skip
    ratio = len(sizes) / sizes.sum()
    error = math.sqrt(np.mean((1 - ratio * sizes) ** 2) / len(sizes)) / sizes.mean()
    assert found.value == pytest.approx(ratio)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_what_one_text_alone_has_knows_no_interval():
    found = quality("Ankara'da", "ev su", "su")
    assert (found.apostrophe_errors.value, found.apostrophe_errors.low, found.apostrophe_errors.high) == (0, None, None)
    assert quality("Ankara'da", "ev", "İzmir'da").apostrophe_errors.low is not None


def test_equal_texts_leave_no_doubt():
    found = quality(*["Ankara'da evlerimiz var."] * 5, judge=len)
    for score in (found.words, found.characters, found.harmony_breaks, found.apostrophe_errors, found.judge_nats):
        assert score.low == score.value == score.high


def test_harmony_and_apostrophes_are_rates_of_those_that_can_be_judged():
    found = quality("kitaplarda kitaplarde ev", "Ankara'da İzmir'da gördüm 1923'de evlerimiz")
    assert value(found.harmony_breaks) == pytest.approx(1 / 4)  # two words, then Ankara and evlerimiz
    assert value(found.apostrophe_errors) == pytest.approx(1 / 2)


def test_what_is_not_there_is_not_measured():
    found = quality("", "1923!")
    reasons = {
        name: each["reason"] for name, each in found.as_dict().items() if name != "num_texts" and "reason" in each
    }
    assert set(reasons) == {
        "valid_words", "unknown_names", "harmony_breaks", "apostrophe_errors", "repeated_4grams", "distinct_1",
        "distinct_2", "entropy", "judge_nats",
    }  # fmt: skip
    assert reasons["judge_nats"] == "not asked for"
    assert reasons["entropy"] == "no word"
    assert value(found.words) == 0


def test_a_word_is_known_or_may_be_a_name_or_is_neither():
    text = "Ev var. Ankara'da SU ile Babil ve Türkiye'nin. Babil'de Gzz"
    judged = {word.letters: KNOWN.judge(word) for word in words(text)}
    assert judged == {
        "Ev": "known", "var": "unknown", "Ankara": "known", "SU": "known", "ile": "unknown", "ve": "unknown",
        "Türkiye": "known", "Babil": "name", "Gzz": "name",
    }  # fmt: skip
    assert KNOWN.judge(next(words("Babil bir"))) == "unknown"  # it opens the sentence: any word would be capitalised
    assert KNOWN.judge(next(words("babil'de"))) == "unknown"


def test_a_text_of_letters_is_not_valid_whatever_the_dictionary_lists():
    letters = Dictionary("letters", lambda word: len(word) == 1)
    found = quality("Dün K, C, B, o ve O", dictionary=letters)
    assert value(found.valid_words) == pytest.approx(2 / 7)
    assert value(found.unknown_names) == 0


def test_known_words_and_unknown_names_are_shares_of_all_words():
    found = quality("Ev ile su ve Babil", dictionary=KNOWN)
    assert value(found.valid_words) == pytest.approx(2 / 5)
    assert value(found.unknown_names) == pytest.approx(1 / 5)


def test_every_letter_swapped_makes_real_words_invalid():
    known = Dictionary("tiny", {each.letters for text in TINY_TEXTS for each in words(text)}.__contains__)
    real = quality(*TINY_TEXTS, dictionary=known)
    assert value(real.valid_words) == 1
    broken = quality(*(text.lower()[::-1] for text in TINY_TEXTS), dictionary=known)
    assert value(broken.valid_words) < 0.2


@pytest.fixture
def dictionary_file(tmp_path):
    (tmp_path / "own.aff").write_text(
        "SET UTF-8\nSFX A Y 2\nSFX A 0 lar .\nSFX A 0 'da .\n", encoding="utf-8"
    )  # fmt: skip
    (tmp_path / "own.dic").write_text("4\nağaç/A\nIğdır/A\nışık\nil\n", encoding="utf-8")
    return tmp_path / "own.dic"


def test_hunspell_reads_a_dictionary_with_its_suffixes(dictionary_file):
    pytest.importorskip("hunspell")
    dictionary = open_dictionary(dictionary_file)
    judged = {word.letters: dictionary.judge(word) for word in words("Ağaçlar ve IŞIK, Iğdır'da ağaclar. İL ıl")}
    assert judged == {
        "Ağaçlar": "known", "ve": "unknown", "IŞIK": "known", "Iğdır": "known", "ağaclar": "unknown", "İL": "known",
        "ıl": "unknown",
    }  # fmt: skip
    assert dictionary.name == str(dictionary_file)


def test_a_dictionary_that_is_not_there_is_an_error_and_none_at_all_a_reason(tmp_path, monkeypatch, dictionary_file):
    with pytest.raises(InputError, match=r"gone\.dic does not exist"):
        open_dictionary(tmp_path / "gone.dic")
    dictionary_file.with_suffix(".aff").unlink()
    with pytest.raises(InputError, match=r"own\.aff does not exist"):
        open_dictionary(dictionary_file)
    monkeypatch.setattr(spelling, "DICTIONARIES", (tmp_path / "gone.dic",))
    with pytest.raises(NoDictionary, match="make dictionary"):
        open_dictionary()


def test_without_hunspell_the_reason_says_what_to_install(monkeypatch, dictionary_file):
    monkeypatch.setitem(__import__("sys").modules, "hunspell", None)
    with pytest.raises(NoDictionary, match="pip install"):
        open_dictionary(dictionary_file)


def test_real_texts_are_cut_to_as_many_tokens_in_their_order():
    texts = ["Ankara", "Çocuklar bahçede oynarken", "Bir varmış"]
    sizes = [len(CODEC.encode(text)) for text in texts]
    reference = ["a", *TINY_TEXTS]
    long_enough = iter(reference)
    for cut, size in zip(equally_long(texts, reference, CODEC), sizes, strict=True):
        real = next(real for real in long_enough if len(CODEC.encode(real)) >= size)
        assert real.startswith(cut)
        assert cut == CODEC.decode(CODEC.encode(real)[:size])
    assert equally_long([TINY_TEXTS[0]], [TINY_TEXTS[0]], CODEC) == [TINY_TEXTS[0]]


def test_a_reference_that_is_too_short_says_for_how_many_texts_it_is():
    with pytest.raises(DataError, match="real text for 1 of 2 texts"):
        equally_long(["ev", TINY_TEXTS[0] * 3], TINY_TEXTS, CODEC)


@pytest.mark.parametrize(("text", "whole"), [
    ("Bir iki ü", "Bir iki"), ("Bir iki.", "Bir iki."), ("Bir iki. ", "Bir iki."), ("Bir\niki", "Bir"), ("Bir", ""),
    ("", ""), ("Ankara'", "Ankara'"), ("1923 19", "1923"),
])  # fmt: skip
def test_a_last_word_that_may_be_cut_is_left_out(text, whole):
    assert without_cut_word(text) == whole


@pytest.fixture(scope="module")
def judge():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tiny_tokenizer()), n_embd=16, n_layer=2, n_head=2, n_positions=48,
                        bos_token_id=0, eos_token_id=2)  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(30)
    return Judge("tiny", model, tiny_tokenizer())


@torch.no_grad()
def slow_nats(judge, text):
    """One token at a time, with nothing to its right."""
    seen, nats = [judge.tokenizer.bos_token_id], 0.0
    for index in judge.tokenizer.encode(text, add_special_tokens=False):
        probabilities = judge.model(input_ids=torch.tensor([seen])).logits[0, -1].double().softmax(dim=0)
        nats -= math.log(float(probabilities[index]))
        seen.append(index)
    return nats


def test_a_judge_says_the_same_as_token_after_token(judge):
    for text in TINY_TEXTS[:4]:
        assert judge.nats(text) == pytest.approx(slow_nats(judge, text), rel=1e-5)
    assert judge.nats("") == 0
    found = quality(*TINY_TEXTS[:2], judge=judge.nats).judge_nats
    nats = [slow_nats(judge, text) for text in TINY_TEXTS[:2]]
    assert value(found) == pytest.approx(np.sum(nats) / sum(map(len, TINY_TEXTS[:2])), rel=1e-5)


def test_a_text_beyond_the_context_is_an_error_and_so_is_a_judge_that_is_not_there(judge, tmp_path):
    with pytest.raises(InputError, match="too long for tiny, which reads 48"):
        judge.nats("ev " * 60)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_judge(str(tmp_path / "gone"))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_judge(str(tmp_path / "gone.gguf"))


def test_the_longest_text_that_is_read_fills_the_context_with_its_beginning(judge):
    longest = next(text for text in ("b " * size for size in range(48)) if len(CODEC.encode(text)) >= 46)
    at_most = longest if len(CODEC.encode(longest)) == 47 else longest + "b"
    assert len(CODEC.encode(at_most)) == 47
    assert judge.nats(at_most) == pytest.approx(slow_nats(judge, at_most), rel=1e-5)
    with pytest.raises(InputError, match="a text of 48 tokens"):
        judge.nats(at_most + "b")


def test_a_judge_is_loaded_from_a_folder(judge, tmp_path):
    judge.model.save_pretrained(tmp_path)
    judge.tokenizer.save_pretrained(tmp_path)
    assert load_judge(str(tmp_path)).nats(TINY_TEXTS[0]) == pytest.approx(judge.nats(TINY_TEXTS[0]), rel=1e-5)
