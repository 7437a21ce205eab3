import numpy as np
import pytest

from diffutron.evaluation.convergence import convergence
from diffutron.evaluation.questions import ask_for_texts
from diffutron.testing import TINY_TEXTS, tiny_codec, tiny_denoiser

CODEC = tiny_codec()


def test_more_looks_cost_more_and_err_less_and_the_told_error_is_the_seen_one():
    questions = ask_for_texts(TINY_TEXTS, CODEC, max_tokens=64).questions
    found = convergence(tiny_denoiser(), CODEC, questions, draws=(4, 16, 64))
    bound = [each for each in found if each.estimator == "bound"]
    assert [each.looks for each in bound] == [4, 16, 64]
    errors = [each.standard_error for each in bound]
    # Sixteen times the looks: a quarter of the error, had eight texts told it exactly.
    assert errors[0] / errors[2] > 2.5
    # The spread of two seeds over eight texts tells the error to about a third.
    assert np.median([each.spread / each.standard_error for each in bound]) == pytest.approx(1.0, abs=0.5)
    sure = {each.estimator: each for each in found if each.estimator != "bound"}
    for name in ("chain", "pseudo"):
        assert sure[name].spread == sure[name].standard_error == 0.0
        assert sure[name].looks == np.mean([each.num_asked for each in questions])
    assert sure["random-order"].spread > 0
