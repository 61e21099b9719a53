import pytest
import torch
from torch.nn import functional

from tests.support import toy_whisper
from tmsearch.model import attention, forward, trainable
from tmsearch.model import whisper as model
from tmsearch.model.attention import SharedStates
from tmsearch.model.token_table import TokenTable
from tmsearch.training.step import Stepper

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy"))


def clip_by_clip(query, key, value, query_ends, key_ends, max_q, max_k, *, scale):
    """What torch's kernel for clips of any lengths computes."""
    attended = []
    ends = zip(query_ends[:-1], query_ends[1:], key_ends[:-1], key_ends[1:], strict=True)
    for first_query, last_query, first_key, last_key in ends:
        parts = (query[first_query:last_query], key[first_key:last_key], value[first_key:last_key])
        assert len(parts[0]) <= max_q
        assert len(parts[1]) <= max_k
        heads = [part.transpose(0, 1) for part in parts]
        attended.append(functional.scaled_dot_product_attention(*heads, scale=scale).transpose(0, 1))
    return torch.cat(attended)


@pytest.fixture
def packed(monkeypatch):
    """A switch between a GPU's way and a CPU's."""
    monkeypatch.setattr(attention, "varlen_attn", clip_by_clip)

    def switch(is_on):
        monkeypatch.setattr(attention, "is_packed", lambda layer, device: is_on)

    return switch


def micro_batch(clips):
    """Clips of three lengths, with labels of their own."""
    rng = torch.Generator().manual_seed(1)
    mels = tuple(torch.rand(count, 80, frames, generator=rng).double() for count, frames in clips)
    count = sum(count for count, _ in clips)
    inputs = torch.randint(0, 250, (count, 7), generator=rng)
    labels = torch.randint(0, 250, (count * 7,), generator=rng)
    return forward.MicroBatch(mels, inputs, torch.arange(count * 7), labels, count * 7)


def step(folder, clips, **knobs):
    """The loss and the gradients of one training step in float64, before clipping."""
    config = toy_whisper.config(folder, precision="float32", **knobs)
    whisper = model.load(config)
    torch.manual_seed(0)
    trainable.prepare(whisper, config)
    whisper.model.double().train()
    stepper = Stepper(whisper, config, CPU)
    stepper.token_table = TokenTable(whisper.model)
    loss = stepper.backward(micro_batch(clips))
    return float(loss), {name: weight.grad for name, weight in stepper.weights.items() if weight.grad is not None}


@pytest.mark.parametrize("clips", [((2, 60), (1, 100), (3, 140)), ((3, 200),)], ids=["three lengths", "one, full"])
@pytest.mark.parametrize(
    "knobs",
    [{}, {"context_silence": False}, {"lora_r": 2, "lora_targets": "q_proj,k_proj,out_proj", "lora_dropout": 0.0}],
    ids=["silence", "no silence", "adapters"],
)
def test_a_step_with_all_clips_attended_at_once_is_that_by_groups(folder, packed, clips, knobs):
    packed(False)
    loss, gradients = step(folder, clips, **knobs)
    packed(True)
    loss_at_once, at_once = step(folder, clips, **knobs)
    assert loss_at_once == pytest.approx(loss, rel=1e-13)
    assert at_once.keys() == gradients.keys()
    largest = max(float(gradient.norm()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        assert float((at_once[name] - gradient).norm()) < 1e-12 * max(float(gradient.norm()), 1e-3 * largest), name


def test_log_counts_survive_the_products_format():
    log_counts = torch.tensor([0.0, 3.7, 1.0986123]).exp().log()
    channels = attention.count_channels(log_counts, 64, torch.bfloat16)
    query, key, value = channels.double().unbind(1)
    raised = (query * key).sum(-1)[:, 0] * 64**-0.5
    assert torch.allclose(raised, log_counts.double(), rtol=2**-16)  # a bfloat16 alone: 2 ** -9
    assert not value.any()


def test_a_shared_cast_sums_gradients_as_casts_of_its_own_do():
    rng = torch.Generator().manual_seed(0)
    linears = [torch.nn.Linear(32, 32) for _ in range(3)]
    states = torch.randn(5, 32, generator=rng)
    weights = [torch.randn(5, 32, generator=rng) for _ in linears]

    def gradient(project):
        leaf = states.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            products = project(leaf * 1)  # autocast keeps its casts of leaves
        sum((product.float() * weight).sum() for product, weight in zip(products, weights, strict=True)).backward()
        return leaf.grad

    shared = gradient(lambda leaf: SharedStates(leaf).project(linears))
    alone = gradient(lambda leaf: [linear(leaf) for linear in linears])
    assert shared.dtype == torch.float32
    assert torch.equal(shared, alone)


def test_the_kernel_for_any_lengths_is_taken_where_a_gpu_has_it(folder, monkeypatch):
    config = toy_whisper.config(folder, attention_dropout=0.1)
    layer = model.load(config).model.model.encoder.layers[0].self_attn
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: True)
    assert attention.is_packed(layer, cuda)
    assert not attention.is_packed(layer, CPU)
    layer.dropout = 0.1
    layer.train()
    assert not attention.is_packed(layer, cuda)  # it has no dropout
    layer.eval()
    assert attention.is_packed(layer, cuda)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not attention.is_packed(layer, cuda)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)  # products in float32
    assert not attention.is_packed(layer, cuda)
