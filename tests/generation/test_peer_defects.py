"""What goes wrong in other samplers of masked diffusion models, and must not here.

Steps that are rounded up by block, truncated noise in 32 bits, a nucleus without the token that crosses it, and rows
that hang on their neighbours have their tests in test_sampler.py; revisions in test_policies.py.
"""

import pytest
import torch

from diffutron.generation import Generator, Request, SamplerSettings
from diffutron.generation.reader import Look
from diffutron.testing import llada_loop, tiny_codec, tiny_denoiser

CODEC = tiny_codec()
PLAIN = {"repetition_penalty": 1.0, "no_repeat_ngram": 0, "block_length": 16}


def ends_everywhere():
    denoiser = tiny_denoiser()
    with torch.no_grad():
        denoiser.model.cls.predictions.bias[CODEC.end_id] = 30.0
    return Generator(denoiser, CODEC, learned_end=True)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_an_end_that_may_not_come_yet_is_taken_from_the_draw_and_not_only_from_the_order(temperature):
    """dllm suppresses it after the argmax, LLaDA through an alias that exists at temperature 0 only."""
    settings = SamplerSettings(temperature=temperature, **PLAIN)
    requests = [Request("ev", 12, seed=seed) for seed in range(20)]
    for completion in ends_everywhere().complete(requests, settings):
        assert completion.completion.strip()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_forbidden_piece_is_never_written_at_any_temperature(temperature):
    class Forbid:
        def adjust(self, logits, tokens, positions):
            logits[:, CODEC.end_id] = -torch.inf

        def admits(self, tokens, position, token):
            return True

    requests = [Request("ev", 12, seed=seed, guides=(Forbid(),)) for seed in range(20)]
    found = ends_everywhere().complete(requests, SamplerSettings(temperature=temperature, **PLAIN))
    assert {each.finish_reason for each in found} == {"length"}


def test_guidance_needs_no_mask_from_the_caller_and_rows_stay_independent():
    """LLaDA's loop fails with guidance unless it is given an attention mask."""
    generator = Generator(tiny_denoiser(), CODEC)
    settings = SamplerSettings(guidance=1.5, temperature=0.0, **PLAIN)
    requests = [Request(prompt, 10) for prompt in ("ev", "Ankara'da bir köy", "", "deniz")]
    alone = [generator.complete([request], settings)[0].text for request in requests]
    assert [each.text for each in generator.complete(requests, settings)] == alone


def test_a_text_is_as_long_as_asked_for_whatever_the_blocks():
    """Others refuse lengths that blocks do not divide, or round the steps up."""
    generator = Generator(tiny_denoiser(), CODEC)
    for length in (1, 5, 23, 40):
        [found] = generator.complete([Request("ev", length)], SamplerSettings(block_length=7, steps=5))
        assert found.num_steps == min(5, length)


def test_every_step_is_streamed():
    """dlmserve's stream is one chunk."""
    generator = Generator(tiny_denoiser(), CODEC)
    steps = list(generator.steps([Request("ev", 12)], SamplerSettings(steps=6)))
    assert [len(each.committed) for each in steps] == [2] * 6


def test_the_prompt_is_not_counted_as_written():
    generator = Generator(tiny_denoiser(), CODEC)
    request = Request("Ankara'da bir köy", 8)
    written = [position for step in generator.steps([request], SamplerSettings()) for position in step.committed]
    assert sorted(written) == list(generator.canvas(request).free)


def test_the_slow_loop_that_benchmarks_compare_with_draws_from_the_distribution():
    """A peer made wrong would flatter us: at temperature 1 the loop's only token has the model's frequencies."""
    denoiser = tiny_denoiser()
    generator = Generator(denoiser, CODEC)
    tokens = (CODEC.start_id, *CODEC.encode("ev"), CODEC.mask_id)
    place, draws = len(tokens) - 1, 1000
    counts = torch.zeros(len(generator.bias))
    for seed in range(draws):
        row = llada_loop(denoiser, tokens, (place,), steps=1, block_length=1, mask_id=CODEC.mask_id,
                         bias=generator.bias, temperature=1.0, seed=seed)  # fmt: skip
        counts[row[place]] += 1
    generator.reader.start()
    expected = draws * generator.reader.read([Look(0, list(tokens), [place], [place])])[0].softmax(-1)
    possible = expected > 0
    assert not counts[~possible].any()
    statistic = ((counts - expected) ** 2 / expected)[possible].sum()
    freedom = int(possible.sum()) - 1
    assert abs(float(statistic) - freedom) < 4 * (2 * freedom) ** 0.5
