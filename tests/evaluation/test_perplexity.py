import math

import numpy as np
import pytest
import torch

from diffutron.errors import DataError, InputError
from diffutron.evaluation import masked_perplexity
from diffutron.evaluation.hiding import AtRate
from diffutron.evaluation.perplexity import by_group, compare
from diffutron.evaluation.questions import ask_for_rows, ask_for_texts
from diffutron.evaluation.score import bootstrap_ratio, paired_difference
from diffutron.testing import TINY_TEXTS, slow_masked_nll, tiny_codec, tiny_denoiser
from diffutron.tokens.rows import LEARNED, Rows

CODEC = tiny_codec()


KINDS = [AtRate(0.3), AtRate(0.9), AtRate(0.5, replace="80-10-10"), AtRate(0.3, unit="word"),
         AtRate(0.3, unit="morpheme", replace="80-10-10")]  # fmt: skip


@pytest.mark.parametrize("family", ["bert", "modernbert", "xlm-roberta"])
@pytest.mark.parametrize("hiding", KINDS, ids=str)
def test_equals_the_slow_oracle_one_row_at_a_time(family, hiding):
    denoiser = tiny_denoiser(family)
    texts = [*TINY_TEXTS, " ".join(TINY_TEXTS)]
    result = masked_perplexity(denoiser, CODEC, texts, hiding=hiding, seed=4, micro_batch_tokens=150)

    nll = []
    for question in ask_for_texts(texts, CODEC, max_tokens=64).questions:
        [look] = hiding.looks(question, CODEC, 4)
        scored = look.is_scored.nonzero()[0].tolist()
        nll += slow_masked_nll(denoiser, question.ids.tolist(), scored, CODEC.mask_id, xt=look.xt.tolist())
    assert result.num_masked == len(nll)
    assert result.nll == pytest.approx(float(np.mean(nll)), abs=1e-5)
    assert result.perplexity == pytest.approx(math.exp(np.mean(nll)), rel=1e-4)


def test_uniform_model_has_the_vocabulary_as_perplexity():
    denoiser = tiny_denoiser()
    with torch.no_grad():
        for param in denoiser.parameters():
            param.zero_()
    result = masked_perplexity(denoiser, CODEC, TINY_TEXTS)
    assert result.perplexity == pytest.approx(len(CODEC), rel=1e-5)
    assert result.low == pytest.approx(result.high, rel=1e-5)


def test_special_tokens_are_never_hidden():
    for question in ask_for_texts(TINY_TEXTS, CODEC, max_tokens=24).questions:
        [look] = AtRate(1.0).looks(question, CODEC, 0)
        assert (look.is_scored == ~np.isin(question.ids, sorted(CODEC.special_ids))).all()


def test_whole_words_are_hidden_or_shown_as_wholes():
    for question in ask_for_texts(TINY_TEXTS, CODEC, max_tokens=64).questions:
        [look] = AtRate(0.5, unit="word").looks(question, CODEC, 0)
        for place in range(1, len(question.ids) - 2):
            if not CODEC.starts_word[question.ids[place + 1]]:
                assert look.is_scored[place] == look.is_scored[place + 1]


def test_bert_mixture_shows_a_tenth_and_replaces_a_tenth():
    shown, random, total = 0, 0, 0
    for seed in range(40):
        for question in ask_for_texts(TINY_TEXTS, CODEC, max_tokens=64).questions:
            [look] = AtRate(0.8, replace="80-10-10").looks(question, CODEC, seed)
            seen, right = look.xt[look.is_scored], question.ids[look.is_scored]
            shown, total = shown + int((seen == right).sum()), total + len(seen)
            random += int(((seen != right) & (seen != CODEC.mask_id)).sum())
            assert (look.xt[~look.is_scored] == question.ids[~look.is_scored]).all()
    assert total > 2000
    # Four standard deviations of a share of 0.1.
    assert shown / total == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / total))
    assert random / total == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / total))


def test_masks_belong_to_seed_and_text_not_to_order_batch_or_neighbours():
    denoiser = tiny_denoiser()
    texts = list(TINY_TEXTS)
    first = masked_perplexity(denoiser, CODEC, texts, seed=1)
    turned = masked_perplexity(denoiser, CODEC, texts[::-1], seed=1, micro_batch_tokens=64)
    other = masked_perplexity(denoiser, CODEC, texts, seed=2)
    assert (first.num_masked, first.num_tokens) == (turned.num_masked, turned.num_tokens)
    assert first.nll == pytest.approx(turned.nll, abs=1e-6)
    assert first.nll != pytest.approx(other.nll, abs=1e-3)
    assert first.fingerprint == other.fingerprint


def test_normal_form_decides_so_nfd_and_nfc_score_alike():
    import unicodedata

    denoiser = tiny_denoiser()
    nfd = [unicodedata.normalize("NFD", text) for text in TINY_TEXTS]
    assert masked_perplexity(denoiser, CODEC, nfd) == masked_perplexity(denoiser, CODEC, TINY_TEXTS)


def test_top1_counts_the_tokens_ranked_first():
    denoiser = tiny_denoiser()
    favourite = next(index for index in range(len(CODEC)) if CODEC.encode(CODEC.piece_text(index)) == [index])
    with torch.no_grad():
        denoiser.model.cls.predictions.bias[favourite] = 50.0
    texts = [" ".join([CODEC.piece_text(favourite)] * 8)] * 2
    assert masked_perplexity(denoiser, CODEC, texts, mask_rate=0.5).top1 == 1.0
    others = [text for text in TINY_TEXTS if favourite not in CODEC.encode(text)]
    assert masked_perplexity(denoiser, CODEC, others, mask_rate=1.0).top1 == 0.0


def test_empty_texts_are_an_error_and_blank_ones_are_left_out():
    with pytest.raises(DataError, match="empty"):
        masked_perplexity(tiny_denoiser(), CODEC, ["", "  \n"])
    assert masked_perplexity(tiny_denoiser(), CODEC, ["", TINY_TEXTS[0]]).num_texts == 1


def test_interval_covers_the_truth_as_often_as_it_says():
    # 400 experiments of 60 documents with a known ratio of 2: coverage of a 95 % interval within 4 standard errors.
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(400):
        counts = generator.integers(5, 50, 60).astype(float)
        sums = counts * generator.normal(2.0, 0.5, 60)
        low, high = bootstrap_ratio(sums, counts, seed=trial)
        covered += low <= 2.0 <= high
    assert 0.89 <= covered / 400 <= 0.98


def test_two_models_are_compared_on_the_same_masks_and_a_model_equals_itself():
    one, other = tiny_denoiser(seed=0), tiny_denoiser(seed=1)
    before, after = (masked_perplexity(each, CODEC, TINY_TEXTS, mask_rate=0.5) for each in (one, other))
    difference = compare(before, after)
    assert difference.value == pytest.approx(after.nll - before.nll)
    assert difference.low <= difference.value <= difference.high
    same = compare(before, before)
    assert (same.value, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_scores_of_different_questions_are_not_compared():
    denoiser = tiny_denoiser()
    score = masked_perplexity(denoiser, CODEC, TINY_TEXTS)
    for other, name in (
        (masked_perplexity(denoiser, CODEC, TINY_TEXTS, seed=1), "seed is 0 and 1"),
        (masked_perplexity(denoiser, CODEC, TINY_TEXTS[1:]), "fingerprint"),
        (masked_perplexity(denoiser, CODEC, TINY_TEXTS, mask_rate=0.2), "mask_rate is 0.15 and 0.2"),
    ):
        with pytest.raises(InputError, match=name):
            compare(score, other)


def test_no_difference_is_called_one_as_often_as_the_level_says():
    generator = np.random.default_rng(0)
    counts = np.full(30, 10.0)
    found = [
        paired_difference(np.zeros(30), generator.normal(0.0, 1.0, 30), counts, seed=trial).p_value
        for trial in range(200)
    ]
    # 5 % of 200, four standard deviations; and p-values are spread evenly.
    assert sum(each <= 0.05 for each in found) <= 10 + 4 * math.sqrt(200 * 0.05 * 0.95)
    assert np.mean(found) == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / 200))
    far = paired_difference(np.zeros(30), generator.normal(2.0, 1.0, 30), counts, seed=0)
    assert far.p_value == pytest.approx(1 / 10_001)
    assert 0.0 < far.low < far.value < far.high


def test_groups_add_up_to_the_whole():
    denoiser = tiny_denoiser()
    texts = ["", *TINY_TEXTS]
    result = masked_perplexity(denoiser, CODEC, texts, mask_rate=0.5)
    groups = by_group(result, ["empty", *("even" if place % 2 else "odd" for place in range(len(TINY_TEXTS)))])
    assert {each.name for each in groups} == {"even", "odd"}
    assert sum(each.num_masked for each in groups) == result.num_masked
    assert sum(each.nll * each.num_masked for each in groups) == pytest.approx(result.nll * result.num_masked)
    odd = [text for place, text in enumerate(TINY_TEXTS) if not place % 2]
    [alone] = [each for each in groups if each.name == "odd"]
    assert masked_perplexity(denoiser, CODEC, odd, mask_rate=0.5).nll == pytest.approx(alone.nll, abs=1e-6)


def test_of_a_conversation_the_answer_is_asked_for_and_not_the_ends_behind_it():
    inside = [LEARNED | index for index in CODEC.encode("ev")]
    answer = [CODEC.start_id, *CODEC.encode("Ne var"), *inside, *[LEARNED | CODEC.end_id] * 5]
    [question] = ask_for_rows(Rows.of([answer], marked=True), CODEC).questions
    assert question.num_asked == len(inside)
