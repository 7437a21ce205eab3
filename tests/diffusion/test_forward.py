import pytest
import torch

from diffutron.diffusion import example_noise, mask_tokens


def hide(rate, can_mask, noise, x0):
    return mask_tokens(x0, torch.full((len(x0), 1), rate), can_mask=can_mask, noise=noise, mask_token_id=99)


def test_conditioning_is_never_masked_and_nothing_else_changes():
    x0 = torch.arange(40).reshape(4, 10)
    can_mask = x0 % 3 == 0
    _, noise = example_noise(0, [(row,) for row in range(4)], 10)
    batch = hide(1.0, can_mask, noise, x0)
    assert torch.equal(batch.is_masked, can_mask)
    assert torch.equal(batch.xt[~can_mask], x0[~can_mask])
    assert (batch.xt[can_mask] == 99).all()


def test_rate_zero_hides_nothing():
    x0 = torch.arange(1000).reshape(10, 100)
    _, noise = example_noise(0, [(row,) for row in range(10)], 100)
    assert not hide(0.0, torch.ones_like(x0, dtype=torch.bool), noise, x0).is_masked.any()


def test_share_hidden_is_the_rate():
    x0 = torch.zeros(200, 500, dtype=torch.long)
    _, noise = example_noise(7, [(row,) for row in range(200)], 500)
    share = float(hide(0.15, torch.ones_like(x0, dtype=torch.bool), noise, x0).is_masked.float().mean())
    assert share == pytest.approx(0.15, abs=4 * (0.15 * 0.85 / 100_000) ** 0.5)


def test_noise_belongs_to_the_example_not_to_its_place_or_its_batch():
    u, alone = example_noise(1, [(0, 42)], 16)
    v, among = example_noise(1, [(0, 7), (0, 42), (3, 42)], 64)
    assert torch.equal(alone[0], among[1, :16])
    assert u[0] == v[1]
    assert not torch.equal(among[1], among[2])  # another pass over the data hides other tokens


def test_seeds_differ():
    assert not torch.equal(example_noise(0, [(5,)], 8)[1], example_noise(1, [(5,)], 8)[1])
