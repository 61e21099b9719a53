import pytest
import torch
from torch.nn import functional

from tests.support import toy_whisper
from tmsearch.model import whisper as model
from tmsearch.model.kernels import formulas
from tmsearch.model.kernels.fused import FusedKernels
from tmsearch.training.token_table import TokenTable


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy"))


IDS = torch.tensor([[3, 5, 5], [7, 3, 9]])
LABELS = torch.tensor([5, 9, 9, 200])


def mixed(embedded):
    """Something between both ends of the decoder."""
    return embedded.flatten(0, 1)[:4].tanh() * 2 + embedded.sum() * 0.01


def by_autograd(net, smoothing, times):
    for _ in range(times):
        logits = net.proj_out(mixed(net.model.decoder.embed_tokens(IDS)))
        loss = functional.cross_entropy(logits, LABELS, reduction="sum", label_smoothing=smoothing) / 10
        loss.backward()
    return loss.item()


def by_hand(net, table, smoothing, times):
    for _ in range(times):
        embedded = table.embed(IDS)
        hidden = mixed(embedded)
        loss, gradient = table.loss(hidden, LABELS, 10, smoothing)
        hidden.backward(gradient)
        table.add_gradient(IDS, embedded)
    return float(loss)


def untied(net):
    net.proj_out.weight = torch.nn.Parameter(net.proj_out.weight.detach().clone() * 1.5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("times", [1, 3], ids=["one micro-batch", "three"])
@pytest.mark.parametrize("change", [lambda net: None, untied], ids=["tied", "untied"])
def test_loss_and_gradients_are_those_of_autograd(folder, smoothing, times, change):
    net = model.load(toy_whisper.config(folder)).model
    reference = model.load(toy_whisper.config(folder)).model
    change(net)
    change(reference)
    table = TokenTable(net)
    for _ in range(2):  # the second time with reused buffers
        expected = by_autograd(reference, smoothing, times)
        assert by_hand(net, table, smoothing, times) == pytest.approx(expected, rel=1e-5)
        for name in ("model.decoder.embed_tokens", "proj_out"):
            expected = reference.get_submodule(name).weight.grad
            assert torch.allclose(net.get_submodule(name).weight.grad, expected, atol=1e-5)
        reference.zero_grad(set_to_none=True)
        net.zero_grad(set_to_none=True)


def test_a_frozen_table_gets_no_gradient(folder):
    net = model.load(toy_whisper.config(folder)).model.requires_grad_(False)
    table = TokenTable(net)
    embedded = table.embed(IDS)
    assert not embedded.requires_grad
    hidden = mixed(embedded).requires_grad_()
    _, gradient = table.loss(hidden, LABELS, 10)
    hidden.backward(gradient)
    table.add_gradient(IDS, embedded)
    assert net.proj_out.weight.grad is None
    assert hidden.grad is not None


def test_in_bf16_it_is_close(folder):
    net = model.load(toy_whisper.config(folder)).model
    hidden = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    exact, gradient = TokenTable(net).loss(hidden, LABELS, 4)
    right = net.proj_out.weight.grad.clone()
    net.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, near = TokenTable(net).loss(hidden, LABELS, 4)
    assert loss.dtype == near.dtype == net.proj_out.weight.grad.dtype == torch.float32
    assert float(loss) == pytest.approx(float(exact), rel=0.02)
    assert torch.allclose(near, gradient, atol=0.05)
    assert torch.allclose(net.proj_out.weight.grad, right, atol=0.02)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_as_one_kernel_is_the_loss(smoothing):
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 300, generator=rng).double().requires_grad_()
    share = torch.tensor(0.1, dtype=torch.float64)
    loss, gradient = formulas.cross_entropy(logits.detach(), LABELS[:, None], share, smoothing)
    expected = functional.cross_entropy(logits, LABELS, reduction="sum", label_smoothing=smoothing) / 10
    expected.backward()
    assert float(loss) == pytest.approx(expected.item(), rel=1e-12)
    assert torch.allclose(gradient, logits.grad, rtol=1e-12, atol=1e-15)


def test_a_loss_that_does_not_compile_is_computed_without(folder, monkeypatch, caplog):
    def fails(function):
        raise torch._dynamo.exc.TorchDynamoException("no compiler")

    monkeypatch.setattr(formulas, "compiled", fails)
    net = model.load(toy_whisper.config(folder)).model
    expected = by_hand(net, TokenTable(net), 0.1, 1)
    net.zero_grad()
    assert by_hand(net, TokenTable(net, FusedKernels(torch.float32)), 0.1, 2) == pytest.approx(expected, rel=1e-6)
    assert caplog.text.count("could not be compiled") == 1
