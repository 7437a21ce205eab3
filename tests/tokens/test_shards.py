import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffutron.errors import DataError
from diffutron.testing import TINY_TEXTS, tiny_codec
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.rows import LEARNED, Rows, collate, encode_rows, make_rows
from diffutron.tokens.shards import SHARD_TOKENS, Origin, ensure_shards, open_shards, write_shards
from diffutron.tokens.unigram import NEWLINE, SPECIALS, WORD_START, build_unigram_tokenizer

CODEC = tiny_codec()
TEXTS = [*TINY_TEXTS, " ".join(TINY_TEXTS), "", "ev"]


def codec_of(pieces):
    scores = [(piece, -float(place + 1)) for place, piece in enumerate(pieces)]
    return TextCodec(build_unigram_tokenizer([*((piece, 0.0) for piece in (*SPECIALS, NEWLINE)), *scores]))


def made(texts, codec, *, corpus="0123456789abcdef", chat=None, **shape):
    """Rows, and where they come from."""
    shape = {"max_tokens": 32, "long_texts": "split", **shape}
    return make_rows(texts, codec, **shape), Origin.of(codec, corpus=corpus, chat=chat, **shape)


def written(folder, texts=TEXTS, codec=CODEC, *, shard_tokens=SHARD_TOKENS, **changes):
    rows, origin = made(texts, codec, **changes)
    return write_shards(rows, codec, folder, origin, shard_tokens=shard_tokens)


def assert_same(rows, expected):
    assert len(rows) == len(expected)
    assert rows.lengths.tolist() == expected.lengths.tolist()
    for number in range(len(expected)):
        assert rows[number].dtype == expected[number].dtype
        assert rows[number].tolist() == expected[number].tolist()
    assert rows.fingerprint == expected.fingerprint


@pytest.mark.parametrize("long_texts", ["split", "sentences", "drop"])
def test_any_row_from_the_disk_is_the_one_in_memory_and_so_is_the_fingerprint(tmp_path, long_texts):
    expected = encode_rows(TEXTS, CODEC, max_tokens=32, long_texts=long_texts)
    assert_same(written(tmp_path / "rows", long_texts=long_texts), expected)
    rows = open_shards(tmp_path / "rows", verify=True)
    assert_same(rows, expected)
    few = [len(rows) - 1, 0, 1]
    assert collate(rows, few, CODEC).x0.tolist() == collate(expected, few, CODEC).x0.tolist()


@settings(max_examples=30, deadline=None)
@given(shard_tokens=st.integers(1, 400), number=st.integers(0, 10**9))
def test_several_files_are_the_same_rows_as_one(tmp_path_factory, shard_tokens, number):
    folder = tmp_path_factory.mktemp("rows") / "rows"
    expected = encode_rows(TEXTS, CODEC, max_tokens=32)
    rows = written(folder, shard_tokens=shard_tokens)
    assert_same(rows, expected)
    files = sorted(folder.glob("tokens-*.bin"))
    assert sum(file.stat().st_size for file in files) == 2 * expected.lengths.sum()
    # No row crosses two files, so one that is longer than a file has one of its own.
    assert all(file.stat().st_size <= 2 * max(shard_tokens, expected.lengths.max()) for file in files)
    if shard_tokens < 100:
        assert len(files) > 1
    number %= len(rows)
    assert rows[number].tolist() == expected[number].tolist()


def test_ids_take_two_bytes_where_the_vocabulary_fits_and_four_where_not(tmp_path):
    codec = codec_of([WORD_START, *(f"ev{number}" for number in range(70_000))])
    text = "ev0 ev69999"
    rows = written(tmp_path / "large", [text], codec)
    assert json.loads((tmp_path / "large" / "shards.json").read_text())["dtype"] == "uint32"
    assert rows[0].max() > 2**16
    assert_same(rows, encode_rows([text], codec, max_tokens=32))
    written(tmp_path / "small")
    assert json.loads((tmp_path / "small" / "shards.json").read_text())["dtype"] == "uint16"


def test_what_is_learned_of_a_conversation_is_the_same_from_the_disk(tmp_path):
    marked = [[0, 5, 6 | LEARNED, 7 | LEARNED], [0, 8 | LEARNED]]
    origin = Origin.of(CODEC, corpus="any", max_tokens=32, chat="template")
    rows, expected = write_shards(marked, CODEC, tmp_path / "rows", origin), Rows.of(marked, marked=True)
    assert_same(rows, expected)
    assert [rows[0].tolist(), rows[1].tolist()] == [[0, 5, 6, 7], [0, 8]]
    assert rows.can_mask(0).tolist() == [False, False, True, True]
    assert rows.num_learned.tolist() == expected.num_learned.tolist() == [2, 1]


@pytest.mark.parametrize("name", ["tokens-00001.bin", "offsets.bin"])
def test_an_altered_byte_is_found_and_a_missing_or_cut_file_at_once(tmp_path, name):
    written(tmp_path / "rows", shard_tokens=100)
    file = tmp_path / "rows" / name
    whole = file.read_bytes()
    for place in (0, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DataError, match=f"{name} was altered"):
            open_shards(tmp_path / "rows", verify=True)
    file.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=f"{name} has {len(whole) - 1} bytes of {len(whole)}"):
        open_shards(tmp_path / "rows")
    file.unlink()
    with pytest.raises(DataError, match=f"{name} cannot be read"):
        open_shards(tmp_path / "rows")
    file.write_bytes(whole)
    assert_same(open_shards(tmp_path / "rows", verify=True), encode_rows(TEXTS, CODEC, max_tokens=32))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "", lambda text: "[]", lambda text: text[:-20], lambda text: text.replace("mat\": 2", "mat\": 1"),
        lambda text: text.replace("uint16", "uint32"), lambda text: text.replace("uint16", "int8"),
        lambda text: text.replace('"rows": ', '"rows": 1'), lambda text: text.replace('"tokens": ', '"tokens": 1'),
        lambda text: text.replace("offsets.bin", "others.bin"), lambda text: text.replace('"bytes"', '"octets"'),
        lambda text: text.replace('"files": {', '"files": [], "old": {'),
    ],
)  # fmt: skip
def test_a_broken_manifest_is_told_in_one_line(tmp_path, change):
    written(tmp_path / "rows")
    manifest = tmp_path / "rows" / "shards.json"
    manifest.write_text(change(manifest.read_text()))
    with pytest.raises(DataError, match="rows must be made again") as error:
        open_shards(tmp_path / "rows")
    assert "\n" not in str(error.value)


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DataError, match=r"shards\.json cannot be read"):
        open_shards(tmp_path / "rows")


def test_what_fails_leaves_nothing_behind_and_older_rows_alone(tmp_path):
    with pytest.raises(DataError, match="no text"):
        written(tmp_path / "rows", ["", " "])
    assert not list(tmp_path.iterdir())
    expected = written(tmp_path / "rows")

    def breaking():
        yield from TEXTS
        raise DataError("the corpus breaks off")

    with pytest.raises(DataError, match="breaks off"):
        written(tmp_path / "rows", breaking(), max_tokens=16)
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]
    assert_same(open_shards(tmp_path / "rows"), expected)


def test_no_folder_of_something_else_is_replaced(tmp_path):
    (tmp_path / "letters.txt").write_text("of value")
    with pytest.raises(DataError, match="letters"):
        written(tmp_path)
    assert (tmp_path / "letters.txt").read_text() == "of value"


def test_rows_are_made_once_and_again_when_anything_they_depend_on_changes(tmp_path, caplog):
    asked = []

    def texts():
        asked.append(True)
        yield from TEXTS

    def ensured(codec=CODEC, **changes):
        asked.clear()
        rows, origin = made(texts(), codec, **changes)
        return ensure_shards(rows, codec, tmp_path / "rows", origin)

    first = ensured()
    assert asked
    assert_same(ensured(), first)
    assert not asked
    other = codec_of([WORD_START, "e", "v"])
    changes = (
        {"corpus": "another"}, {"max_tokens": 31}, {"long_texts": "drop"}, {"chat": "other"}, {"codec": other},
    )  # fmt: skip
    for change in changes:
        ensured(**change)
        assert asked, change
        ensured(**change)
        assert not asked, change
        ensured()
        assert asked, change
    assert not caplog.messages
    file = tmp_path / "rows" / "tokens-00000.bin"
    file.write_bytes(b"\1" + file.read_bytes()[1:])
    again = ensured()
    assert asked
    assert_same(again, encode_rows(TEXTS, CODEC, max_tokens=32))
    assert "was altered" in caplog.text


def test_memory_does_not_grow_with_the_texts(tmp_path):
    def peak(count):
        tracemalloc.start()
        written(tmp_path / str(count), (" ".join(TINY_TEXTS) for _ in range(count)), long_texts="sentences")
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    peak(10)  # imports and tables
    few, many = peak(512), peak(5120)
    assert many < 1.1 * few
    assert np.memmap(tmp_path / "5120" / "offsets.bin", "<i8", "r")[-1] * 4 > few  # what would not fit otherwise
