import functools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import diffutron
from diffutron.testing import TINY_TEXTS, tiny_codec
from diffutron.text import normalise
from diffutron.tokens.codec import TextCodec

CODEC = tiny_codec()
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def byte_level():
    pieces = [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġe", "Ġev", "de"]
    merges = [("Ġ", "e"), ("Ġe", "v"), ("d", "e")]
    tokenizer = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return wrapped(tokenizer)


def wordpiece():
    letters = sorted(set("".join(TINY_TEXTS)) - set(" \n"))
    pieces = [*SPECIALS, *letters, *(f"##{letter}" for letter in letters), "ev", "##de", "İstanbul", "##dan"]
    tokenizer = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return wrapped(tokenizer)


def wrapped(tokenizer):
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIALS])
    return TextCodec(PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        mask_token="<mask>", clean_up_tokenization_spaces=False,
    ))  # fmt: skip


@functools.cache
def codec_of(kind):
    makers = {"tiny": tiny_codec, "byte-level": byte_level, "wordpiece": wordpiece}
    return diffutron.load("mini").codec if kind == "mini" else makers[kind]()


KINDS = pytest.mark.parametrize("kind", ["tiny", "mini", "byte-level", "wordpiece"])
MORE_TEXTS = (*TINY_TEXTS, "Liste:\n- ev\n- de\n\nSon.", "ev\nde", "a  b \n\n\n c\r\nd", "İstanbul'dan (2023) 3,5 %!")


@KINDS
def test_parts_of_a_text_have_the_ids_that_they_have_in_the_whole(kind):
    codec = codec_of(kind)
    for text in map(normalise, MORE_TEXTS):
        cuts = [found.start() for found in re.finditer(r"(?<!\s)\s", text)]
        for first in cuts:
            for last in (each for each in cuts if each >= first):
                # A space before a gap belongs to what fills it.
                begun = codec.encode_beginning(text[:first])
                assert begun + codec.encode_inside(text[first:last]) + codec.encode_inside(text[last:]) == codec.encode(
                    text
                )


@KINDS
def test_a_part_keeps_the_newlines_at_its_edges_and_no_space_at_its_end(kind):
    codec = codec_of(kind)
    newline = codec.encode_inside("\n")
    assert codec.encode_inside(" \n ") == newline
    assert codec.encode_inside("\n\n\n\n") == newline * 2
    assert codec.encode_beginning("Ankara\n") == codec.encode("Ankara") + newline
    assert codec.encode_beginning("\n Ankara ") == codec.encode("Ankara")
    assert codec.encode_inside(" ") == codec.encode_inside("") == codec.encode_beginning(" \n") == []
    assert codec.encode_inside("\nev") == newline + codec.encode("ev")
    if kind != "wordpiece":  # which cannot see them
        assert codec.decode(newline) == "\n"


@KINDS
def test_only_the_first_word_of_a_glued_part_is_glued(kind):
    codec = codec_of(kind)
    glued = codec.encode_inside("dan.")
    assert not codec.starts_word[glued[0]]
    assert codec.encode_inside("dan. ev\nev de") == [*glued, *codec.encode_inside(" ev\nev de")]
    assert codec.encode_inside("dan.\nev") == [*glued, *codec.encode_inside("\nev")]


@pytest.mark.parametrize("kind", ["tiny", "mini"])
@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="abcçdeğıioöşüABCÇİIŞ  .,'", max_size=40))
def test_in_one_line_a_prompt_and_parts_are_cut_as_texts_are(kind, text):
    codec = codec_of(kind)
    assert codec.encode_beginning(text) == codec.encode(text)
    if text[:1].isspace():
        assert codec.encode_inside(text) == codec.encode(text)
    else:
        whole = codec._glued_encoder.encode(normalise(text), add_special_tokens=False)
        assert codec.encode_inside(text) == list(whole.ids)


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
    assert not specials & set(CODEC.encode_inside(text))


def test_newline_is_a_piece_of_its_own_and_no_special_token():
    ids = CODEC.encode("Ankara\nev")
    newline = CODEC.encode("\nx"[0] + "a")  # a leading newline is stripped by normalisation
    assert CODEC.decode(ids) == "Ankara\nev"
    [token] = [index for index in ids if CODEC.tokenizer.convert_ids_to_tokens(index) == "\n"]
    assert token not in CODEC.special_ids
    assert token not in newline


def test_glued_text_continues_the_word():
    glued = CODEC.encode("ev") + CODEC.encode_inside("dir. Sonra")
    assert CODEC.decode(glued) == "evdir. Sonra"
    assert not CODEC.starts_word[CODEC.encode_inside("dir")[0]]
    assert CODEC.starts_word[CODEC.encode("dir")[0]]


def test_decode_after_gives_what_was_added_with_its_space():
    prompt = CODEC.encode("Ankara")
    assert CODEC.decode_after(prompt, CODEC.encode("evde")) == " evde"
    assert CODEC.decode_after(prompt, CODEC.encode_inside("dan")) == "dan"


def test_special_tokens_leave_nothing_in_the_text():
    ids = [CODEC.start_id, *CODEC.encode("evde"), CODEC.mask_id, CODEC.end_id, CODEC.pad_id]
    assert CODEC.decode(ids) == "evde"


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="abcçdefgğhıijklmnoöprsştuüvyzABCÇİIŞ .,'\n", max_size=60))
def test_turkish_text_round_trips(text):
    text = normalise(text)
    assert CODEC.decode(CODEC.encode(text)) == text


def test_what_touches_a_word_continues_it_but_for_punctuation_in_wordpiece():
    codec = codec_of("wordpiece")
    assert pieces_of(codec, "dan ev.") == ["##d", "##a", "##n", "ev", "."]
    assert pieces_of(codec, "'dan") == ["'", "d", "##a", "##n"]
    assert pieces_of(codec, ". ev") == [".", "ev"]
    assert "##'" in codec.tokenizer.get_vocab(), "the vocabulary no longer shows what goes wrong"
    assert "##." in codec.tokenizer.get_vocab()


def pieces_of(codec, text):
    return codec.tokenizer.convert_ids_to_tokens(codec.encode_inside(text))
