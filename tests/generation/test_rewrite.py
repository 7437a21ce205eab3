"""A rewritten draft is never less likely, and only what the diff shows has changed."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffutron.errors import InputError
from diffutron.generation import Generator, SamplerSettings, rewrite
from diffutron.generation.word_rows import WordRows, ids_of, places, row_with_gaps
from diffutron.testing import TINY_TEXTS, tiny_codec, tiny_denoiser

CODEC = tiny_codec()
DRAFTS = [*TINY_TEXTS[:3], "Ali  eve\n\n  gitti!", "okul"]


@pytest.fixture(scope="module", params=["bert", "modernbert"])
def generator(request):
    return Generator(tiny_denoiser(request.param), CODEC)


@pytest.mark.parametrize("draft", DRAFTS)
def test_score_rises_with_every_change_and_nothing_else_changes(generator, draft):
    result = rewrite(generator, draft, SamplerSettings(temperature=1.0), share=0.5, seed=3)
    gains = [each.gain for each in result.changes]
    assert all(gain > 0 for gain in gains)
    words = len(draft.split())
    assert result.score_after - result.score_before == pytest.approx(sum(gains) / words, abs=1e-6)
    # The diff, read with one eye and with the other.
    assert re.sub(r"\[-(.*?)-\]\{\+.*?\+\}", r"\1", result.diff) == draft
    assert re.sub(r"\[-.*?-\]\{\+(.*?)\+\}", r"\1", result.diff) == result.text
    assert len(result.text.split()) == words
    assert re.findall(r"\s+", result.text) == re.findall(r"\s+", draft)


def test_some_draft_is_changed(generator):
    assert any(rewrite(generator, draft, SamplerSettings(temperature=0), share=1.0).changes for draft in DRAFTS)


def test_word_scores_are_the_models_when_each_word_is_hidden_alone():
    generator = Generator(tiny_denoiser(), CODEC)
    text = "Ankara büyük bir okul"
    words = [ids_of(each.text, CODEC, first=not n) for n, each in enumerate(places(text, CODEC))]
    assert [piece for word in words for piece in word] == CODEC.encode(text)
    found = WordRows(generator.reader, CODEC, apart=10).log_probs(
        [()] * len(words), words, [[word, (9,) * (len(word) + 1)] for word in words]
    )
    for index, word in enumerate(words):
        before = [CODEC.start_id, *(piece for each in words[:index] for piece in each)]
        after = [*(piece for each in words[index + 1 :] for piece in each), CODEC.end_id]
        for choice, ids in enumerate((word, (9,) * (len(word) + 1))):
            row = torch.tensor([[*before, *[CODEC.mask_id] * len(ids), *after]])
            everywhere = torch.ones_like(row, dtype=torch.bool)
            with torch.no_grad():
                logits = generator.denoiser(row, attention_mask=everywhere, where=everywhere)
            log_probs = (logits + generator.bias).log_softmax(-1)[len(before) : len(before) + len(ids)]
            expected = float(log_probs[range(len(ids)), list(ids)].sum())
            assert found[index][choice] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("draft", "share", "message"), [
    (" \n", 0.1, "draft is empty"), ("ev", 0.0, "above 0"), ("ev", float("nan"), "above 0"),
    ("ev " * 80, 0.1, "reads at most 64"),
])  # fmt: skip
def test_drafts_that_cannot_be_rewritten_are_refused(generator, draft, share, message):
    with pytest.raises(InputError, match=message):
        rewrite(generator, draft, SamplerSettings(), share=share)


def test_words_are_drawn_again_as_well_formed_as_asked_for(monkeypatch):
    generator = Generator(tiny_denoiser(), CODEC)
    asked = []

    class Guide:
        def adjust(self, logits, tokens, positions):
            asked.append(list(positions))

        def admits(self, tokens, position, token):
            return True

    monkeypatch.setattr(Generator, "guided", lambda self, canvas, settings: replace(
        canvas, guides=(*canvas.guides, *([Guide()] if settings.well_formed else []))
    ))  # fmt: skip
    rewrite(generator, DRAFTS[0], SamplerSettings())
    assert not asked
    rewrite(generator, DRAFTS[0], SamplerSettings(well_formed=4.0))
    assert asked


def test_a_dictionary_that_is_not_there_is_told_of():
    settings = SamplerSettings(well_formed=4.0, dictionary=Path("nowhere.dic"))
    with pytest.raises(InputError, match=r"nowhere\.dic"):
        rewrite(Generator(tiny_denoiser(), CODEC), DRAFTS[0], settings)


def test_words_of_many_lines_make_the_row_that_the_text_is():
    text = "Ankara büyük\n\nbir okul \n  deniz"
    found = places(text, CODEC)
    words = [ids_of(each.text, CODEC, first=each.begins_line) for each in found]
    row, _ = row_with_gaps([each.gap for each in found], words, {}, CODEC)
    assert row == [CODEC.start_id, *CODEC.encode(text), CODEC.end_id]
    assert [each.begins_line for each in found] == [True, False, True, False, True]


def test_words_that_the_vocabulary_cannot_write_stay_and_count_for_nothing(generator):
    plain, odd = "Bugün hava çok güzel", "Bugün hava \u200b çok güzel"
    settings = SamplerSettings(temperature=0)
    expected, found = (rewrite(generator, each, settings, share=1.0) for each in (plain, odd))
    assert found.text.replace("\u200b ", "") == expected.text
    assert found.score_before == pytest.approx(expected.score_before)
    unknown = rewrite(generator, f"{plain} 🫠", settings, share=1.0)
    assert unknown.text.endswith(" 🫠")
    assert unknown.score_before > -100


@pytest.mark.parametrize("draft", ["\0", "\u200b", "🫠"])
def test_a_draft_without_a_word_is_refused(generator, draft):
    with pytest.raises(InputError, match="no word that the vocabulary can write"):
        rewrite(generator, draft, SamplerSettings())
