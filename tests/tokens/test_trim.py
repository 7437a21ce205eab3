"""Trimming: what stays is cut and scored as before, and what goes is still readable."""

import copy
import gzip
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerFast

from diffutron.errors import DataError, InputError, ModelError
from diffutron.model import Denoiser, Loaded, load_model, save_model
from diffutron.testing import TINY_TEXTS, tiny_config, tiny_tokenizer
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.pieces import keep_pieces
from diffutron.tokens.trim import trim
from diffutron.tokens.vocabulary import Budget, choose_pieces

SPEECHES = Path(__file__).parents[2] / "models/mini/src/diffutron_mini/samples/speeches.jsonl.gz"
LETTERS = "abcçdefgğhıijklmnoöprsştuüvyzABCÇDEFGĞHIİJKLMNOÖPRSŞTUÜVYZ.,'"
CORPUS, REST = TINY_TEXTS[::2], TINY_TEXTS[1::2]
KINDS = ("unigram", "bpe", "byte-level bpe", "wordpiece")


def wrapped(tokenizer, names):
    start, pad, end, unk, mask = names
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    tokenizer.add_tokens([AddedToken("\n", special=False, normalized=False)])
    tokenizer.post_processor = processors.BertProcessing(
        (end, tokenizer.token_to_id(end)), (start, tokenizer.token_to_id(start))
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=start, cls_token=start, eos_token=end, sep_token=end,
        pad_token=pad, unk_token=unk, mask_token=mask, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def bpe():
    """As Gemma's: no pre-tokenizer, spaces as letters, and bytes for what is no piece."""
    names = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    octets = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=["<junk>", *names, *octets], initial_alphabet=[*LETTERS, "▁"],
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator([text.replace("\n", " ") for text in TINY_TEXTS * 3], trainer)
    layout = json.loads(tokenizer.to_str())
    layout["added_tokens"] = []
    layout["pre_tokenizer"] = None
    tokenizer = wrapped(Tokenizer.from_str(json.dumps(layout)), names)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(name, tokenizer.convert_tokens_to_ids(name)) for name in ("<s>", "</s>")]
    )
    return tokenizer


def byte_level_bpe():
    """As RoBERTa's, with the padding id in the middle of the vocabulary."""
    names = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TINY_TEXTS * 3, trainer)
    return wrapped(tokenizer, names)


def wordpiece():
    """As BERT's: unused places before the special tokens, ``##`` inside words, and a letter that is no piece itself."""
    names = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")
    split = pre_tokenizers.BertPreTokenizer()
    words = {word for text in TINY_TEXTS for word, _ in split.pre_tokenize_str(text)}
    parts = {word[:size] for word in words for size in (2, 3)} | {
        "##" + word[-size:] for word in words for size in (2, 3)
    }
    letters = [*LETTERS, *(f"##{letter}" for letter in LETTERS)]
    pieces = ["[PAD]", *(f"boş{letter}" for letter in "abcdefgh"), "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    pieces += sorted((words | parts | {"qed"}) - set(pieces))
    tokenizer = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return wrapped(tokenizer, names)


MAKERS = {"unigram": tiny_tokenizer, "bpe": bpe, "byte-level bpe": byte_level_bpe, "wordpiece": wordpiece}


def loaded(kind="unigram", family="bert", dtype=torch.float32):
    tokenizer = copy.deepcopy(MAKERS[kind]())
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "pad", "eos", "cls", "sep")}
    positions = {"max_position_embeddings": 65 + ids["pad_token_id"]} if family == "xlm-roberta" else {}
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(
        tiny_config(family, vocab_size=len(tokenizer), **ids, **positions), dtype=dtype
    )
    with torch.no_grad():
        for param in model.parameters():
            param.normal_(0.0, 0.3)
    return Loaded("tiny", Denoiser(model).eval(), tokenizer, {"format": 1})


def cut(codec, text):
    return codec.tokenizer.convert_ids_to_tokens(codec.encode(text))


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_the_corpus_are_cut_as_before_with_fewer_pieces(kind):
    old = TextCodec(loaded(kind).tokenizer)
    trimmed, report = trim(loaded(kind), lambda: CORPUS, Budget())
    new = TextCodec(trimmed.tokenizer)
    assert [cut(new, text) for text in CORPUS] == [cut(old, text) for text in CORPUS]
    assert report.pieces_before == len(old.tokenizer.get_vocab())
    assert report.pieces_after == len(new) < report.pieces_before
    assert report.coverage == 1.0
    assert report.tokens_a_text_after == report.tokens_a_text_before
    assert report.num_changed == 0
    assert sum(param.numel() for param in trimmed.denoiser.parameters()) == report.parameters_after


@pytest.mark.parametrize("kind", KINDS)
def test_unseen_texts_are_cut_finer_and_decode_to_the_same_string(kind):
    old = TextCodec(loaded(kind).tokenizer)
    new = TextCodec(trim(loaded(kind), lambda: CORPUS[:1], Budget(min_count=2))[0].tokenizer)
    assert any(len(new.encode(text)) > len(old.encode(text)) for text in REST)

    @settings(max_examples=100, deadline=None)
    @given(st.one_of(st.sampled_from(REST), st.text(alphabet=LETTERS + " \n☃é", max_size=40)))
    def check(text):
        assert new.decode(new.encode(text)) == old.decode(old.encode(text))

    check()


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_keep_their_meaning(kind):
    before = loaded(kind)
    old, config = TextCodec(before.tokenizer), before.denoiser.model.config.to_dict()
    trimmed, _ = trim(loaded(kind), lambda: CORPUS, Budget())
    new = TextCodec(trimmed.tokenizer)
    for name in ("start_id", "end_id", "mask_id", "pad_id", "unk_id"):
        ids = [getattr(codec, name) for codec in (old, new)]
        assert old.tokenizer.convert_ids_to_tokens(ids[0]) == new.tokenizer.convert_ids_to_tokens(ids[1])
    text = "\n".join(CORPUS[:2])
    framed = [codec.tokenizer.convert_ids_to_tokens(codec.tokenizer(text)["input_ids"]) for codec in (old, new)]
    assert framed[0] == framed[1]
    assert framed[0][0] == old.tokenizer.cls_token
    assert "\n" in framed[0]
    for name in ("pad", "bos", "eos", "cls", "sep"):
        now = getattr(trimmed.denoiser.model.config, f"{name}_token_id", None)
        was = config.get(f"{name}_token_id")
        if was is not None:
            assert new.tokenizer.convert_ids_to_tokens(now) == old.tokenizer.convert_ids_to_tokens(was)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["bert", "modernbert", "xlm-roberta"])
def test_logits_of_kept_pieces_stay_exactly_what_they_were(kind, family, tmp_path):
    before = loaded(kind, family, torch.float64)
    old = TextCodec(before.tokenizer)
    trimmed, _ = trim(loaded(kind, family, torch.float64), lambda: CORPUS, Budget())
    new = TextCodec(trimmed.tokenizer)
    kept = old.tokenizer.convert_tokens_to_ids(new.tokenizer.convert_ids_to_tokens(range(len(new))))
    for text in CORPUS[:2]:
        rows = [torch.tensor([[codec.start_id, *codec.encode(text)]]) for codec in (old, new)]
        where = torch.ones_like(rows[0], dtype=torch.bool)
        with torch.no_grad():
            was = before.denoiser(rows[0], where=where)
            now = trimmed.denoiser(rows[1], where=where)
            features = [each.features(row, where=where) for each, row in
                        zip((before.denoiser, trimmed.denoiser), rows, strict=True)]  # fmt: skip
        assert torch.equal(*features)
        assert torch.equal(trimmed.denoiser.decoder.weight, before.denoiser.decoder.weight[kept])
        assert torch.equal(trimmed.denoiser.decoder.bias, before.denoiser.decoder.bias[kept])
        # Sums of another length may be added in another order.
        torch.testing.assert_close(now, was[:, kept], rtol=0, atol=1e-13)


@pytest.mark.parametrize("family", ["bert", "modernbert", "xlm-roberta"])
def test_tied_weights_stay_tied(family):
    trimmed, _ = trim(loaded(family=family), lambda: CORPUS, Budget())
    assert trimmed.denoiser.decoder.weight is trimmed.denoiser.model.get_input_embeddings().weight
    names = [name for name, _ in trimmed.denoiser.model.named_parameters(remove_duplicate=False)]
    again = [name for name, _ in loaded(family=family).denoiser.model.named_parameters(remove_duplicate=False)]
    assert names == again
    assert len(dict(trimmed.denoiser.named_parameters())) == len(
        dict(loaded(family=family).denoiser.named_parameters())
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["bert", "modernbert", "xlm-roberta"])
def test_transformers_alone_reads_the_saved_folder(kind, family, tmp_path):
    trimmed, _ = trim(loaded(kind, family), lambda: CORPUS, Budget())
    save_model(tmp_path / "trimmed", trimmed.denoiser, trimmed.tokenizer, trimmed.diffusion)
    model, info = AutoModelForMaskedLM.from_pretrained(tmp_path / "trimmed", output_loading_info=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "trimmed")
    assert not any(info.values())
    assert model.config.vocab_size == len(tokenizer) == len(trimmed.tokenizer)
    assert tokenizer.get_vocab() == trimmed.tokenizer.get_vocab()
    assert tokenizer.mask_token_id == trimmed.tokenizer.mask_token_id
    inputs = tokenizer(list(CORPUS), padding=True, return_tensors="pt")
    assert (
        inputs["input_ids"][0].tolist()[: len(TextCodec(tokenizer).encode(CORPUS[0]))][1:]
        == (TextCodec(trimmed.tokenizer).encode(CORPUS[0])[:-1])
    )
    with torch.no_grad():
        logits = model.eval()(**inputs).logits
        ours = trimmed.denoiser(
            inputs["input_ids"], where=inputs["attention_mask"].bool(), attention_mask=inputs["attention_mask"].bool()
        )
    torch.testing.assert_close(logits[inputs["attention_mask"].bool()], ours, rtol=1e-4, atol=1e-4)


def test_embedded_mini_keeps_its_logits_and_loses_nothing_of_the_corpus(tmp_path):
    with gzip.open(SPEECHES, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"][:300] for line in list(lines)[:20]]
    before = load_model("mini", device="cpu")
    trimmed, report = trim(load_model("mini", device="cpu"), lambda: texts, Budget())
    save_model(tmp_path / "mini", trimmed.denoiser, trimmed.tokenizer, trimmed.diffusion)
    again = load_model(str(tmp_path / "mini"), device="cpu")
    assert again.diffusion == before.diffusion
    assert report.num_changed == 0
    assert report.parameters_after < 0.85 * report.parameters_before
    old, new = TextCodec(before.tokenizer), TextCodec(again.tokenizer)
    kept = old.tokenizer.convert_tokens_to_ids(new.tokenizer.convert_ids_to_tokens(range(len(new))))
    assert torch.equal(again.denoiser.decoder.weight, before.denoiser.decoder.weight[kept])
    assert torch.equal(again.denoiser.decoder.bias, before.denoiser.decoder.bias[kept])
    for text in texts[:3]:
        assert cut(old, text) == cut(new, text)
        rows = [torch.tensor([[codec.start_id, *codec.encode(text), codec.end_id]]) for codec in (old, new)]
        where = torch.ones_like(rows[0], dtype=torch.bool)
        with torch.no_grad():
            was, now = before.denoiser(rows[0], where=where), again.denoiser(rows[1], where=where)
            features = [each.denoiser.features(row, where=where) for each, row in
                        zip((before, again), rows, strict=True)]  # fmt: skip
        assert torch.equal(*features)
        torch.testing.assert_close(now, was[:, kept], rtol=0, atol=1e-4)


def test_every_piece_on_the_way_to_a_kept_one_stays():
    # a b c d -> ab, cd -> abcd: the corpus uses abcd alone.
    vocab = {piece: index for index, piece in enumerate(["<s>", "</s>", "<pad>", "<unk>", "<mask>", *"abcd"])}
    vocab |= {"bc": 9, "ab": 10, "cd": 11, "abcd": 12, "da": 13}
    merges = [("a", "b"), ("c", "d"), ("b", "c"), ("ab", "cd"), ("d", "a")]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(vocab=vocab, merges=merges)), bos_token="<s>", eos_token="</s>",
        pad_token="<pad>", unk_token="<unk>", mask_token="<mask>",
    )  # fmt: skip
    small = loaded()
    [model] = [AutoModelForMaskedLM.from_config(tiny_config(vocab_size=len(vocab)))]
    trimmed, _ = trim(Loaded("t", Denoiser(model), tokenizer, small.diffusion), lambda: ["abcd"], Budget())
    assert set(trimmed.tokenizer.get_vocab()) == set(vocab) - {"bc", "da"}
    assert trimmed.tokenizer.tokenize("abcd") == ["abcd"]


def test_the_unknown_token_of_a_unigram_model_is_found_again():
    pieces = [(name, 0.0) for name in ("<s>", "</s>", "<pad>", "<mask>", "ab", "a", "b", "<unk>")]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.Unigram(pieces, unk_id=7)), bos_token="<s>", eos_token="</s>",
        pad_token="<pad>", unk_token="<unk>", mask_token="<mask>",
    )  # fmt: skip
    kept = ("<s>", "</s>", "<pad>", "<mask>", "a", "b", "<unk>")
    trimmed = keep_pieces(tokenizer, {piece: index for index, piece in enumerate(kept)})
    assert TextCodec(trimmed).encode("ab☃") == [4, 5, 6]
    assert trimmed.unk_token_id == 6


def test_of_a_piece_that_stands_twice_in_a_unigram_model_the_one_in_use_stays():
    pieces = [(name, 0.0) for name in ("<s>", "</s>", "<pad>", "<mask>", "<unk>", "a", "b")] + [("a", -1.0)]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.Unigram(pieces, unk_id=4)), bos_token="<s>", eos_token="</s>",
        pad_token="<pad>", unk_token="<unk>", mask_token="<mask>",
    )  # fmt: skip
    assert tokenizer.get_vocab()["a"] == 7
    order = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    trimmed = keep_pieces(tokenizer, {piece: index for index, piece in enumerate(order)})
    assert TextCodec(trimmed).encode("ab") == [6, 5]


def test_a_letter_that_is_no_piece_of_its_own_does_not_vanish_with_its_word():
    trimmed, _ = trim(loaded("wordpiece"), lambda: CORPUS, Budget())
    assert "q" not in trimmed.tokenizer.get_vocab()
    assert trimmed.tokenizer.tokenize("qed") == ["qed"]


def test_padding_id_does_not_move_where_positions_count_from_it():
    before, after = loaded("wordpiece", "bert"), loaded("byte-level bpe", "xlm-roberta")
    pad = after.denoiser.model.config.pad_token_id
    assert pad > 300
    trimmed, _ = trim(after, lambda: CORPUS[:1], Budget())
    assert trimmed.denoiser.model.config.pad_token_id == pad
    trimmed, _ = trim(before, lambda: CORPUS[:1], Budget())
    assert trimmed.denoiser.model.get_input_embeddings().padding_idx == trimmed.tokenizer.pad_token_id == 0


SCORES = {"never": -5.0, "ve": -3.0, "bir": -2.0, "x": 0.0, "rare": -4.0, "the": -1.0}
COUNTS = {"x": 10, "the": 1, "bir": 60, "ve": 27, "rare": 2}


@pytest.mark.parametrize(
    ("budget", "kept"),
    [
        (Budget(), {"x", "the", "bir", "ve", "rare"}),
        (Budget(min_count=2), {"x", "bir", "ve", "rare"}),
        (Budget(min_count=0), {"x", "the", "bir", "ve", "rare", "never"}),
        (Budget(size=2), {"x", "bir"}),
        (Budget(size=5, min_count=3), {"x", "bir", "ve"}),
        (Budget(coverage=0.97), {"x", "bir", "ve"}),
        (Budget(coverage=0.98), {"x", "bir", "ve", "rare"}),
        (Budget(size=2, coverage=0.98), {"x", "bir"}),
    ],
)
def test_the_most_used_pieces_stay_and_the_tightest_limit_decides(budget, kept):
    assert choose_pieces(SCORES, COUNTS, budget, always={"x"}) == kept


def test_pieces_used_alike_go_by_their_score():
    assert choose_pieces(SCORES, {}, Budget(size=3, min_count=0), always={"x"}) == {"x", "the", "bir"}


def test_a_piece_is_left_out_when_there_is_no_room_for_what_it_is_made_of():
    needs = {"bir": ("never", "rare")}
    kept = choose_pieces(SCORES, COUNTS, Budget(size=3), always={"x"}, needs=lambda piece: needs.get(piece, ()))
    assert kept == {"x", "ve", "rare"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_size_is_kept_to(kind):
    whole = trim(loaded(kind), lambda: TINY_TEXTS, Budget())[1].pieces_after
    trimmed, report = trim(loaded(kind), lambda: TINY_TEXTS, Budget(size=whole - 5))
    # Pieces that need others may leave a place or two empty.
    assert whole - 10 < report.pieces_after == len(trimmed.tokenizer) <= whole - 5
    assert report.coverage < 1.0
    assert report.tokens_a_text_after > report.tokens_a_text_before
    assert report.num_changed == 0


def test_too_few_pieces_are_refused_with_the_number_that_must_stay():
    with pytest.raises(InputError, match=r"^20 pieces are too few: \d+ must stay"):
        trim(loaded(), lambda: CORPUS, Budget(size=20))


def test_a_corpus_without_text_is_refused():
    with pytest.raises(DataError, match="every text of the corpus is empty"):
        trim(loaded(), lambda: ["", " \n"], Budget())


def test_a_tokenizer_of_another_model_is_refused():
    small = loaded("unigram")
    with pytest.raises(ModelError, match="is this its tokenizer"):
        trim(Loaded("t", small.denoiser, MAKERS["bpe"](), {}), lambda: TINY_TEXTS, Budget())


def test_a_tokenizer_of_words_is_refused():
    words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "<pad>": 2, "<unk>": 3, "<mask>": 4}, unk_token="<unk>"))
    with pytest.raises(ModelError, match="WordLevel cannot be trimmed; Unigram, WordPiece, BPE ones can"):
        keep_pieces(PreTrainedTokenizerFast(tokenizer_object=words), {})
