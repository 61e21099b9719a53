"""One optimizer step: what is computed again for its gradients gives the same ones."""

import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from tests.support import toy_whisper
from tmsearch.model import forward, layers, trainable
from tmsearch.model import whisper as model
from tmsearch.model.forward import MicroBatch
from tmsearch.training.step import Stepper

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy"))


def micro_batch():
    """Clips of two lengths."""
    generator = torch.Generator().manual_seed(0)
    mels = tuple(torch.randn(clips, 80, frames, generator=generator) for clips, frames in ((2, 60), (1, 120)))
    inputs = torch.arange(3 * 7).view(3, 7)  # [clips, tokens]
    return MicroBatch(mels, inputs, torch.arange(3 * 7), inputs.flatten() + 1, 3 * 7)


def gradients(toy, **knobs):
    """Of one micro-batch by weight, and the next number that torch draws."""
    config = toy_whisper.config(toy, **knobs)
    whisper = model.load(config)
    torch.manual_seed(3)
    trainable.prepare(whisper, config)
    stepper = Stepper(whisper, config, CPU)
    stepper.model.train()
    stepper.backward(micro_batch())
    values = {name: weight.grad.clone() for name, weight in stepper.weights.items() if weight.grad is not None}
    return values, float(torch.rand([]))


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"dropout": 0.2, "attention_dropout": 0.2, "stochastic_depth": 0.4},
        {"lora_r": 2, "lora_dropout": 0.3},
        {"precision": "bf16", "dropout": 0.1},
    ],
    ids=["plain", "regularised", "adapters", "bf16"],
)
def test_gradient_checkpointing_changes_no_gradient_and_no_random_number(toy, knobs):
    expected, drawn = gradients(toy, **knobs)
    recomputed, drawn_after = gradients(toy, gradient_checkpointing=True, **knobs)
    assert recomputed.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.equal(recomputed[name], gradient), name
    assert drawn_after == drawn


def test_gradient_checkpointing_keeps_less():
    plain = kept_bytes(3, layers.EAGER) - kept_bytes(1, layers.EAGER)
    recomputed = kept_bytes(3, layers.recomputed()) - kept_bytes(1, layers.recomputed())
    assert recomputed < plain / 4


def kept_bytes(layers, how):
    """What the forward pass of a model of so many layers keeps, without its weights."""
    settings = WhisperConfig(
        vocab_size=64, d_model=32, encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=128, decoder_ffn_dim=128, max_source_positions=100,
        pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=1,
    )  # fmt: skip
    whisper = WhisperForConditionalGeneration(settings).train()
    weights = {weight.untyped_storage().data_ptr() for weight in whisper.parameters()}
    kept = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        encoded = forward.encode(whisper, [torch.randn(2, 80, 160)], layers=how)
        forward.decode(whisper, torch.randn(2, 5, 32), encoded, how)
    return sum(kept.values())
