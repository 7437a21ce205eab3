import itertools
import math

import numpy as np
import pytest
import torch

from diffutron.errors import InputError
from diffutron.evaluation import log_likelihoods
from diffutron.evaluation.hiding import Draws, EverySet, InOrder, OneAtATime
from diffutron.evaluation.questions import Question, ask, ask_for_continuation
from diffutron.testing import TableDenoiser, slow_masked_nll, tiny_codec, tiny_denoiser

CODEC = tiny_codec()
FIRST, LETTERS = 10, 3


def known_joint(length, seed=0):
    """A distribution over ``length`` tokens of 3 kinds, far from independent, and the denoiser that knows it."""
    generator = torch.Generator().manual_seed(seed)
    joint = torch.randn([LETTERS] * length, generator=generator, dtype=torch.float64).mul(2).exp()
    joint /= joint.sum()
    return joint, TableDenoiser(joint, first=FIRST, vocabulary=len(CODEC), mask_id=CODEC.mask_id)


def question(*tokens, key=(7,)):
    return ask_for_continuation([], [FIRST + token for token in tokens], CODEC, key=key)


@pytest.mark.parametrize("estimator", ["bound", "chain", "random-order"])
def test_a_model_of_the_true_conditionals_gives_the_true_probability_of_every_text(estimator):
    joint, denoiser = known_joint(3)
    texts = list(itertools.product(range(LETTERS), repeat=3))
    found = log_likelihoods(denoiser, CODEC, [question(*text) for text in texts], estimator=estimator)
    for text, each in zip(texts, found, strict=True):
        assert each.value == pytest.approx(math.log(joint[text]), abs=1e-9)
        assert each.standard_error == 0.0
    assert sum(math.exp(each.value) for each in found) == pytest.approx(1.0)


def test_draws_meet_the_true_probability_within_their_standard_error():
    joint, denoiser = known_joint(5)
    text = (0, 2, 1, 1, 0)
    found = [log_likelihoods(denoiser, CODEC, [question(*text)], num_draws=16, seed=seed)[0] for seed in range(150)]
    assert {each.num_looks for each in found} == {16}
    away = np.asarray([each.value for each in found]) - math.log(joint[text])
    told = math.sqrt(np.mean([each.standard_error**2 for each in found]))
    assert abs(away.mean()) < 4 * told / math.sqrt(150)
    # A spread over 150 seeds is known to 6 %, that of its square's few terms to less.
    assert away.std() == pytest.approx(told, rel=0.25)


def test_more_draws_make_the_standard_error_smaller_by_the_root():
    _, denoiser = known_joint(5)

    def error(num_draws):
        found = [
            log_likelihoods(denoiser, CODEC, [question(0, 1, 2, 0, 1)], num_draws=num_draws, seed=seed)[0]
            for seed in range(30)
        ]
        return math.sqrt(np.mean([each.standard_error**2 for each in found]))

    # Narrower parts of the range also differ less within, so the gain is at least the root.
    assert error(4) / error(16) > 1.7


def test_pseudo_likelihood_is_the_sum_of_what_each_token_is_given_all_others():
    joint, denoiser = known_joint(3)
    a, b, c = np.unravel_index(int(joint.argmax()), joint.shape)
    expected = sum(math.log(joint[a, b, c] / part.sum()) for part in (joint[:, b, c], joint[a, :, c], joint[a, b, :]))
    [found] = log_likelihoods(denoiser, CODEC, [question(a, b, c)], estimator="pseudo")
    assert found.value == pytest.approx(expected)
    assert found.value > math.log(joint[a, b, c])


def test_the_bound_is_below_the_likelihood_of_writing_in_random_order():
    # A network's conditionals belong to no joint distribution: each order gives its own likelihood.
    denoiser, ids = tiny_denoiser(), [12, 30, 17]
    row = [CODEC.start_id, *ids, CODEC.end_id]
    orders = []
    for order in itertools.permutations((1, 2, 3)):
        steps = [slow_masked_nll(denoiser, row, list(order[step:]), CODEC.mask_id)[0] for step in range(3)]
        orders.append(-sum(steps))
    asked = ask_for_continuation([], ids, CODEC, key=(0,))
    [bound] = log_likelihoods(denoiser, CODEC, [asked], estimator="bound")
    assert bound.value == pytest.approx(np.mean(orders), abs=1e-4)
    assert bound.value <= math.log(np.mean(np.exp(orders)))
    [chain] = log_likelihoods(denoiser, CODEC, [asked], estimator="chain")
    assert chain.value == pytest.approx(orders[0], abs=1e-4)
    [drawn] = log_likelihoods(denoiser, CODEC, [asked], estimator="random-order", seed=3)
    assert min(abs(drawn.value - value) for value in orders) < 1e-4


def test_every_set_is_asked_once_and_its_weights_are_those_of_the_draws_in_the_mean():
    asked = question(0, 1, 2, 1)
    looks = list(EverySet().looks(asked, CODEC, 0))
    assert len(looks) == len({look.is_scored.tobytes() for look in looks}) == 15
    # Each token is asked as often as any other, L times the chance of each count: weights sum to 1 for a token.
    for place in range(1, 5):
        assert sum(look.weight for look in looks if look.is_scored[place]) == pytest.approx(1.0)
    assert not any(look.is_scored[[0, 5]].any() for look in looks)


def test_context_is_always_seen_and_never_scored():
    asked = ask_for_continuation([20, 21], [22, 23, 24], CODEC, key=(1,))
    for way in (Draws(6), EverySet(), OneAtATime(), InOrder(), InOrder("random")):
        for look in way.looks(asked, CODEC, 0):
            assert not look.is_scored[[0, 1, 2, 6]].any()
            assert (look.xt[[0, 1, 2, 6]] == asked.ids[[0, 1, 2, 6]]).all()
            assert look.is_scored.any()
            assert (look.xt[look.is_scored] == CODEC.mask_id).all()


def test_choices_of_one_question_and_one_length_are_hidden_alike():
    one, other = (ask_for_continuation([20], [22 + choice, 30, 31, 32], CODEC, key=(5,)) for choice in range(2))
    third = ask_for_continuation([20], [22, 30, 31, 32], CODEC, key=(6,))
    sets = [[look.is_scored.tolist() for look in Draws(8).looks(each, CODEC, 0)] for each in (one, other, third)]
    assert sets[0] == sets[1] != sets[2]


def test_answers_do_not_depend_on_neighbours_or_batch():
    denoiser = tiny_denoiser("modernbert")
    generator = np.random.default_rng(0)
    asked = [
        ask_for_continuation(generator.integers(10, 90, 4), generator.integers(10, 90, 3 + size), CODEC, key=(size,))
        for size in range(6)
    ]
    together = log_likelihoods(denoiser, CODEC, asked, num_draws=8)
    small = log_likelihoods(denoiser, CODEC, asked[::-1], num_draws=8, micro_batch_tokens=1)[::-1]
    alone = [log_likelihoods(denoiser, CODEC, [each], num_draws=8)[0] for each in asked]
    for a, b, c in zip(together, small, alone, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-5)
        assert a.value == pytest.approx(c.value, rel=1e-5)


def test_looks_of_a_question_come_in_their_order():
    asked = [question(0, 1, 2), question(1, 2)]
    _, denoiser = known_joint(3)
    found = [
        answer.look.is_scored.nonzero()[0].tolist()
        for answer in ask(denoiser, CODEC, asked[:1], InOrder(), seed=0, micro_batch_tokens=10)
    ]
    assert found == [[1], [2], [3]]


def test_too_long_a_question_is_one_clear_error():
    with pytest.raises(InputError, match="100 tokens with context are more than the model's 64"):
        log_likelihoods(tiny_denoiser(), CODEC, [Question(np.full(100, 12), np.ones(100, bool), (0,))])


@pytest.mark.parametrize("num_draws", [0, 1, 3, -2])
def test_draws_come_in_pairs(num_draws):
    with pytest.raises(InputError, match=f"even.* not {num_draws}"):
        Draws(num_draws)
