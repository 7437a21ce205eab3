"""The loss asks for answers alone, whatever the turns, the length and the ending."""

import itertools

import numpy as np
import pytest
from test_chat import conversations

from diffutron.corpus.conversations import Conversation, Turn
from diffutron.errors import DataError, ModelError
from diffutron.testing import tiny_codec
from diffutron.tokens.chat import ChatFormat
from diffutron.tokens.instructions import CUT, TOO_LONG, OneEnd, PaddedEnds, SomeEnds, conversation_rows
from diffutron.tokens.rows import collate

CODEC = tiny_codec()
CHAT = ChatFormat(CODEC)
SOME = [Conversation(turns) for turns in conversations(200, seed=3)]
ENDINGS = [OneEnd(), PaddedEnds(kind="padded"), SomeEnds(kind="some", mean=3)]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("packed", [True, False])
def test_the_loss_may_ask_for_answers_and_ends_and_never_for_a_question_or_padding(ending, packed):
    kept = []
    rows = conversation_rows(
        [each for each in SOME if len(CHAT.encode(each.turns).ids) <= 120], CHAT, max_tokens=120, ending=ending,
        on_loss=lambda each, reason: kept.append(reason),
    )  # fmt: skip
    assert not kept
    originals = [CHAT.encode(each.turns) for each in SOME if len(CHAT.encode(each.turns).ids) <= 120]
    batch = collate(rows, range(len(rows)), CODEC, packed=packed)
    for number, found in enumerate(originals):
        row, place = batch.place(number)
        ids, asked = batch.x0[row, place].tolist(), batch.can_mask[row, place].tolist()
        size = len(found.ids)
        assert tuple(ids[:size]) == found.ids
        assert tuple(asked[:size]) == found.is_answer
        assert set(ids[size:]) <= {CODEC.end_id}
        assert all(asked[size:])
    if not packed:
        assert not batch.can_mask[~batch.attention_mask].any()


def test_endings_add_none_all_or_a_few():
    lengths = [np.array([len(CHAT.encode(each.turns).ids) for each in SOME])]
    for ending in ENDINGS:
        lengths.append(conversation_rows(SOME, CHAT, max_tokens=400, ending=ending).lengths)
    plain, one, padded, some = lengths
    assert (one == plain).all()
    assert (padded == 400).all()
    assert 1.5 < (some - plain).mean() < 4.5
    assert (some >= plain).all()


def test_what_is_too_long_is_cut_or_left_out_and_said():
    said = []
    long = Conversation((Turn("user", "ev " * 5), Turn("assistant", "deniz " * 200)))
    deaf = Conversation((Turn("user", "ev " * 300), Turn("assistant", "su")))
    rows = conversation_rows(
        [long, deaf], CHAT, max_tokens=64, on_loss=lambda each, reason: said.append((each, reason))
    )
    assert said == [(long, CUT), (deaf, TOO_LONG)]
    assert rows.lengths.tolist() == [64]
    assert CODEC.end_id not in rows[0][rows.can_mask(0)]
    with pytest.raises(DataError, match="no text is left"):
        conversation_rows([deaf], CHAT, max_tokens=64)


def test_an_ending_belongs_to_its_conversation():
    ending = ENDINGS[2]
    forward = conversation_rows(SOME, CHAT, max_tokens=200, ending=ending)
    backward = conversation_rows(SOME[::-1], CHAT, max_tokens=200, ending=ending)
    for one, other in itertools.islice(zip(range(len(SOME)), reversed(range(len(SOME))), strict=True), 50):
        assert forward[one].tolist() == backward[other].tolist()
    assert forward.fingerprint != conversation_rows(SOME, CHAT, max_tokens=200, ending=ending, seed=1).fingerprint


def test_a_template_that_does_not_say_what_is_generated_can_ask_but_not_teach():
    asking = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    chat = ChatFormat(tiny_codec(), asking)
    conversation = Conversation((Turn("user", "ev ne"), Turn("assistant", "su")), "here")
    assert chat.encode(conversation.turns[:1], ask=True).ids
    with pytest.raises(ModelError, match="does not mark what is learned"):
        conversation_rows([conversation], chat, max_tokens=60)
