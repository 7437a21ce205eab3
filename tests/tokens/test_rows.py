import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffutron.errors import DataError, InputError
from diffutron.testing import TINY_TEXTS, tiny_codec
from diffutron.tokens.rows import Rows, collate, encode_rows, micro_batches, plan_epoch, windows

CODEC = tiny_codec()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 200), st.integers(8, 40))
def test_windows_hold_every_token_once_and_end_only_where_the_document_does(length, size):
    ids = list(range(100, 100 + length))
    rows = list(windows(ids, CODEC, size))
    assert all(len(row) <= size and row[0] == CODEC.start_id for row in rows)
    assert [token for row in rows for token in row if token >= 100] == ids
    assert rows[-1][-1] == CODEC.end_id
    assert all(row[-1] != CODEC.end_id for row in rows[:-1])


@pytest.mark.parametrize("size", [-1, 0, 2])
def test_a_row_without_room_for_a_token_is_refused(size):
    with pytest.raises(InputError, match=f"a row of at most {size} tokens has no room"):
        next(windows([100], CODEC, size))
    assert list(windows([100, 101], CODEC, 3)) == [[CODEC.start_id, 100], [CODEC.start_id, 101, CODEC.end_id]]


def test_of_a_row_without_tokens_nothing_is_learned():
    assert Rows.of([[], [CODEC.start_id], [CODEC.start_id, 100]]).num_learned.tolist() == [0, 0, 1]


def test_long_texts_are_split_or_dropped_as_asked():
    long = " ".join(TINY_TEXTS)
    split = encode_rows([long, "ev"], CODEC, max_tokens=32)
    dropped = encode_rows([long, "ev"], CODEC, max_tokens=32, long_texts="drop")
    assert len(split) > 2
    assert len(dropped) == 1
    assert CODEC.decode(dropped[0].tolist()) == "ev"


def test_no_text_is_an_error():
    with pytest.raises(DataError, match="no text"):
        encode_rows(["", "  "], CODEC, max_tokens=32)


def test_everything_may_be_hidden_but_the_start_and_padding():
    rows = encode_rows(TINY_TEXTS, CODEC, max_tokens=64)
    batch = collate(rows, [0, 5, 3], CODEC, packed=False)
    assert batch.examples == (0, 5, 3)
    assert not batch.can_mask[:, 0].any()
    assert not (batch.can_mask & ~batch.attention_mask).any()
    assert (batch.x0[~batch.attention_mask] == CODEC.pad_id).all()
    assert ((batch.x0 == CODEC.end_id) & batch.can_mask).any(dim=1).all()  # endings are learned


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(2, 64), min_size=1, max_size=80), st.integers(0, 3), st.integers(32, 300))
def test_each_pass_visits_every_row_once_in_steps_of_the_size_asked(lengths, epoch, batch_tokens):
    lengths = np.asarray(lengths)
    plan = plan_epoch(lengths, seed=1, epoch=epoch, batch_tokens=batch_tokens)
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(lengths)))
    reached = np.cumsum([lengths[part].sum() for part in plan])
    # The running total never strays from step * batch_tokens by more than one row.
    for step, total in enumerate(reached[:-1], start=1):
        assert step * batch_tokens <= total < step * batch_tokens + 64 or batch_tokens < 64


def test_passes_differ_and_are_reproducible():
    lengths = np.full(50, 10)
    first, again, second = (
        np.concatenate(plan_epoch(lengths, seed=0, epoch=epoch, batch_tokens=100)).tolist() for epoch in (0, 0, 1)
    )
    assert first == again != second


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(2, 64), min_size=1, max_size=60), st.integers(64, 400))
def test_micro_batches_hold_every_row_and_stay_below_the_limit(lengths, limit):
    lengths = np.asarray(lengths)
    for packed in (True, False):
        parts = micro_batches(np.arange(len(lengths)), lengths, max_tokens=limit, packed=packed)
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(lengths)))
        sizes = [lengths[part].sum() if packed else len(part) * lengths[part].max() for part in parts]
        assert max(sizes) <= limit
