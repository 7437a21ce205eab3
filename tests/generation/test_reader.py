"""The reader: what it remembers is what a full pass would find, and rows know nothing of each other."""

import pytest
import torch
from torch.nn import functional as F

from diffutron.generation import Canvas, DenoiserReader, Look, ReaderSettings, SamplerSettings, denoise
from diffutron.generation.reader import FewRowsLinear
from diffutron.model.int8 import Int8Linear
from diffutron.testing import tiny_denoiser

MASK = 4


def reader(denoiser, **settings):
    return DenoiserReader(
        denoiser, pad_id=0, bias=torch.zeros(denoiser.decoder.out_features), settings=ReaderSettings(**settings)
    )


def look(row, length, block, *, seed=0):
    tokens = torch.randint(5, 40, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    for position in block:
        tokens[position] = MASK
    return Look(row, tokens, list(block), list(block))


def changed(given, position, token):
    tokens = list(given.tokens)
    tokens[position] = token
    return Look(given.row, tokens, [each for each in given.where if each != position], given.block)


@pytest.mark.parametrize("family", ["modernbert", "bert", "xlm-roberta"])
def test_full_pass_into_memory_is_the_plain_pass(family):
    denoiser = tiny_denoiser(family)
    for length in (12, 50):  # within a window of attention, and beyond it
        asked = [look(0, length, range(4, 9))]
        plain, kept = reader(denoiser).read(asked), reader(denoiser, refresh=8).read(asked)
        torch.testing.assert_close(kept, plain, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_part_pass_is_exact_where_nothing_outside_can_have_changed(family):
    """In one layer the keys and values outside the block hang on their own tokens alone, and those stay."""
    denoiser = tiny_denoiser(family, num_hidden_layers=1)
    asked = look(0, 50, range(20, 28))
    remembering, plain = reader(denoiser, refresh=100), reader(denoiser)
    remembering.read([asked])
    for position in (22, 27, 20):
        asked = changed(asked, position, position)
        torch.testing.assert_close(remembering.read([asked]), plain.read([asked]), atol=2e-5, rtol=1e-4)


def test_part_pass_sees_what_the_block_has_become_and_a_refresh_makes_it_exact():
    denoiser = tiny_denoiser("bert")
    first = look(0, 40, range(20, 28))
    second = changed(first, 22, 7)
    third = changed(second, 23, 9)
    remembering, plain = reader(denoiser, refresh=2), reader(denoiser)
    remembering.read([first])
    stale = remembering.read([second])
    assert not torch.allclose(stale, plain.read([first])[[0, 1, *range(3, 8)]], atol=1e-4)
    assert not torch.allclose(stale, plain.read([second]), atol=1e-7), "something outside was computed again"
    torch.testing.assert_close(remembering.read([third]), plain.read([third]), atol=2e-5, rtol=1e-4)


def test_unchanged_rows_cost_nothing():
    denoiser = tiny_denoiser("bert")
    calls = []
    denoiser.model.base_model.register_forward_hook(lambda *_: calls.append(1))
    for settings in ({}, {"refresh": 4}):
        one, asked = reader(denoiser, **settings), look(0, 20, range(5, 9))
        calls.clear()
        first = one.read([asked])
        torch.testing.assert_close(one.read([asked]), first)
        assert len(calls) == 1


@pytest.mark.parametrize("settings", [{}, {"refresh": 6, "vicinity": 2}, {"refresh": 6, "vicinity": 2, "int8": True}])
def test_rows_are_independent_of_their_neighbours(settings):
    denoiser = tiny_denoiser("modernbert")
    canvases = []
    for number in range(7):
        given = look(number, 14 + 3 * number, range(5, 12 + number), seed=number)
        canvases.append(Canvas(tuple(given.tokens), tuple(given.where), key=(number,)))
    sampler = SamplerSettings(block_length=4, temperature=0.9, pace="threshold:0.2", repetition_penalty=1.3)

    def texts(lot):
        last = {step.row: step for step in denoise(reader(denoiser, **settings), lot, sampler, mask_id=MASK)}
        return [last[row].tokens for row in range(len(lot))]

    alone = [texts([canvas])[0] for canvas in canvases]
    assert texts(canvases) == alone
    assert texts(canvases[:2]) + texts(canvases[2:]) == alone


def test_a_reader_used_twice_forgets_the_rows_before():
    denoiser = tiny_denoiser("bert")
    canvas = Canvas((0, 8, 9, *[MASK] * 8), tuple(range(3, 11)), key=(1,))
    other = Canvas((0, 11, 12, *[MASK] * 8), tuple(range(3, 11)), key=(1,))
    used, sampler = reader(denoiser, refresh=16), SamplerSettings(temperature=0)

    def text(one, given):
        return [step.tokens for step in denoise(one, [given], sampler, mask_id=MASK)][-1]

    text(used, other)
    assert text(used, canvas) == text(reader(denoiser, refresh=16), canvas)


@pytest.mark.parametrize("rows", [1, 3, 8, 9, 20, 32, 40])
def test_head_for_few_rows_is_a_linear_layer(rows):
    x, weight, bias = torch.randn(rows, 24), torch.randn(5003, 24), torch.randn(5003)
    torch.testing.assert_close(FewRowsLinear(weight, bias)(x), F.linear(x, weight, bias), atol=1e-4, rtol=1e-4)


def test_int8_linear_is_within_its_rounding_and_a_row_does_not_hang_on_others():
    x, weight, bias = torch.randn(6, 64), torch.randn(48, 64), torch.randn(48)
    x[3] *= 1000  # would ruin the others under one scale for all
    linear = Int8Linear(weight, bias)
    half_steps = 0.5 * x.abs().amax(1, keepdim=True) / 127, 0.5 * weight.abs().amax(1) / 127
    bound = half_steps[0] * weight.abs().sum(1) + half_steps[1] * x.abs().sum(1, keepdim=True)
    bound += 64 * half_steps[0] * half_steps[1]
    assert bool(((linear(x) - F.linear(x, weight, bias)).abs() <= bound * 1.001).all())
    assert torch.equal(linear(x)[1:2], linear(x[1:2]))
