import math

import pytest
import torch

from tests.support import toy_whisper
from tmsearch.config import TrainConfig
from tmsearch.model import trainable
from tmsearch.model import whisper as model
from tmsearch.training.optim import optimizer


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
