import math

import pytest
import torch

from tests.support import toy_whisper
from tmsearch.config import TrainConfig
from tmsearch.model import trainable
from tmsearch.model import whisper as model
from tmsearch.training import optimizer
from tmsearch.training.optimizer import StochasticRoundingAdamW, round_stochastically


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy"))


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 2, [0.5, 1, 1, 1, 1]),
        ("linear", 0, [1, 0.8, 0.6, 0.4, 0.2]),
        ("linear", 2, [0.5, 1, 0.75, 0.5, 0.25]),
        ("cosine", 1, [1, (1 + math.cos(math.pi / 5)) / 2, None, None, (1 + math.cos(math.pi * 4 / 5)) / 2]),
        ("linear", 10, [0.1, 0.2, 0.3, 0.4, 0.5]),
    ],
)
def test_schedules_over_five_steps(schedule, warmup, expected):
    config = TrainConfig(max_steps=5, warmup_steps=warmup, schedule=schedule)
    rates = [optimizer.rate_factor(config, step) for step in range(1, 6)]
    wanted = [pytest.approx(rate if value is None else value) for rate, value in zip(rates, expected, strict=True)]
    assert rates == wanted


def test_rates_fall_layer_by_layer_and_norms_do_not_decay(toy):
    whisper = model.load(toy_whisper.config(toy))
    whisper.model.model.encoder.embed_positions.requires_grad_(False)
    groups = optimizer.adamw(whisper, toy_whisper.config(toy, layer_decay=0.5, weight_decay=0.1)).param_groups
    names = {id(weight): name for name, weight in whisper.model.named_parameters()}
    scale = {names[id(weight)]: group["scale"] for group in groups for weight in group["params"]}
    decay = {names[id(weight)]: group["weight_decay"] for group in groups for weight in group["params"]}
    chain = [
        "model.decoder.layer_norm.weight",
        "model.decoder.layers.1.fc1.weight",
        "model.decoder.layers.0.fc1.weight",
        "model.encoder.layers.1.fc1.weight",
        "model.encoder.layers.0.fc1.weight",
        "model.encoder.conv1.weight",
    ]
    assert [scale[name] for name in chain] == [0.5**depth for depth in range(6)]
    assert scale["model.decoder.embed_tokens.weight"] == 0.125
    assert len(scale) == sum(weight.requires_grad for weight in whisper.model.parameters())
    assert decay["model.decoder.layers.0.fc1.weight"] == decay["model.encoder.conv1.weight"] == 0.1
    assert decay["model.decoder.layers.0.fc1.bias"] == decay["model.decoder.layer_norm.weight"] == 0


def test_moments_may_be_kept_in_bf16_and_come_back_close(tmp_path):
    whisper = model.load(toy_whisper.config(toy_whisper.whisper_folder(tmp_path)))
    config = toy_whisper.config(tmp_path)
    trainable.prepare(whisper, config)
    trained, restored = optimizer.adamw(whisper, config), optimizer.adamw(whisper, config)
    weights = trainable.trainable_parameters(whisper)
    for weight in weights.values():
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    trained.step()
    exact, short = optimizer.moments(trained, weights), optimizer.moments(trained, weights, exact=False)
    assert {value.dtype for value in short.values() if value.ndim} == {torch.bfloat16}
    optimizer.set_moments(restored, weights, short)
    back = optimizer.moments(restored, weights)
    assert back.keys() == exact.keys()
    assert all(value.dtype == torch.float32 for value in back.values())
    for name, value in exact.items():
        assert torch.allclose(back[name], value, rtol=2**-7), name
    assert not all(torch.equal(back[name], value) for name, value in exact.items())
    restored.step()


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


def test_what_is_not_finite_stays_so():
    rounded = torch.empty(1000, dtype=torch.bfloat16)
    round_stochastically(torch.full((1000,), float("nan")), rounded)
    assert not rounded.isfinite().any()


def distance_left(dtype, make_optimizer):
    """A linear regression: how far from its solution 600 updates of 1e-4 end."""
    torch.manual_seed(0)
    inputs, truth = torch.randn(64, 32), torch.randn(32) * 0.02 + 1
    weight = torch.nn.Parameter(torch.ones(32, dtype=dtype))
    stepper = make_optimizer([{"params": [weight], "weight_decay": 0.0}])
    for _ in range(600):
        ((inputs @ weight.float() - inputs @ truth) ** 2).mean().backward()
        stepper.step()
        stepper.zero_grad()
    return float((weight.detach().float() - truth).norm())


def test_small_updates_are_not_lost_as_they_are_with_rounding_to_the_nearest():
    exact = distance_left(torch.float32, lambda groups: torch.optim.AdamW(groups, lr=1e-4))
    nearest = distance_left(torch.bfloat16, lambda groups: torch.optim.AdamW(groups, lr=1e-4))
    rounding = distance_left(torch.bfloat16, lambda groups: StochasticRoundingAdamW(groups, 1e-4, (0.9, 0.999), 1e-8))
    start = float((torch.randn(32) * 0.02).norm())
    assert exact < rounding < 0.6 * start < nearest


def test_one_update_is_adamws_but_for_rounding():
    weights = [torch.nn.Parameter(torch.linspace(0.5, 2, 64, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16)]
    optimizers = (
        torch.optim.AdamW([{"params": weights[:1], "weight_decay": 0.1}], lr=0.01, betas=(0.8, 0.9)),
        StochasticRoundingAdamW([{"params": weights[1:], "weight_decay": 0.1}], 0.01, (0.8, 0.9), 1e-8),
    )
    for weight, stepper in zip(weights, optimizers, strict=True):
        for step in (1.0, 3.0):
            weight.grad = torch.linspace(1, 2, 64, dtype=weight.dtype) * step
            stepper.step()
    assert torch.allclose(weights[0], weights[1].float(), atol=2**-6)
    exact, moved = ((weight.detach().float() - torch.linspace(0.5, 2, 64)).mean().item() for weight in weights)
    assert moved == pytest.approx(exact, abs=2e-3)
    assert abs(moved) > 1e-2
