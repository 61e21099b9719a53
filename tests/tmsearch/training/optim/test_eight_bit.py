"""AdamW with 8-bit moments: refused in one line without torchao, and with it resumed to the bit."""

import importlib.util

import pytest
import torch

from tests.support import toy_whisper
from tmsearch.config import TrainConfig
from tmsearch.errors import InputError
from tmsearch.export import trainer_arguments
from tmsearch.model import trainable
from tmsearch.model import whisper as model
from tmsearch.training.optim import optimizer

ADVICE = r"train\.optimizer: adamw_8bit needs torchao; pip install 'tmsearch\[8bit\]'"


def test_without_torchao_it_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    config = toy_whisper.config(toy_whisper.whisper_folder(tmp_path), optimizer="adamw_8bit")
    whisper = model.load(config)
    for refused in (optimizer.check_installed, lambda config: optimizer.adamw(whisper, config)):
        with pytest.raises(InputError, match=ADVICE):
            refused(config)
    optimizer.check_installed(TrainConfig())  # which is not asked for it


def test_hugging_faces_trainer_has_a_name_for_it():
    assert trainer_arguments.arguments(TrainConfig(optimizer="adamw_8bit"))["optim"] == "adamw_torch_8bit"
    assert "optimizer" not in trainer_arguments.left_out(TrainConfig(optimizer="adamw_8bit"))


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """An optimizer after one update, its weights, and a function that makes another."""
    pytest.importorskip("torchao")
    monkeypatch.setattr(torch, "compile", lambda function, **settings: function)  # which takes minutes
    shape = toy_whisper.Shape(d_model=64, ffn=256)
    config = toy_whisper.config(toy_whisper.whisper_folder(tmp_path, shape), optimizer="adamw_8bit")
    whisper = model.load(config)
    trainable.prepare(whisper, config)
    weights = trainable.trainable_parameters(whisper)
    trained = optimizer.adamw(whisper, config)
    update(trained, weights, config)
    return trained, weights, config, lambda: optimizer.adamw(whisper, config)


def update(stepper, weights, config, step=1):
    generator = torch.Generator().manual_seed(step)
    for weight in weights.values():
        weight.grad = torch.randn(weight.shape, generator=generator)
    optimizer.set_rates(stepper, config, step)
    stepper.step()


def test_its_moments_take_a_quarter_and_are_resumed_to_the_bit(prepared):
    trained, weights, config, again = prepared
    saved = {name: value.clone() for name, value in optimizer.moments(trained, weights).items()}
    table = "model.decoder.layers.0.fc1.weight"
    assert saved[f"exp_avg.codes/{table}"].dtype == torch.uint8
    assert len(saved[f"exp_avg.scale/{table}"]) == 64 * 256 // 256
    assert saved["exp_avg/model.decoder.layer_norm.weight"].dtype == torch.float32  # too small for 8 bits
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    update(trained, weights, config, step=2)
    expected = {name: weight.detach().clone() for name, weight in weights.items()}
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(before[name])
    restored = again()
    optimizer.set_moments(restored, weights, saved)
    update(restored, weights, config, step=2)
    assert all(torch.equal(weight, expected[name]) for name, weight in weights.items())
    assert not all(torch.equal(before[name], expected[name]) for name in expected)


def test_moments_of_another_shape_are_refused(prepared):
    _, weights, _, again = prepared
    codes = {"exp_avg.codes/model.decoder.layers.0.fc1.weight": torch.zeros(2, dtype=torch.uint8)}
    stepper = again()
    with pytest.raises(ValueError, match=r"exp_avg\.codes has shape \[2\], its place"):
        optimizer.set_moments(stepper, weights, codes)


def test_rates_reach_each_group(prepared):
    trained, _, config, _ = prepared
    rate = optimizer.set_rates(trained, config, 2)
    assert [float(group["lr"]) for group in trained.param_groups] == pytest.approx(
        [rate * group["scale"] for group in trained.param_groups]
    )
