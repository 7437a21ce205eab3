import itertools
import math
import sys

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from diffutron.errors import InputError
from diffutron.generation import Generator, Request, SamplerSettings, fill
from diffutron.generation.fill import _allowed
from diffutron.generation.template import parse_template
from diffutron.testing import tiny_codec, tiny_denoiser
from diffutron.tokens.codec import TextCodec

CODEC = tiny_codec()
FAMILIES = ("bert", "modernbert", "xlm-roberta")


def row_of(text):
    template = parse_template(text)
    ids, gaps = template.row(CODEC, [1] * len(template.lengths))
    return ids, [gap[0] for gap in gaps]


@pytest.mark.parametrize("family", FAMILIES)
def test_one_mask_ranks_the_vocabulary_as_the_model_does(family):
    denoiser = tiny_denoiser(family)
    text = "Ankara [MASK] evde."
    ids, [mask] = row_of(text)
    xt = torch.tensor([ids])
    with torch.no_grad():
        logits = denoiser.model(input_ids=xt, attention_mask=torch.ones_like(xt)).logits[0, mask]
    probs = logits.double().softmax(-1)
    usable = [
        index for index in range(len(CODEC))
        if CODEC.starts_word[index] and index not in CODEC.special_ids and index not in CODEC.blank_ids
    ]  # fmt: skip
    best = sorted(usable, key=lambda index: -float(probs[index]))[:4]
    ways = fill(denoiser, CODEC, text, top_k=4)
    assert [way.tokens[0] for way in ways] == [CODEC.piece_text(index) for index in best]
    assert [way.score for way in ways] == pytest.approx([float(probs[index]) for index in best], rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_masks_change(family):
    texts = ("Dün [MASK] gittik ve [MASK] yedik.", "[MASK]dir", "Türkiye'nin [MASK][MASK] var!\n  İki  satır")
    for text in texts:
        for way in fill(tiny_denoiser(family), CODEC, text, top_k=3):
            rebuilt = text
            for token in way.tokens:
                rebuilt = rebuilt.replace("[MASK]", token, 1)
            assert way.text == rebuilt
            assert all(token and "<" not in token for token in way.tokens)


def test_joint_fill_finds_what_exhaustive_search_finds():
    denoiser = tiny_denoiser()
    text = "Ankara [MASK] [MASK] evde."
    ids, masks = row_of(text)
    usable = [
        index for index in range(len(CODEC))
        if CODEC.starts_word[index] and index not in CODEC.special_ids and index not in CODEC.blank_ids
    ]  # fmt: skip
    best = 0.0
    for order in itertools.permutations(masks):
        best = max(best, *_chains(denoiser, ids, order, usable))
    ways = fill(denoiser, CODEC, text, top_k=1, beams=len(usable))
    # The search fixes its order by confidence; it must come near the best of both orders and never beat it.
    assert best * 0.5 < ways[0].score <= best * (1 + 1e-6)


def _chains(denoiser, ids, order, usable):
    first, second = order
    row = torch.tensor([ids])
    everywhere = torch.ones_like(row, dtype=torch.bool)
    with torch.no_grad():
        p_first = denoiser(row, attention_mask=everywhere, where=everywhere)[first].double().softmax(-1)
        rows = row.repeat(len(usable), 1)
        rows[:, first] = torch.tensor(usable)
        where = torch.zeros_like(rows, dtype=torch.bool)
        where[:, second] = True
        p_second = denoiser(rows, attention_mask=torch.ones_like(where), where=where).double().softmax(-1)
    return (p_first[usable, None] * p_second[:, usable]).flatten().tolist()


def test_joint_score_is_the_product_of_conditionals():
    denoiser = tiny_denoiser()
    [way] = fill(denoiser, CODEC, "Ankara [MASK] ve [MASK] evde.", top_k=1)
    ids, masks = row_of("Ankara [MASK] ve [MASK] evde.")
    pieces = {CODEC.piece_text(i): i for i in range(len(CODEC)) if CODEC.starts_word[i]}
    chosen = [pieces[token] for token in way.tokens]
    products = []
    for first, second in ((0, 1), (1, 0)):
        row = torch.tensor([ids])
        total = 0.0
        for which in (first, second):
            everywhere = torch.ones_like(row, dtype=torch.bool)
            with torch.no_grad():
                logits = denoiser(row, attention_mask=everywhere, where=everywhere)[masks[which]]
            total += float(logits.double().log_softmax(-1)[chosen[which]])
            row[0, masks[which]] = chosen[which]
        products.append(math.exp(total))
    assert any(way.score == pytest.approx(product, rel=1e-4) for product in products)


def test_pieces_fit_the_space_before_the_mask():
    template = parse_template("ev[MASK] [MASK] [MASK][MASK]")
    assert template.begins_word == (False, True, True, False)


@pytest.mark.parametrize(("text", "message"), [
    ("Ankara", "no mask: 'Ankara'"), ("[MASK] " * 70, "at most 64 together"),
    ("ev " * 70 + "[MASK]", "reads at most 64"),
])  # fmt: skip
def test_text_that_cannot_be_filled_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        fill(tiny_denoiser(), CODEC, text)


def test_targets_of_several_pieces_are_scored_by_the_chain_of_their_pieces():
    denoiser = tiny_denoiser()
    ways = fill(denoiser, CODEC, "Ankara [MASK] evde.", targets=["güzel", "okul", "zürafa"])
    assert {way.text for way in ways} == {f"Ankara {word} evde." for word in ("güzel", "okul", "zürafa")}
    long = next(way for way in ways if "zürafa" in way.text)
    template = parse_template("Ankara [MASK] evde.")
    pieces = CODEC.encode("zürafa")
    assert len(pieces) > 1
    ids, [gap] = template.row(CODEC, [len(pieces)])
    row, left, total = torch.tensor([ids]), dict(zip(gap, pieces, strict=True)), 0.0
    everywhere = torch.ones_like(row, dtype=torch.bool)
    while left:
        with torch.no_grad():
            log_probs = denoiser(row, attention_mask=everywhere, where=everywhere).double().log_softmax(-1)
        surest = max(left, key=lambda position: float(log_probs[position, left[position]]))
        total += float(log_probs[surest, left[surest]])
        row[0, surest] = left.pop(surest)
    assert long.score == pytest.approx(math.exp(total), rel=1e-4)


def test_whole_words_are_words_and_the_best_piece_is_among_them():
    denoiser = tiny_denoiser()
    ways = fill(denoiser, CODEC, "Ankara [MASK] evde.", top_k=300, max_pieces=3)
    for way in ways:
        word = way.text.removeprefix("Ankara ").removesuffix(" evde.")
        assert word == "".join(way.tokens)
        assert word
        assert " " not in word
        assert all(token.isalpha() for token in way.tokens[1:])
    assert {1, 2} <= {len(way.tokens) for way in ways} <= {1, 2, 3}
    single = [way for way in ways if len(way.tokens) == 1]
    assert single[0] == fill(denoiser, CODEC, "Ankara [MASK] evde.", top_k=1)[0]


@pytest.mark.parametrize("wanted", [{"targets": ["ev"]}, {"max_pieces": 2}])
def test_words_are_for_one_mask(wanted):
    with pytest.raises(InputError, match="not 2"):
        fill(tiny_denoiser(), CODEC, "[MASK] ve [MASK]", **wanted)


@pytest.mark.parametrize("max_pieces", [0, 17])
def test_words_of_no_pieces_or_endless_ones_are_refused(max_pieces):
    with pytest.raises(InputError, match=f"a word has 1 to 16 pieces, not {max_pieces}"):
        fill(tiny_denoiser(), CODEC, "Ankara [MASK] evde.", max_pieces=max_pieces)


def test_joint_filling_is_likelier_than_independent_filling():
    """Each mask's best piece by itself, against the two together, under the same chain of conditionals."""
    denoiser, gains = tiny_denoiser(), []
    for text in ("Ankara [MASK] [MASK] evde.", "[MASK] [MASK] okul", "ev [MASK] [MASK] kitap", "Dün [MASK] ve [MASK]."):
        ids, masks = row_of(text)
        usable = [
            index for index in range(len(CODEC))
            if CODEC.starts_word[index] and index not in CODEC.special_ids and index not in CODEC.blank_ids
        ]  # fmt: skip
        hidden = log_probs_of(denoiser, ids)
        singly = {mask: max(usable, key=lambda index: float(hidden[mask, index])) for mask in masks}
        first, second = sorted(masks, key=lambda mask: -float(hidden[mask, usable].max()))
        chain = float(hidden[first, singly[first]])
        filled = [singly[first] if position == first else token for position, token in enumerate(ids)]
        chain += float(log_probs_of(denoiser, filled)[second, singly[second]])
        gains.append(math.log(fill(denoiser, CODEC, text, top_k=1)[0].score) - chain)
    assert min(gains) > -1e-4
    assert max(gains) > 0.01


def log_probs_of(denoiser, ids):
    everywhere = torch.ones(1, len(ids), dtype=torch.bool)
    with torch.no_grad():
        return denoiser(torch.tensor([ids]), attention_mask=everywhere, where=everywhere).double().log_softmax(-1)


def test_calls_bound_their_logits_and_change_nothing_by_it(monkeypatch):
    module, denoiser = sys.modules[fill.__module__], tiny_denoiser(dtype=torch.float64)
    text = "ev" + " [MASK]" * 6
    whole = fill(denoiser, CODEC, text, top_k=3)
    rows, expand = [], module._expand

    def watched(denoiser, front, *rest):
        rows.append(sum(len(beam.open) for beam in front))
        return expand(denoiser, front, *rest)

    monkeypatch.setattr(module, "_expand", watched)
    monkeypatch.setattr(module, "_CALL_LOGITS", 10)
    assert [way.text for way in fill(denoiser, CODEC, text, top_k=3)] == [way.text for way in whole]
    assert 6 <= max(rows) <= 10


@pytest.mark.parametrize("text", ["Liste:\n[MASK:4]\n[MASK:4]", "ev[MASK].\nYarın [MASK:2]\n\nson", "[MASK]\nev\n"])
def test_newlines_around_gaps_are_text_and_lines_begin_with_a_word(text):
    codec = tiny_codec()
    template = parse_template(text)
    ids, gaps = template.row(codec, template.lengths)
    [newline] = codec.encode_inside("\n")
    assert list(ids).count(newline) == text.strip().count("\n")
    inside = {position for gap in gaps for position in gap}
    for place in range(1, len(ids) - 2):
        if ids[place] == newline and place + 1 not in inside:
            assert ids[place + 1] == newline or codec.starts_word[ids[place + 1]]


def test_a_newline_that_ends_a_prompt_is_seen():
    codec = tiny_codec()
    generator = Generator(tiny_denoiser(), codec)
    request = Request("Başlık: Ankara\n", 4)
    canvas = generator.canvas(request)
    [newline] = codec.encode_inside("\n")
    assert canvas.tokens[canvas.free[0] - 1] == newline
    [completion] = generator.complete([request], SamplerSettings())
    assert completion.text == request.prompt + completion.completion


def test_in_wordpiece_a_gap_after_punctuation_begins_a_word():
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces = [*names, "İstanbul", "dan", "##dan", "(", "'", "."]
    tokenizer = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    codec = TextCodec(PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        mask_token="<mask>",
    ))  # fmt: skip
    begun, continued = pieces.index("dan"), pieces.index("##dan")
    for text, begins in (
        ("İstanbul'[MASK] gittim", True), ("([MASK])", True), ("İstanbul[MASK]", False), ("İstanbul [MASK]", True),
        ("[MASK]", True), ("3[MASK]", False), ("İstanbul.\n[MASK]", True),
    ):  # fmt: skip
        [allowed] = _allowed(parse_template(text), codec, len(pieces))
        assert (bool(allowed[begun]), bool(allowed[continued])) == (begins, not begins), text
    *_, second = _allowed(parse_template("[MASK][MASK]"), codec, len(pieces))
    assert second[continued]
    assert not second[begun]
    for text in ("İstanbul'[MASK]", "İstanbul[MASK]"):  # others mark a word where a space stands
        [marked] = _allowed(parse_template(text), CODEC, len(CODEC))
        assert not any(CODEC.starts_word[index] for index in marked.nonzero().flatten())
