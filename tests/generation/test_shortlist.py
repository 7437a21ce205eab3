"""A shortlist is enough for prompts that are made of it, and the rest never notices that there is one."""

import pytest
import torch

from diffutron.errors import DataError
from diffutron.generation import Generator, PieceBias, Request, SamplerSettings
from diffutron.generation.generate import shortlist_of
from diffutron.testing import TINY_TEXTS, tiny_codec, tiny_denoiser

CODEC = tiny_codec()
SETTINGS = SamplerSettings(temperature=0.9)


def generators(shortlist):
    denoiser = tiny_denoiser()
    return Generator(denoiser, CODEC, learned_end=True), Generator(
        denoiser, CODEC, learned_end=True, shortlist=shortlist
    )


def requests(*prompts, **settings):
    return [Request(prompt, 16, seed=seed, **settings) for prompt in prompts for seed in range(4)]


def texts(generator, asked):
    return [each.text for each in generator.complete(asked, SETTINGS)]


def test_of_every_piece_it_changes_nothing():
    whole, short = generators(torch.tensor(sorted({*CODEC.text_ids.tolist(), CODEC.end_id})))
    asked = requests("ev", "", "Ankara'da")
    assert texts(short, asked) == texts(whole, asked)


def test_only_its_pieces_are_written_and_other_prompts_get_the_whole_vocabulary():
    listed = shortlist_of(["ev ve deniz", "bir köy"], CODEC)
    whole, short = generators(listed)
    inside, outside = requests("ev ve", ""), requests("İstanbul", "Ankara'da")
    mixed = [each for pair in zip(inside, outside, strict=True) for each in pair]
    found = texts(short, mixed)
    assert found[1::2] == texts(whole, outside)
    assert found[::2] == texts(short, inside)
    for step in short.steps(inside, SETTINGS):
        if step.done:
            assert set(step.tokens[1:]) <= set(listed.tolist())


def test_a_bias_or_a_constraint_gets_the_whole_vocabulary():
    whole, short = generators(shortlist_of(["ev ve deniz"], CODEC))
    asked = requests("ev", guides=(PieceBias({"a": 1.0}, CODEC),))
    assert texts(short, asked) == texts(whole, asked)
    forms = SamplerSettings(well_formed=4.0)
    assert [each.text for each in short.complete(requests("ev"), forms)] == [
        each.text for each in whole.complete(requests("ev"), forms)
    ]


def test_it_is_made_of_what_texts_use_and_of_the_end():
    listed = shortlist_of(TINY_TEXTS, CODEC).tolist()
    assert listed == sorted(set(listed))
    assert set(CODEC.encode(TINY_TEXTS[0])) - CODEC.special_ids <= set(listed)
    assert CODEC.end_id in listed
    assert not (CODEC.special_ids - {CODEC.end_id}) & set(listed)
    with pytest.raises(DataError, match="there is no text"):
        shortlist_of([], CODEC)
