from dataclasses import replace

import numpy as np
import pytest

from diffutron.evaluation.convergence import convergence
from diffutron.evaluation.questions import Question, ask_for_texts
from diffutron.evaluation.report import ESTIMATOR_TOKENS, _beginnings, measure_model
from diffutron.model import Loaded
from diffutron.testing import TINY_TEXTS, tiny_codec, tiny_denoiser, tiny_tokenizer

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


def test_a_report_weighs_the_estimators_on_windows_that_ask_for_something(monkeypatch):
    def with_unknown(texts, codec, *, max_tokens):
        read = ask_for_texts(texts, codec, max_tokens=max_tokens)
        unknown = np.asarray([codec.start_id, codec.unk_id, codec.end_id])
        nothing = Question(unknown, np.zeros(3, dtype=bool), (0,))
        return replace(read, questions=[nothing, *read.questions], documents=np.append(0, read.documents + 1))

    def estimators():
        loaded = Loaded("tiny", tiny_denoiser(), tiny_tokenizer(), {})
        return measure_model(loaded, {"set": TINY_TEXTS}, num_draws=2, num_seeds=1).estimators

    expected = estimators()
    monkeypatch.setattr("diffutron.evaluation.report.ask_for_texts", with_unknown)
    assert estimators() == expected


def test_a_report_weighs_the_estimators_on_the_beginnings_of_different_texts():
    long, short = " ".join(TINY_TEXTS), TINY_TEXTS[1]
    [first, second] = _beginnings([long, short], CODEC)
    beginning = ask_for_texts([long], CODEC, max_tokens=ESTIMATOR_TOKENS).questions
    assert len(beginning) > 1
    assert first.ids.tolist() == beginning[0].ids.tolist()
    assert second.ids.tolist() == ask_for_texts([short], CODEC, max_tokens=ESTIMATOR_TOKENS).questions[0].ids.tolist()
