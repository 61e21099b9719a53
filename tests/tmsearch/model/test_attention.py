import pytest
import torch

from tests.support import toy_whisper
from tests.support.varlen import clip_by_clip, clip_by_clip_into
from tmsearch.model import attention, forward, layers, trainable
from tmsearch.model import whisper as model
from tmsearch.model.attention import SharedStates
from tmsearch.model.context import ContextRule
from tmsearch.training.step import Stepper
from tmsearch.training.token_table import TokenTable

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def packed(monkeypatch):
    """A switch between a GPU's way and a CPU's."""
    monkeypatch.setattr(attention, "varlen_attn", clip_by_clip)
    monkeypatch.setattr(attention, "varlen_attn_out", clip_by_clip_into)

    def switch(is_on):
        monkeypatch.setattr(attention, "is_packed", lambda layer, device: is_on)

    return switch


QUIET = ContextRule(100, 10, 100, True, quiet=True)


def quiet_places(clips):
    """Clips whose quiet is thinned, each at other positions; of the last group none."""
    groups = []
    for count, frames in clips[:-1]:
        speech = frames // 2 - 22
        groups.append(tuple(QUIET.places(frames // 2, 21 - index, 21 - index + speech) for index in range(count)))
    return (*groups, None)


def micro_batch(clips, quiet=False):
    """Clips of three lengths, with labels of their own."""
    rng = torch.Generator().manual_seed(1)
    mels = tuple(torch.rand(count, 80, frames, generator=rng).double() for count, frames in clips)
    count = sum(count for count, _ in clips)
    inputs = torch.randint(0, 250, (count, 7), generator=rng)
    labels = torch.randint(0, 250, (count * 7,), generator=rng)
    places = quiet_places(clips) if quiet else ()
    return forward.MicroBatch(mels, inputs, torch.arange(count * 7), labels, count * 7, places)


def step(folder, clips, quiet=False, **knobs):
    """The loss and the gradients of one training step in float64, before clipping."""
    config = toy_whisper.config(folder, precision="float32", **knobs)
    whisper = model.load(config)
    torch.manual_seed(0)
    trainable.prepare(whisper, config)
    whisper.model.double().train()
    stepper = Stepper(whisper, config, CPU)
    stepper.token_table = TokenTable(whisper.model)
    loss = stepper.backward(micro_batch(clips, quiet))
    return float(loss), {name: weight.grad for name, weight in stepper.weights.items() if weight.grad is not None}


@pytest.mark.parametrize("clips", [((2, 60), (1, 100), (3, 140)), ((3, 200),)], ids=["three lengths", "one, full"])
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"quiet": True},
        {"context_silence": False},
        {"lora_r": 2, "lora_targets": "q_proj,k_proj,out_proj", "lora_dropout": 0.0},
    ],
    ids=["silence", "quiet", "no silence", "adapters"],
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
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
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
    monkeypatch.setattr(attention, "HAS_SCALE", False)  # an earlier torch
    assert not attention.is_packed(layer, cuda)
    monkeypatch.setattr(attention, "HAS_SCALE", True)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)  # products in float32
    assert not attention.is_packed(layer, cuda)


@torch.library.custom_op("tmsearch_tests::varlen", mutates_args=())
def varlen_stand_in(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ends: torch.Tensor, longest: int, scale: float
) -> torch.Tensor:
    """An operator of the kernel's form, which the compiler cannot look into either."""
    return query + key.mean() + value.mean()


@varlen_stand_in.register_fake
def _(query, key, value, ends, longest, scale):
    return torch.empty_like(query)


def test_one_graph_serves_all_layers_of_a_kind_and_batches_of_all_lengths(folder, packed, monkeypatch):
    packed(True)
    monkeypatch.setattr(
        attention,
        "varlen_attn_out",
        lambda out, query, key, value, ends, key_ends, longest, longest_key, scale: out.copy_(
            varlen_stand_in(query, key, value, ends, longest, scale)
        ),
    )
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compile_layer = torch.compile
    monkeypatch.setattr(torch, "compile", lambda layer, dynamic: compile_layer(layer, dynamic=dynamic, backend=count))
    layers.compiled_layers.cache_clear()
    whisper = model.load(toy_whisper.config(folder))
    trainable.prepare(whisper, toy_whisper.config(folder))
    net = whisper.model.train()
    compiled = layers.compiled_layers()
    layers.compiled_layers.cache_clear()
    with torch.no_grad():
        for clips, tokens in (((2, 60), (3, 100)), 7), (((1, 80), (3, 120), (2, 140)), 5), (((4, 90),), 9):
            mels = [torch.rand(count, 80, frames) for count, frames in clips]
            ids = torch.zeros(sum(count for count, _ in clips), tokens, dtype=torch.long)
            encoded = forward.encode(net, mels, True, compiled)
            forward.decode(net, net.model.decoder.embed_tokens(ids), encoded, compiled)
    torch._dynamo.reset()
    assert len(graphs) == 2  # two encoder layers, two decoder layers, three batches
