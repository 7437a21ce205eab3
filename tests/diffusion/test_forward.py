import pytest
import torch

from diffutron.diffusion import complement, example_noise, mask_tokens, replace_some


def hide_at(rate, can_mask, noise, x0):
    return mask_tokens(x0, torch.full((len(x0), 1), rate), can_mask=can_mask, noise=noise, mask_token_id=99)


def test_conditioning_is_never_masked_and_nothing_else_changes():
    x0 = torch.arange(40).reshape(4, 10)
    can_mask = x0 % 3 == 0
    _, noise = example_noise(0, [(row,) for row in range(4)], 10)
    batch = hide_at(1.0, can_mask, noise, x0)
    assert torch.equal(batch.is_masked, can_mask)
    assert torch.equal(batch.xt[~can_mask], x0[~can_mask])
    assert (batch.xt[can_mask] == 99).all()


def test_rate_zero_hides_nothing():
    x0 = torch.arange(1000).reshape(10, 100)
    _, noise = example_noise(0, [(row,) for row in range(10)], 100)
    assert not hide_at(0.0, torch.ones_like(x0, dtype=torch.bool), noise, x0).is_masked.any()


def test_share_hidden_is_the_rate():
    x0 = torch.zeros(200, 500, dtype=torch.long)
    _, noise = example_noise(7, [(row,) for row in range(200)], 500)
    share = float(hide_at(0.15, torch.ones_like(x0, dtype=torch.bool), noise, x0).is_masked.float().mean())
    assert share == pytest.approx(0.15, abs=4 * (0.15 * 0.85 / 100_000) ** 0.5)


def test_noise_belongs_to_the_example_not_to_its_place_or_its_batch():
    u, alone = example_noise(1, [(0, 42)], 16)
    v, among = example_noise(1, [(0, 7), (0, 42), (3, 42)], 64)
    assert torch.equal(alone[0], among[1, :16])
    assert u[0] == v[1]
    assert not torch.equal(among[1], among[2])  # another pass over the data hides other tokens


def test_seeds_differ():
    assert not torch.equal(example_noise(0, [(5,)], 8)[1], example_noise(1, [(5,)], 8)[1])


def test_complement_hides_exactly_what_was_shown():
    x0 = torch.arange(400).reshape(4, 100)
    can_mask = x0 % 5 != 0
    _, noise = example_noise(0, [(row,) for row in range(4)], 100)
    noise[0, :50] = 0.25  # ties with the rate: hidden in one of the two, never in none
    first = hide_at(0.25, can_mask, noise, x0)
    second = complement(first, 99)
    assert torch.equal(first.is_masked ^ second.is_masked, can_mask)
    assert (second.xt[second.is_masked] == 99).all()
    assert torch.equal(second.xt[~second.is_masked], x0[~second.is_masked])


def test_eighty_ten_ten():
    x0 = torch.full((1, 200_000), 7)
    everything = torch.ones_like(x0, dtype=torch.bool)
    _, hide_noise = example_noise(0, [(0,)], x0.shape[1])
    _, noise = example_noise(0, [(0, 1)], x0.shape[1])
    masked = hide_at(0.5, everything, hide_noise, x0)
    allowed = torch.arange(10, 20)
    batch = replace_some(masked, noise, allowed)
    assert torch.equal(batch.is_masked, masked.is_masked)
    assert torch.equal(batch.xt[~batch.is_masked], x0[~batch.is_masked])
    shown = batch.xt[batch.is_masked]
    shares = [float((shown == 99).float().mean()), float(torch.isin(shown, allowed).float().mean()),
              float((shown == 7).float().mean())]  # fmt: skip
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.005)
    counts = shown[torch.isin(shown, allowed)].bincount(minlength=20)[10:].double()
    assert float(((counts - counts.mean()) ** 2 / counts.mean()).sum()) < 28  # chi-square, 9 degrees, p = 0.001


def test_packed_noise_is_that_of_padded_rows():
    keys = [(0, 3), (0, 8), (1, 3)]
    u, padded = example_noise(5, keys, 12)
    v, packed = example_noise(5, keys, (12, 4, 9))
    assert torch.equal(u, v)
    assert torch.equal(packed[0], torch.cat([padded[0], padded[1, :4], padded[2, :9]]))
