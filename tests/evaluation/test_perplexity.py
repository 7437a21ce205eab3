import math

import numpy as np
import pytest
import torch

from diffutron.errors import DataError
from diffutron.evaluation import masked_perplexity
from diffutron.evaluation.perplexity import _hide
from diffutron.evaluation.score import bootstrap_ratio
from diffutron.evaluation.windows import batches, read_windows
from diffutron.testing import TINY_TEXTS, slow_masked_nll, tiny_codec, tiny_denoiser

CODEC = tiny_codec()


@pytest.mark.parametrize("family", ["bert", "modernbert", "xlm-roberta"])
def test_equals_the_slow_oracle_one_row_at_a_time(family):
    denoiser = tiny_denoiser(family)
    texts = [*TINY_TEXTS, " ".join(TINY_TEXTS)]
    result = masked_perplexity(denoiser, CODEC, texts, mask_rate=0.3, seed=4, micro_batch_tokens=150)

    spans = read_windows(texts, CODEC, max_tokens=64).windows
    nll = []
    for span in spans:
        hidden, _ = _hide([span], CODEC, 0.3, 4)
        masked = hidden.is_masked[0].nonzero().flatten().tolist()
        nll += slow_masked_nll(denoiser, span.ids, masked, CODEC.mask_id)
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
    for batch in batches(read_windows(TINY_TEXTS, CODEC, max_tokens=24).windows, 1000):
        hidden, _ = _hide(batch, CODEC, 1.0, 0)
        specials = torch.isin(hidden.x0, torch.tensor(sorted(CODEC.special_ids)))
        assert torch.equal(hidden.is_masked, ~specials)


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
