import functools
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from diffutron.testing import TINY_TEXTS, tiny_codec
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.rows import encode_rows, windows
from diffutron.tokens.sentences import SentenceCut
from diffutron.tokens.unigram import NEWLINE, SPECIALS, WORD_START, build_unigram_tokenizer

NAMES = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
SENTENCES = (
    "Saat 3.5 oldu.",
    "T.C. kimliği 12.04.1961 günlü!",
    "Kapı 19. yüzyılda yapıldı…",
    'Annem "Gel." dedi mi?',
    "(Bunu kimse duymadı.)",
    "“Hava ne güzel!”",
    "Dün www.evim.com açıldı...",
    "Evet.",
)  # fmt: skip
LETTERS = sorted(set("".join((*SENTENCES, *TINY_TEXTS))) - set(" \n"))
WORDS = sorted({word for text in SENTENCES for word in text.split()})


def unigram():
    """Some pieces hold a word's end and its point."""
    pieces = [(WORD_START, -3.0), *((letter, -9.0) for letter in LETTERS)]
    pieces += [(piece, -4.0) for piece in ("du.", ".)", "!”", "▁T", "▁19", "▁(B", '▁"', "...", "▁oldu", "mi?")]
    return build_unigram_tokenizer([*((piece, 0.0) for piece in (*SPECIALS, NEWLINE)), *pieces])


def byte_level(add_prefix_space=False):
    pieces = [
        *NAMES,
        *sorted(pre_tokenizers.ByteLevel.alphabet()),
        "Ġ1",
        "Ġ19",
        "âĢ",
        "âĢ¦",
        "âĢĿ",
        "Ġâ",
        "Ġy",
        "ĠT",
        "u.",
    ]
    merges = [
        ("Ġ", "1"),
        ("Ġ1", "9"),
        ("â", "Ģ"),
        ("âĢ", "¦"),
        ("âĢ", "Ŀ"),
        ("Ġ", "â"),
        ("Ġ", "y"),
        ("Ġ", "T"),
        ("u", "."),
    ]
    tokenizer = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    return wrapped(tokenizer)


def wordpiece():
    split = pre_tokenizers.BertPreTokenizer()
    words = {word for text in SENTENCES for word, _ in split.pre_tokenize_str(text) if len(word) < 5}
    pieces = [*NAMES, *LETTERS, *(f"##{letter}" for letter in LETTERS), *sorted(words - set(LETTERS))]
    tokenizer = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return wrapped(tokenizer)


def wrapped(tokenizer):
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in NAMES])
    tokenizer.add_tokens([AddedToken("\n", special=False, normalized=False)])
    tokenizer.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        mask_token="<mask>", clean_up_tokenization_spaces=False,
    )  # fmt: skip


MAKERS = {
    "unigram": unigram, "byte-level": byte_level, "byte-level, spaced": lambda: byte_level(True), "wordpiece": wordpiece
}  # fmt: skip
KINDS = pytest.mark.parametrize("kind", MAKERS)


@functools.cache
def codec_of(kind):
    return TextCodec(MAKERS[kind]())


@functools.cache
def cut_of(kind):
    return SentenceCut(codec_of(kind))


def borders(codec, sentences):
    """Where each sentence ends, in ids: encoding the text up to there says so."""
    return [len(codec.encode("".join(sentences[: count + 1]))) for count in range(len(sentences))]


def inner(rows):
    """The rows' ids without special tokens."""
    return [row[1:-1] if last else row[1:] for row, last in zip(rows, [*[False] * (len(rows) - 1), True], strict=True)]


@KINDS
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_rows_of_a_long_text_end_where_its_sentences_do(kind, data):
    codec = codec_of(kind)
    picked = data.draw(st.lists(st.sampled_from(SENTENCES), min_size=4, max_size=30))
    between = data.draw(st.lists(st.sampled_from((" ", "\n")), min_size=len(picked), max_size=len(picked)))
    sentences = [picked[0], *(space + text for space, text in zip(between, picked[1:], strict=False))]
    ids = codec.encode("".join(sentences))
    ends = borders(codec, sentences)
    assert ends[-1] == len(ids)
    # So large that half a row holds a whole sentence, wherever it begins.
    longest = max(end - start for start, end in itertools.pairwise([0, *ends]))
    room = 2 * longest + data.draw(st.integers(4, 40))
    reached = itertools.accumulate(map(len, inner(list(windows(ids, codec, room + 2, cut_of(kind))))))
    # A row may end before or after the newline that stands between two sentences.
    assert set(reached) <= {*ends, *(end + 1 for end in ends)}


@KINDS
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_rows_hold_every_id_once_and_are_at_least_half_full(kind, data):
    codec = codec_of(kind)
    ids = data.draw(st.lists(st.integers(len(NAMES), len(codec) - 1), max_size=120))
    size = data.draw(st.integers(8, 40))
    rows = inner(list(windows(ids, codec, size, cut_of(kind))))
    assert [index for row in rows for index in row] == ids
    assert all((size - 2) / 2 <= len(row) <= size - 2 for row in rows[:-1])


@KINDS
def test_without_a_sentence_a_row_ends_before_a_word_and_without_a_word_anywhere(kind):
    codec, cut = codec_of(kind), cut_of(kind)
    words = codec.encode(" ".join(["kapı"] * 12))
    end = cut(words, 0, 22)
    assert end > 11
    assert codec.starts_word[words[end]]
    letters = [index for index in codec.encode("k" * 40) if not codec.starts_word[index]]
    assert cut(letters, 0, 20) == 20


@KINDS
def test_a_line_ends_a_sentence_whatever_follows_unless_less_than_half_a_row_is_before_it(kind):
    codec, cut = codec_of(kind), cut_of(kind)
    line = "kapı" + " kapı" * 5
    before = len(codec.encode(line)) + 1  # the newline
    ids = codec.encode(line + "\nevde" + " kapı" * 12)
    for end in range(before, len(ids)):
        assert cut(ids, 0, end) == before if end <= 2 * before else cut(ids, 0, end) > end / 2
    point = len(codec.encode(line + "."))  # nor need the newline fit into the row
    assert cut(codec.encode(line + ".\nevde"), 0, point) == point


@KINDS
@pytest.mark.parametrize(
    "text",
    ["Pi 3.1415 tir", "T.C. dedi", "Adı www.evim.com dur", "Yıl 12.04.1961 idi", "Kapı 19. yüzyılda", "T.C.'nin evi"],
)
def test_a_point_inside_a_number_a_name_or_a_sentence_ends_nothing(kind, text):
    codec = codec_of(kind)
    ids = codec.encode("Ev " * 6 + text + " kapı" * 6)
    words = [place for place in range(len(ids)) if codec.starts_word[ids[place]]]
    # Every row that may end behind the text ends at its last word: no sentence calls it back.
    for end in range(len(codec.encode("Ev " * 6 + text)) + 1, len(ids)):
        assert cut_of(kind)(ids, 0, end) == max(place for place in words if place <= end)


def test_a_vocabulary_without_capitals_takes_small_letters_for_beginnings():
    letters = [letter for letter in LETTERS if not letter.isupper()]
    pieces = [(piece, 0.0) for piece in (*SPECIALS, NEWLINE)] + [
        (WORD_START, -3.0),
        *((each, -9.0) for each in letters),
    ]
    codec = TextCodec(build_unigram_tokenizer(pieces))
    first = "eve gitti. "
    ids = codec.encode(first + "kapı açık")
    assert SentenceCut(codec)(ids, 0, len(ids) - 1) == len(codec.encode(first.strip()))


def test_long_texts_may_be_cut_between_sentences():
    codec = tiny_codec()
    text = " ".join(TINY_TEXTS)
    rows = encode_rows([text, "ev"], codec, max_tokens=100, long_texts="sentences")
    texts = [codec.decode(rows[number].tolist()) for number in range(len(rows))]
    assert len(texts) == 4
    assert all(each.endswith(".") for each in texts[:-1])
    assert texts[-1] == "ev"
    short = encode_rows(TINY_TEXTS, codec, max_tokens=64, long_texts="sentences")
    assert short.fingerprint == encode_rows(TINY_TEXTS, codec, max_tokens=64).fingerprint
