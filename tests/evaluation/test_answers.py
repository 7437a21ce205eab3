"""Scores of answers mean what they say, and every instruction can be followed and failed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics import CHRF

from diffutron.corpus.conversations import Turn
from diffutron.errors import DataError
from diffutron.evaluation.answers import (
    AnswerScores,
    Number,
    Rate,
    chrf,
    compare_answers,
    folded,
    instructions,
    nearest_sentence,
    score_answers,
    word_f1,
)  # fmt: skip
from diffutron.generation.chat import Reply

TEXTS = st.text("abcçğıi öİI .,'", max_size=30)


@given(TEXTS, TEXTS)
def test_chrf_is_sacrebleus(one, other):
    assert 100 * chrf(one, other) == pytest.approx(CHRF().sentence_score(one, [other]).score, abs=1e-6)


@given(TEXTS, TEXTS)
def test_scores_lie_between_nothing_and_the_same(one, other):
    for score in (chrf, word_f1):
        assert 0 <= score(one, other) <= 1
    assert word_f1(one, other) == word_f1(other, one)
    assert word_f1(one, one) == (1.0 if folded(one) else 0.0)


@pytest.mark.parametrize(("one", "other", "equal"), [
    ("Ankara.", "ANKARA", True), ("İzmir'de", "izmir de", True), ("ISPARTA", "ısparta", True),
    ("IĞDIR", "iğdir", False), ("12,5", "12.5", True), ("Ankara", "Ankara kenti", False),
])  # fmt: skip
def test_answers_are_equal_but_for_case_and_punctuation_in_turkish(one, other, equal):
    assert (folded(one) == folded(other)) is equal


def reply(text, reason="stop"):
    return Reply(text, reason, 3, 0)


def test_scores_count_answers_and_their_ends():
    replies = [reply("Ankara"), reply("bir uzun yanıt", "length"), reply("[Answer] su"), reply("deniz kenarı")]
    scores = score_answers(replies, ["ankara.", "kısa", "su", "kenarı deniz"])
    assert isinstance(scores, AnswerScores)
    assert (scores.exact.value, scores.ended.value, scores.tagged.value) == (0.25, 0.75, 0.25)
    assert scores.f1.value == pytest.approx((1 + 0 + 2 / 3 + 1) / 4)
    assert all(rate.low <= rate.value <= rate.high and rate.num == 4
               for rate in (scores.exact, scores.f1, scores.chrf) if isinstance(rate, Rate))  # fmt: skip
    better = score_answers([reply(text) for text in ("ankara", "kısa", "su", "kenarı deniz")], scores_wanted())
    assert compare_answers(better, scores, "exact").value == 0.75
    with pytest.raises(DataError):
        score_answers([], [])


def scores_wanted():
    return ["ankara.", "kısa", "su", "kenarı deniz"]


def test_answers_about_one_passage_are_drawn_together():
    """Three passages, all right or all wrong: 300 answers tell no more than three."""
    replies = [reply("su" if place < 100 else "ev") for place in range(300)]
    groups = [f"passage {place // 100}" for place in range(300)]
    alone = score_answers(replies, ["su"] * 300).exact
    together = score_answers(replies, ["su"] * 300, groups=groups)
    assert (alone.value, alone.num_groups) == (pytest.approx(1 / 3), 300)
    assert alone.high - alone.low < 0.12
    assert (together.exact.value, together.exact.num, together.exact.num_groups) == (pytest.approx(1 / 3), 300, 3)
    assert (together.exact.low, together.exact.high) == (0, 1)
    better = score_answers([reply("su")] * 300, ["su"] * 300, groups=groups)
    assert compare_answers(better, together, "exact").value == pytest.approx(2 / 3)
    assert compare_answers(better, together, "exact").p_value > 0.2
    # Who stands alone is a group of his own.
    assert score_answers(replies[:4], ["su"] * 4, groups=["a", "", "a", ""]).exact.num_groups == 3


@pytest.mark.parametrize(("one", "other", "equal"), [
    ("-5", "5", False), ("−5", "-5", True), ("(-5)", "-5", True), ("3-5", "3 5", True), ("1,5", "15", False),
    ("12:30", "1230", False), ("5.", "5", True), ("+", "", False), ("Işık!", "ışık", True), ("“Su”", "su", True),
    ("a.b", "a b", True),
])  # fmt: skip
def test_equal_answers_differ_in_case_and_punctuation_but_not_in_signs(one, other, equal):
    assert (folded(one) == folded(other)) is equal


@pytest.mark.parametrize(("answer", "is_number"), [
    ("7", True), ("-7", True), ("1.000.000", True), ("3,14", True), ("7.", True), ("5 7", False), ("yedi", False),
    ("7 elma", False), ("1.00.0", False), ("", False),
])  # fmt: skip
def test_what_is_a_number(answer, is_number):
    assert Number(kind="number").holds(answer) is is_number


@pytest.mark.parametrize("tag", ["[/Answer]", "[Question]", "<s>", "</s>", "Yanıt:", "Soru:"])
def test_tags_are_seen(tag):
    assert score_answers([reply(f"su {tag}")], ["su"]).tagged.value == 1
    assert score_answers([reply("2 < 3 ve 5 > 4, yanıt budur")], ["su"]).tagged.value == 0


def test_the_baseline_takes_the_sentence_that_shares_most_words():
    passage = "Kent büyüktür. Kentin ilk köprüsü 1850 yılında yapıldı. Irmak oradan geçer."
    question = (Turn("user", f"Kentin ilk köprüsü ne zaman yapıldı?\n\n{passage}"),)
    assert nearest_sentence(question) == "Kentin ilk köprüsü 1850 yılında yapıldı."
    assert nearest_sentence((Turn("user", "Neden?"),)) == "Neden?"


FOLLOWED = {
    "words": "mavi", "one of": "Evet.", "number": "7", "parts": "elma, armut ve kiraz", "lines": "yaz\nkış\ngüz",
    "holds": "Yarın denize gidiyoruz.", "turkish": "Bugün hava çok güzel ve güneşli.",
    "ends with": "Nereye gidiyorsun?",
}  # fmt: skip


@pytest.mark.parametrize(("word", "answer", "holds"), [
    ("su", "Bir bardak su içtim.", True), ("su", "Suyu içtim.", True), ("su", "Sular aktı.", True),
    ("su", "Sunum çok iyiydi.", False), ("su", "Suç onun.", False), ("su", "Sultan geldi.", False),
    ("su", "Susmak iyidir.", False), ("su", "Susuz kaldık.", True), ("ağa", "Ağacın altında.", True),
    ("ağa", "Ağaç dikti.", True), ("ağa", "Ağabeyim geldi.", False), ("kita", "Kitabı okudum.", True),
])  # fmt: skip
def test_a_word_is_held_with_its_endings_and_not_by_another_that_begins_like_it(word, answer, holds):
    [check] = [check for each in instructions() for check in each.checks if getattr(check, "word", None) == word]
    assert check.holds(answer) is holds


def test_each_kind_of_check_can_be_followed_and_an_empty_answer_follows_none():
    asked = instructions()
    assert len(asked) == 40
    assert len({each.prompt for each in asked}) == 40
    followed = {each.checks[0].kind for each in asked if each.followed(FOLLOWED[each.checks[0].kind])}
    assert followed == set(FOLLOWED)
    assert not any(each.followed(text) for each in asked for text in ("", " \n"))
    # No one answer follows them all, or anything like it.
    for text in FOLLOWED.values():
        assert sum(each.followed(text) for each in asked) < 25
