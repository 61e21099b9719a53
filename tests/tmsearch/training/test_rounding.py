import pytest
import torch

from tmsearch.training.rounding import StochasticRoundingAdamW, round_stochastically


def test_rounding_goes_to_a_neighbour_and_is_right_on_average():
    torch.manual_seed(0)
    low, high = torch.tensor(1.0), torch.tensor(1.0 + 2**-7)  # neighbours in bfloat16
    exact = torch.full((20_000,), float(low + 0.3 * (high - low)))
    rounded = torch.empty(20_000, dtype=torch.bfloat16)
    round_stochastically(exact, rounded)
    assert set(rounded.tolist()) == {float(low), float(high)}
    assert float((rounded == high).float().mean()) == pytest.approx(0.3, abs=0.015)


@pytest.mark.parametrize("value", [0.0, 1.5, -2.0, 2**-126, float("inf"), float("-inf")])
def test_what_bfloat16_can_hold_stays(value):
    rounded = torch.empty(100, dtype=torch.bfloat16)
    round_stochastically(torch.full((100,), value), rounded)
    assert set(rounded.tolist()) == {value}


def test_a_loss_that_is_no_number_stays_none():
    rounded = torch.empty(1000, dtype=torch.bfloat16)
    round_stochastically(torch.full((1000,), float("nan")), rounded)
    assert not rounded.isfinite().any()


def problem(dtype, optimiser):
    """A linear regression: how far from its solution 600 updates of 1e-4 end."""
    torch.manual_seed(0)
    inputs, truth = torch.randn(64, 32), torch.randn(32) * 0.02 + 1
    weight = torch.nn.Parameter(torch.ones(32, dtype=dtype))
    one = optimiser([{"params": [weight], "weight_decay": 0.0}])
    for _ in range(600):
        ((inputs @ weight.float() - inputs @ truth) ** 2).mean().backward()
        one.step()
        one.zero_grad()
    return float((weight.detach().float() - truth).norm())


def test_small_updates_are_not_lost_as_they_are_with_rounding_to_the_nearest():
    exact = problem(torch.float32, lambda groups: torch.optim.AdamW(groups, lr=1e-4))
    nearest = problem(torch.bfloat16, lambda groups: torch.optim.AdamW(groups, lr=1e-4))
    rounding = problem(torch.bfloat16, lambda groups: StochasticRoundingAdamW(groups, 1e-4, (0.9, 0.999), 1e-8))
    start = float((torch.randn(32) * 0.02).norm())
    assert exact < rounding < 0.6 * start < nearest


def test_one_update_is_adamws_but_for_rounding():
    weights = [torch.nn.Parameter(torch.linspace(0.5, 2, 64, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16)]
    optimisers = (
        torch.optim.AdamW([{"params": weights[:1], "weight_decay": 0.1}], lr=0.01, betas=(0.8, 0.9)),
        StochasticRoundingAdamW([{"params": weights[1:], "weight_decay": 0.1}], 0.01, (0.8, 0.9), 1e-8),
    )
    for weight, optimiser in zip(weights, optimisers, strict=True):
        for step in (1.0, 3.0):
            weight.grad = torch.linspace(1, 2, 64, dtype=weight.dtype) * step
            optimiser.step()
    assert torch.allclose(weights[0], weights[1].float(), atol=2**-6)
    exact, moved = ((weight.detach().float() - torch.linspace(0.5, 2, 64)).mean().item() for weight in weights)
    assert moved == pytest.approx(exact, abs=2e-3)
    assert abs(moved) > 1e-2
