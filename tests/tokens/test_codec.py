import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffutron.testing import TINY_TEXTS, tiny_codec
from diffutron.text import normalise

CODEC = tiny_codec()


@pytest.mark.parametrize("text", TINY_TEXTS)
def test_text_survives_encoding(text):
    assert CODEC.decode(CODEC.encode(text)) == text


@pytest.mark.parametrize(
    "text",
    ["\U000f00000", "\U000f00002 x", "special 2", "special 0", "<mask>", "</s>", "<s> <pad>", "a <unk> b", "x</s>y"],
)
def test_special_tokens_typed_by_a_user_are_text(text):
    specials = CODEC.special_ids - {CODEC.unk_id}
    assert not specials & set(CODEC.encode(text))
    assert not specials & set(CODEC.encode_glued(text))


def test_newline_is_a_piece_of_its_own_and_no_special_token():
    ids = CODEC.encode("Ankara\nev")
    newline = CODEC.encode("\nx"[0] + "a")  # a leading newline is stripped by normalisation
    assert CODEC.decode(ids) == "Ankara\nev"
    [token] = [index for index in ids if CODEC.tokenizer.convert_ids_to_tokens(index) == "\n"]
    assert token not in CODEC.special_ids
    assert token not in newline


def test_glued_text_continues_the_word():
    glued = CODEC.encode("ev") + CODEC.encode_glued("dir. Sonra")
    assert CODEC.decode(glued) == "evdir. Sonra"
    assert not CODEC.starts_word[CODEC.encode_glued("dir")[0]]
    assert CODEC.starts_word[CODEC.encode("dir")[0]]


def test_decode_after_gives_what_was_added_with_its_space():
    prompt = CODEC.encode("Ankara")
    assert CODEC.decode_after(prompt, CODEC.encode("evde")) == " evde"
    assert CODEC.decode_after(prompt, CODEC.encode_glued("dan")) == "dan"


def test_special_tokens_leave_nothing_in_the_text():
    ids = [CODEC.start_id, *CODEC.encode("evde"), CODEC.mask_id, CODEC.end_id, CODEC.pad_id]
    assert CODEC.decode(ids) == "evde"


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="abcçdefgğhıijklmnoöprsştuüvyzABCÇİIŞ .,'\n", max_size=60))
def test_turkish_text_round_trips(text):
    text = normalise(text)
    assert CODEC.decode(CODEC.encode(text)) == text
