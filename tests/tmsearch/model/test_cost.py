import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.support import toy_whisper
from tmsearch.machine import device_speed
from tmsearch.model import cost, forward, trainable
from tmsearch.model import whisper as model


@pytest.mark.parametrize(
    ("shape", "knobs"),
    [
        (toy_whisper.Shape(d_model=32, ffn=128), {}),
        (toy_whisper.Shape(d_model=64, ffn=256, encoder_layers=3, decoder_layers=1), {}),
        (toy_whisper.Shape(d_model=64, ffn=256), {"freeze_encoder": True}),
        (
            toy_whisper.Shape(d_model=64, ffn=256, encoder_layers=4),
            {"freeze_encoder_layers": 2, "context_seconds": 1.0},
        ),
    ],
)
def test_the_arithmetic_is_what_torch_counts(tmp_path, shape, knobs):
    folder = toy_whisper.whisper_folder(tmp_path, shape)
    config = toy_whisper.config(folder, batch_size=3, **knobs)
    whisper = model.load(config)
    trainable.prepare(whisper, config)
    ids = torch.full((3, 20), 5)
    mels = torch.zeros(3, 80, round(100 * (config.context_seconds or whisper.seconds)))
    # torch does not count the fused attention of a CPU
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        embedded = whisper.model.model.decoder.embed_tokens(ids)
        hidden = forward.decode(whisper.model, embedded, forward.encode(whisper.model, [mels]))
        whisper.model.proj_out(hidden).sum().backward()
    estimated = cost.estimate(model.describe(str(folder)), config, label_tokens=20)
    assert estimated.flops_per_step == pytest.approx(counter.get_total_flops(), rel=0.2)


def test_memory_holds_the_states_and_grows_with_what_is_trained_at_once(tmp_path):
    folder = toy_whisper.whisper_folder(tmp_path, toy_whisper.Shape(d_model=64, ffn=256))
    info = model.describe(str(folder))

    def memory(**knobs):
        return cost.estimate(info, toy_whisper.config(folder, **knobs)).memory_bytes

    assert memory(batch_size=8) > 16 * info.parameters
    assert memory(batch_size=8) > memory(batch_size=4) > memory(batch_size=8, micro_batch_size=2)
    assert memory(freeze_encoder=True) < memory()
    assert memory(lora_r=4) < memory()


def test_activations_are_of_the_size_that_torch_keeps(tmp_path):
    shape = toy_whisper.Shape(d_model=64, ffn=256, encoder_layers=4, decoder_layers=4)
    folder = toy_whisper.whisper_folder(tmp_path, shape)
    config = toy_whisper.config(folder)
    whisper = model.load(config)
    trainable.prepare(whisper, config)
    saved: dict[int, int] = {}  # bytes by address
    weights = {weight.untyped_storage().data_ptr() for weight in whisper.model.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ids = torch.full((4, cost.LABEL_TOKENS), 5)
        encoded = forward.encode(whisper.model, [torch.zeros(4, 80, 200)])
        hidden = forward.decode(whisper.model, whisper.model.model.decoder.embed_tokens(ids), encoded)
        loss = torch.nn.functional.cross_entropy(whisper.model.proj_out(hidden).flatten(0, 1), ids.flatten())
    states = 16 * model.describe(str(folder)).parameters
    estimated = cost.estimate(model.describe(str(folder)), config).memory_bytes - states
    assert loss.requires_grad
    assert estimated == pytest.approx(sum(saved.values()), rel=0.35)


def test_the_matmul_rate_is_one_that_a_computer_has():
    assert 1e8 < device_speed.matmul_rate(1, seconds=0.02) < 1e16
