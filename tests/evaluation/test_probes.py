import json
import math

import numpy as np
import pytest
import torch

from diffutron.errors import DataError, InputError
from diffutron.evaluation import probes, score
from diffutron.evaluation.linear import fit_ridge, fit_softmax, spearman
from diffutron.evaluation.probes import (
    Correlation,
    Examples,
    compare_accuracies,
    compare_correlations,
    finite,
    probe_labels,
    probe_similarity,
    read_examples,
    sentence_vectors,
)
from diffutron.evaluation.score import wilson_interval
from diffutron.testing import TINY_TEXTS, tiny_codec, tiny_denoiser

CODEC = tiny_codec()
FAMILIES = ("bert", "modernbert", "xlm-roberta")
LONG = " ".join(TINY_TEXTS)


@pytest.fixture(scope="module")
def double():
    return {family: tiny_denoiser(family, dtype=torch.float64) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_vector_does_not_depend_on_its_neighbours(double, family):
    texts = [*TINY_TEXTS, LONG, TINY_TEXTS[0]]
    together = sentence_vectors(double[family], CODEC, texts)
    few = sentence_vectors(double[family], CODEC, texts[::-1], micro_batch_tokens=100)[::-1]
    alone = np.concatenate([sentence_vectors(double[family], CODEC, [text]) for text in texts])
    assert together == pytest.approx(alone, abs=1e-11)
    assert few == pytest.approx(alone, abs=1e-11)
    assert np.abs(together[0] - together[1]).max() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_vector_is_the_mean_over_the_tokens_of_all_windows_and_over_no_special_one(double, family):
    model, room = double[family].model, double[family].max_positions - 2
    for text in (TINY_TEXTS[0], LONG):
        ids = CODEC.encode(text)
        states = []
        for start in range(0, len(ids), room):
            part = ids[start : start + room]
            row = [CODEC.start_id, *part, *([CODEC.end_id] if start + room >= len(ids) else [])]
            with torch.inference_mode():
                hidden = model.base_model(input_ids=torch.tensor([row])).last_hidden_state[0]
            states += hidden[1 : len(part) + 1].tolist()
        assert len(states) == len(ids)
        assert sentence_vectors(double[family], CODEC, [text])[0] == pytest.approx(np.mean(states, axis=0), abs=1e-11)


def test_a_text_of_nothing_has_no_vector(double):
    with pytest.raises(DataError, match="holds no token"):
        sentence_vectors(double["bert"], CODEC, [TINY_TEXTS[0], " \n"])


def test_rank_correlation_of_known_cases():
    one = np.asarray([1.0, 2.0, 3.0, 4.0])
    assert spearman(one, np.exp(one)) == pytest.approx(1.0)
    assert spearman(one, -(one**3)) == pytest.approx(-1.0)
    # 1 - 6 Σd² / (n (n² - 1)) with d = (0, 0, 1, -1).
    assert spearman(one, np.asarray([1.0, 2.0, 4.0, 3.0])) == pytest.approx(1 - 6 * 2 / 60)
    assert spearman(one, np.ones(4)) == 0.0


def test_rank_correlation_with_ties_is_the_correlation_of_mean_ranks():
    generator = np.random.default_rng(0)
    for _ in range(50):
        a, b = generator.integers(0, 5, (2, 12)).astype(float)
        slow = [[sum(y < x for y in side) + (sum(y == x for y in side) + 1) / 2 for x in side] for side in (a, b)]
        assert spearman(a, b) == pytest.approx(np.corrcoef(slow)[0, 1])


def test_softmax_regression_is_at_its_minimum():
    generator = np.random.default_rng(1)
    features, labels = generator.normal(3.0, 2.0, (60, 4)), generator.integers(0, 3, 60)
    for penalty in (0.01, 1.0):
        model = fit_softmax(features, labels, 3, penalty=penalty)
        x = (features - model.mean) / model.spread
        assert (x.mean(axis=0), x.std(axis=0)) == (pytest.approx(np.zeros(4)), pytest.approx(np.ones(4)))
        logits = model(features)
        chances = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
        error = (chances - np.eye(3)[labels]) / len(labels)
        # The gradient by hand; the objective is convex, so a place without one is the minimum.
        assert x.T @ error + penalty * model.weight == pytest.approx(np.zeros((4, 3)), abs=1e-5)
        assert error.sum(axis=0) == pytest.approx(np.zeros(3), abs=1e-5)


def test_under_a_crushing_penalty_a_probe_knows_the_frequencies_alone():
    generator = np.random.default_rng(2)
    features, labels = generator.normal(size=(50, 3)), np.asarray([0] * 30 + [1] * 15 + [2] * 5)
    logits = fit_softmax(features, labels, 3, penalty=1e6)(features)
    assert np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)) == pytest.approx(
        np.tile([0.6, 0.3, 0.1], (50, 1)), abs=1e-4
    )
    scores = generator.normal(5.0, 1.0, 50)
    assert fit_ridge(features, scores, 1e9)(features)[:, 0] == pytest.approx(np.full(50, scores.mean()), abs=1e-4)


def test_ridge_regression_is_least_squares_on_a_sheet_with_the_penalty_as_extra_rows():
    generator = np.random.default_rng(3)
    features, scores, penalty = generator.normal(2.0, 3.0, (40, 5)), generator.normal(size=40), 0.3
    x = (features - features.mean(axis=0)) / features.std(axis=0)
    sheet = np.concatenate([x, math.sqrt(penalty * 40) * np.eye(5)])
    weight = np.linalg.lstsq(sheet, np.concatenate([scores - scores.mean(), np.zeros(5)]), rcond=None)[0]
    assert fit_ridge(features, scores, penalty)(features)[:, 0] == pytest.approx(x @ weight + scores.mean())


def test_the_penalty_grows_with_the_noise():
    generator = np.random.default_rng(4)
    features = generator.normal(size=(100, 40))
    clean = features[:, 0]
    [(_, weak), (_, strong)] = [
        probes._tuned(fit_ridge, probes._squared_error, features, scores, seed=0)
        for scores in (clean, generator.normal(size=100))
    ]
    assert (weak, strong) == (min(probes.PENALTIES), max(probes.PENALTIES))


def sentences(word, number):
    """Sentences that differ, and hold ``word`` or not."""
    return [f"{TINY_TEXTS[place % 8].split()[place % 4]} {place} {word}" for place in range(number)]


def labelled(number):
    texts = [text for pair in zip(sentences("tren", number), sentences("kitap", number), strict=True) for text in pair]
    return Examples((texts,), ["yol", "okul"] * number)


@pytest.fixture(scope="module")
def single():
    return tiny_denoiser()


def test_what_words_give_away_is_learned_and_what_nothing_gives_away_is_not(single):
    learned, asked = labelled(30), Examples((labelled(40).sides[0][60:],), labelled(40).targets[60:])
    found = probe_labels(single, CODEC, learned, asked)
    assert (found.value, found.low, found.high) == (1.0, *wilson_interval(len(asked), len(asked)))
    assert (found.chance, found.majority, found.num_classes) == (0.5, 0.5, 2)

    coins = np.random.default_rng(5).integers(0, 2, 160)
    texts = sentences("", 160)
    blind = [Examples((texts[part],), [str(coin) for coin in coins[part]]) for part in (slice(60), slice(60, None))]
    found = probe_labels(single, CODEC, *blind)
    assert found.low <= found.chance <= found.high
    assert found.value == pytest.approx(found.is_right.mean())


def test_majority_is_the_label_that_was_most_frequent_in_training(single):
    texts = sentences("", 30)
    found = probe_labels(
        single, CODEC, Examples((texts[:20],), ["a"] * 12 + ["b"] * 8), Examples((texts[20:],), ["a"] * 3 + ["b"] * 7)
    )
    assert found.majority == 0.3


def test_a_label_that_belongs_to_the_relation_of_a_pair_is_learned_from_the_relation(single):
    # Every word stands on either side of as many equal pairs as unequal ones: u and v alone give nothing away.
    words = ["tren", "kitap", "deniz", "sokak"]
    pairs = [
        (f"{one} {turn}", f"{other} {turn}", label)
        for turn in range(8) for one in words for unequal in words if unequal != one
        for other, label in ((one, "same"), (unequal, "other"))
    ]  # fmt: skip
    firsts, seconds, labels = map(list, zip(*pairs, strict=True))
    parts = [Examples((firsts[part], seconds[part]), labels[part]) for part in (slice(96), slice(96, None))]
    found = probe_labels(single, CODEC, *parts)
    assert found.majority == 0.5
    assert found.low > 0.8


def similar(number, seed):
    """Pairs that share as many words as their score says, each text of four words."""
    generator = np.random.default_rng(seed)
    words = sorted({word for text in TINY_TEXTS for word in text.split()})
    pairs, scores = [], []
    for _ in range(number):
        drawn, shared = generator.permutation(words)[:8], int(generator.integers(0, 5))
        pairs.append((" ".join(drawn[:4]), " ".join([*drawn[:shared], *drawn[4 : 8 - shared]])))
        scores.append(float(shared))
    return Examples(tuple(map(list, zip(*pairs, strict=True))), scores)


def test_pairs_that_share_words_are_similar(single):
    cosine, ridge = probe_similarity(single, CODEC, similar(80, 0), similar(60, 1))
    for found in (cosine, ridge):
        assert 0 < found.low < found.value < found.high
        assert found.value == spearman(found.predictions, found.gold)
    assert cosine.penalty is None
    u, v = (sentence_vectors(single, CODEC, side) for side in similar(60, 1).sides)
    slow = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(u, v, strict=True)]
    assert cosine.predictions == pytest.approx(slow)


def test_the_interval_of_a_correlation_covers_the_truth_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr(score, "BOOTSTRAP_DRAWS", 200)
    generator = np.random.default_rng(6)
    # Of a normal pair with correlation r, Spearman's is 6 / pi asin(r / 2).
    r, covered = 0.6, 0
    truth = 6 / math.pi * math.asin(r / 2)
    for trial in range(100):
        x, y = generator.multivariate_normal([0, 0], [[1, r], [r, 1]], 80).T
        low, high = score.bootstrap(lambda picked, x=x, y=y: spearman(x[picked], y[picked]), 80, seed=trial)
        covered += low <= truth <= high
    # 95 of 100, less four standard deviations and the optimism of a percentile interval.
    assert 84 <= covered <= 99


def correlated(predictions, gold, seed=0):
    return Correlation(spearman(predictions, gold), 0, 0, None, 10, len(gold), seed, "data", predictions, gold)


def test_a_model_equals_itself_and_a_better_one_is_told_from_it(monkeypatch):
    monkeypatch.setattr(probes, "PERMUTATIONS", 1000)
    generator = np.random.default_rng(7)
    gold = generator.normal(size=60)
    noisy, close = (gold + generator.normal(0.0, each, 60) for each in (3.0, 0.3))
    same = compare_correlations(correlated(noisy, gold), correlated(noisy, gold))
    assert (same.value, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)
    better = compare_correlations(correlated(noisy, gold), correlated(1000 + 7 * close, gold))
    assert better.value == pytest.approx(spearman(close, gold) - spearman(noisy, gold))
    assert 0 < better.low < better.value < better.high
    assert better.p_value == pytest.approx(1 / 1001)


def test_models_that_are_alike_are_told_apart_as_often_as_the_level_says(monkeypatch):
    monkeypatch.setattr(probes, "PERMUTATIONS", 60)
    monkeypatch.setattr(score, "BOOTSTRAP_DRAWS", 10)
    generator = np.random.default_rng(8)
    values = []
    for trial in range(200):
        gold = generator.normal(size=30)
        one, other = gold + generator.normal(size=30), 50 + 9 * (gold + generator.normal(size=30))
        values.append(compare_correlations(correlated(one, gold, trial), correlated(other, gold, trial)).p_value)
    assert sum(each <= 0.05 for each in values) <= 10 + 4 * math.sqrt(200 * 0.05 * 0.95)
    assert np.mean(values) == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / 200))


def test_two_models_are_compared_on_the_same_examples_only(single):
    learned, other = labelled(10), tiny_denoiser(seed=1)
    one, two = (probe_labels(each, CODEC, learned, labelled(6)) for each in (single, other))
    difference = compare_accuracies(one, two)
    assert difference.value == pytest.approx(two.value - one.value)
    for strange, name in (
        (probe_labels(single, CODEC, learned, labelled(7)), "fingerprint"),
        (probe_labels(single, CODEC, labelled(11), labelled(6)), "fingerprint"),
        (
            probe_labels(single, CODEC, learned, Examples((labelled(6).sides[0][::-1],), labelled(6).targets)),
            "fingerprint",
        ),
        (probe_labels(single, CODEC, learned, labelled(6), seed=1), "seed is 0 and 1"),
    ):
        with pytest.raises(InputError, match=name):
            compare_accuracies(one, strange)


def test_what_cannot_be_learned_or_asked_is_an_error(single):
    one = labelled(6)
    for train, test, says in (
        (labelled(2), one, "4 training examples are too few"),
        (Examples(one.sides, ["yol"] * 12), one, "every training example has the label 'yol'"),
        (one, Examples(one.sides, ["deniz"] * 12), "'deniz' of the test part is not in the training part"),
    ):
        with pytest.raises(DataError, match=says):
            probe_labels(single, CODEC, train, test)
    with pytest.raises(DataError, match=r"every test example has the score 2\.0"):
        probe_similarity(single, CODEC, similar(20, 0), Examples(similar(3, 1).sides, [2.0] * 3))


def test_records_that_lack_something_are_left_out_with_their_place(tmp_path, caplog):
    file = tmp_path / "pairs.jsonl"
    lines = [
        {"a": "Bir", "b": "iki", "score": 1}, {"a": "Bir", "score": 2}, {"a": "Bir", "b": " ", "score": 3},
        {"a": "Bir", "b": "iki", "score": "çok"}, {"a": "Bir", "b": "iki"}, {"a": "Üç", "b": "dört", "score": "2.5"},
        {"a": "Bir", "b": "iki", "score": math.nan}, {"a": "Bir", "b": "iki", "score": None},
    ]  # fmt: skip
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    found = read_examples(file, texts=("a", "b"), target="score", kind=finite)
    assert (found.sides, found.targets) == ((["Bir", "Üç"], ["iki", "dört"]), [1.0, 2.5])
    places = [int(message.split("pairs.jsonl:")[1].split(":")[0]) for message in caplog.messages]
    assert places == [2, 3, 4, 5, 7, 8]
    with pytest.raises(DataError, match="no record has the fields 'a', 'label'"):
        read_examples(file, texts=("a",), target="label", kind=str)
