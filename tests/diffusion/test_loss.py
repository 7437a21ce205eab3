"""The loss, proved by known answers."""

import math

import pytest
import torch

from diffutron.diffusion import (
    Cosine,
    CountBased,
    Diffusion,
    FixedRate,
    Linear,
    MaskedBatch,
    RateRange,
    example_noise,
    hide,
    mask_tokens,
    masked_nll,
)

VOCABULARY, MASK = 11, 10


def identity(width: int = VOCABULARY) -> torch.nn.Linear:
    """A decoder whose logits are its features."""
    decoder = torch.nn.Linear(width, width, bias=False, dtype=torch.float64)
    torch.nn.init.eye_(decoder.weight)
    return decoder.requires_grad_(False)


def context_free_logits(seed: int = 0) -> torch.Tensor:
    """A denoiser that ignores its input: one distribution for every position."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(VOCABULARY, generator=generator, dtype=torch.float64) * 2


class Polynomial(Linear):
    """alpha(t) = 1 - t^3: a schedule the package does not ship."""

    def alpha(self, t):
        return 1 - t**3

    def alpha_prime(self, t):
        return -3 * t**2


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), Polynomial()], ids=lambda each: type(each).__name__)
def test_bound_of_a_denoiser_that_ignores_context_is_the_exact_nll_for_any_schedule(schedule):
    logits = context_free_logits()
    log_probs = logits.log_softmax(-1)
    x0 = torch.tensor([[1, 4, 4, 7, 2, 9, 0, 3]])
    exact = -float(log_probs[x0[0]].sum())

    draws, eps = 20_000, 1e-4
    objective = Diffusion(schedule, eps=eps)
    # Stratified times: one in each of 20,000 equal parts of (eps, 1].
    u = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    plan = objective.plan(u, num_maskable=torch.full((draws,), x0.shape[1]), progress=0.0)
    _, noise = example_noise(3, [(number,) for number in range(draws)], x0.shape[1])
    rows = x0.expand(draws, -1)
    batch = mask_tokens(rows, plan.mask_rate[:, None], can_mask=torch.ones_like(rows, dtype=torch.bool), noise=noise,
                        mask_token_id=MASK)  # fmt: skip
    nll = masked_nll(logits.expand(int(batch.is_masked.sum()), -1), identity(), batch, weight=plan.weight[:, None])

    spread = _standard_error(logits, batch, plan.weight)
    assert float(nll.total) / draws == pytest.approx(exact, abs=4 * spread + 8 * math.log(VOCABULARY) * eps)
    assert spread < 0.02 * exact  # the test would notice an error of a few per cent


def _standard_error(logits, batch, weight):
    per_row = torch.zeros(len(batch.x0), dtype=torch.float64)
    token = -logits.log_softmax(-1)[batch.x0] * batch.is_masked
    per_row += (token.sum(1) * weight).double()
    return float(per_row.std() / math.sqrt(len(per_row)))


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), Polynomial()], ids=lambda each: type(each).__name__)
def test_weight_times_mask_rate_integrates_to_what_is_hidden(schedule):
    # E over t of w(t) (1 - alpha(t)) is how often each token's cross-entropy is counted.
    start, parts = 0.01, 200_000
    t = start + (1 - start) * (torch.arange(parts, dtype=torch.float64) + 0.5) / parts
    counted = float((schedule.weight(t) * (1 - schedule.alpha(t))).mean()) * (1 - start)
    assert counted == pytest.approx(float(schedule.alpha(torch.tensor(start, dtype=torch.float64))), abs=1e-7)


@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=lambda each: type(each).__name__)
def test_alpha_falls_from_one_to_zero_and_its_derivative_is_right(schedule):
    t = torch.linspace(0, 1, 101, dtype=torch.float64, requires_grad=True)
    alpha = schedule.alpha(t)
    assert float(alpha[0].detach()) == pytest.approx(1.0)
    assert float(alpha[-1].detach()) == pytest.approx(0.0, abs=1e-12)
    (slope,) = torch.autograd.grad(alpha.sum(), t)
    assert torch.allclose(slope, schedule.alpha_prime(t.detach()), atol=1e-12)


def test_loss_is_the_sum_over_hidden_tokens_only_with_their_rows_weight():
    x0 = torch.tensor([[1, 2, 3], [4, 5, 6]])
    is_masked = torch.tensor([[True, False, True], [False, True, False]])
    batch = MaskedBatch(x0, x0.masked_fill(is_masked, MASK), torch.ones_like(is_masked), is_masked)
    logits = torch.randn(3, VOCABULARY, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    log_probs = logits.log_softmax(-1)
    expected = -(2.0 * log_probs[0, 1] + 2.0 * log_probs[1, 3] + 5.0 * log_probs[2, 5])
    nll = masked_nll(logits, identity(), batch, weight=torch.tensor([[2.0], [5.0]]))
    assert float(nll.total) == pytest.approx(float(expected), abs=1e-12)
    assert nll.num_masked == 3


def test_batch_in_which_nothing_is_hidden_costs_nothing_and_keeps_the_graph():
    x0 = torch.tensor([[1, 2]])
    nothing = torch.zeros_like(x0, dtype=torch.bool)
    logits = torch.zeros(0, VOCABULARY, dtype=torch.float64, requires_grad=True)
    nll = masked_nll(logits, identity(), MaskedBatch(x0, x0, nothing, nothing), weight=torch.ones(1, 1))
    nll.total.backward()
    assert float(nll.total.detach()) == 0.0


def test_gradient_is_softmax_minus_one_hot():
    x0 = torch.tensor([[3]])
    everything = torch.ones_like(x0, dtype=torch.bool)
    logits = torch.randn(1, VOCABULARY, dtype=torch.float64, requires_grad=True)
    masked_nll(logits, identity(), MaskedBatch(x0, x0, everything, everything)).total.backward()
    expected = logits.detach().softmax(-1)
    expected[0, 3] -= 1
    assert torch.allclose(logits.grad, expected, atol=1e-12)


def test_mask_rates_of_the_objectives():
    u = torch.tensor([0.0, 0.5, 1.0 - 1e-9], dtype=torch.float64)
    at = {"num_maskable": torch.tensor([9, 9, 9]), "progress": 0.0}
    assert FixedRate(0.15).plan(u, **at).mask_rate.tolist() == pytest.approx([0.15] * 3)
    grown = RateRange(0.1, 0.9, start=(0.1, 0.3), ramp=0.5)
    assert grown.window(0.0) == (0.1, 0.3)
    assert grown.window(0.25) == pytest.approx((0.1, 0.6))
    assert grown.window(0.8) == (0.1, 0.9)
    assert grown.plan(u, **{**at, "progress": 1.0}).mask_rate.tolist() == pytest.approx([0.1, 0.5, 0.9])
    t = Diffusion(Linear(), eps=1e-3).plan(u, **at).mask_rate
    assert float(t.max()) == pytest.approx(1.0)
    assert float(t.min()) >= 1e-3


@pytest.mark.parametrize("rows", [1, 3, 1000], ids=lambda rows: f"{rows} rows a chunk")
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_loss_and_gradients_in_chunks_are_those_of_plain_cross_entropy(rows, bias):
    generator = torch.Generator().manual_seed(5)
    x0 = torch.randint(0, VOCABULARY, (4, 6), generator=generator)
    is_masked = torch.rand(4, 6, generator=generator) < 0.5
    batch = MaskedBatch(x0, x0.masked_fill(is_masked, MASK), torch.ones_like(is_masked), is_masked)
    weight = torch.rand(4, 6, generator=generator, dtype=torch.float64)
    start = torch.randn(int(is_masked.sum()), 7, generator=generator, dtype=torch.float64)

    def run(loss):
        torch.manual_seed(0)
        decoder = torch.nn.Linear(7, VOCABULARY, bias=bias, dtype=torch.float64)
        features = start.clone().requires_grad_()
        total = loss(features, decoder)
        (total * 0.37).backward()
        return total.detach(), [features.grad, *(param.grad for param in decoder.parameters())]

    def plain(features, decoder):
        nats = torch.nn.functional.cross_entropy(decoder(features), x0[is_masked], reduction="none")
        return (nats * weight[is_masked]).sum()

    def chunked(features, decoder):
        size = rows * VOCABULARY * 8
        return masked_nll(features, decoder, batch, weight=weight, chunk_bytes=size).total

    (expected, expected_gradients), (found, found_gradients) = run(plain), run(chunked)
    assert torch.allclose(found, expected, atol=1e-12)
    for one, other in zip(found_gradients, expected_gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_full_logits_never_exist():
    # 600 hidden tokens of 5,000 pieces are 12 MB of logits; chunks of 40 kB may exist.
    decoder = torch.nn.Linear(1, 5000)
    x0 = torch.zeros(1, 600, dtype=torch.long)
    everything = torch.ones_like(x0, dtype=torch.bool)
    features = torch.randn(600, 1, requires_grad=True)
    biggest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal biggest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.shape[-1:] == (5000,):
                biggest = max(biggest, out.numel())
            return out

    with Watch():
        masked_nll(features, decoder, MaskedBatch(x0, x0, everything, everything), chunk_bytes=40_000).total.backward()
    assert 0 < biggest <= 2 * 5000


def test_token_nll_and_top1_are_those_of_the_logits():
    generator = torch.Generator().manual_seed(2)
    x0 = torch.randint(0, VOCABULARY, (1, 50), generator=generator)
    everything = torch.ones_like(x0, dtype=torch.bool)
    logits = torch.randn(50, VOCABULARY, dtype=torch.float64, generator=generator)
    nll = masked_nll(logits, identity(), MaskedBatch(x0, x0, everything, everything))
    assert torch.allclose(nll.token_nll, -logits.log_softmax(-1)[torch.arange(50), x0[0]], atol=1e-12)
    assert torch.equal(nll.is_top1, logits.argmax(-1) == x0[0])


def test_logits_far_from_zero_do_not_overflow():
    x0 = torch.tensor([[3, 4]])
    everything = torch.ones_like(x0, dtype=torch.bool)
    logits = torch.full((2, VOCABULARY), -2000.0, dtype=torch.float64)
    logits[0, 3] = 2000.0
    nll = masked_nll(logits, identity(), MaskedBatch(x0, x0, everything, everything))
    assert nll.token_nll.tolist() == pytest.approx([0.0, math.log(VOCABULARY)])


def test_count_based_bound_of_a_denoiser_that_ignores_context_is_the_exact_nll_and_varies_less():
    logits = context_free_logits()
    x0 = torch.tensor([[1, 4, 4, 7, 2, 9, 0, 3]])
    exact = -float(logits.log_softmax(-1)[x0[0]].sum())
    draws = 20_000
    u = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    plan = CountBased().plan(u, num_maskable=torch.full((draws,), 8), progress=0.0)
    assert plan.count.unique().tolist() == list(range(1, 9))
    assert plan.count.bincount().tolist()[1:] == [draws // 8] * 8
    _, noise = example_noise(3, [(number,) for number in range(draws)], 8)
    is_masked = noise.argsort(dim=1).argsort(dim=1) < plan.count[:, None]
    rows = x0.expand(draws, -1)
    batch = hide(rows, is_masked, can_mask=torch.ones_like(is_masked), mask_token_id=MASK)
    nll = masked_nll(logits.expand(int(is_masked.sum()), -1), identity(), batch, weight=plan.weight[:, None])
    spread = _standard_error(logits, batch, plan.weight)
    assert float(nll.total) / draws == pytest.approx(exact, abs=4 * spread)

    timed = Diffusion(eps=1e-4).plan(u, num_maskable=torch.full((draws,), 8), progress=0.0)
    by_time = mask_tokens(rows, timed.mask_rate[:, None], can_mask=torch.ones_like(is_masked), noise=noise,
                          mask_token_id=MASK)  # fmt: skip
    assert spread < 0.5 * _standard_error(logits, by_time, timed.weight)


@pytest.mark.parametrize("u", [0.0, 1.0 - 2**-53])
def test_count_is_never_none_and_never_more_than_there_are(u):
    plan = CountBased().plan(torch.full((3,), u, dtype=torch.float64), num_maskable=torch.tensor([1, 5, 0]),
                             progress=0.0)  # fmt: skip
    assert plan.count.tolist() == ([1, 1, 0] if u == 0.0 else [1, 5, 0])
    assert torch.isfinite(plan.weight).all()
