import pytest
import torch

from tmsearch import devices
from tmsearch.config import TrainConfig

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "has_bf16", "width", "expected"),
    [
        ("auto", True, 384, True),
        ("auto", True, 128, False),
        ("auto", False, 1280, False),
        ("bf16", False, 16, True),
        ("float32", True, 1280, False),
    ],
)
def test_number_format_on_a_cpu(monkeypatch, precision, has_bf16, width, expected):
    monkeypatch.setattr(devices.torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has_bf16})
    monkeypatch.setattr(devices, "_cpu_bf16_is_faster", lambda: True)
    config = TrainConfig(precision=precision)
    assert devices.uses_bf16(config, CPU, width) is expected
    with devices.autocast(config, CPU, width):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if expected else torch.float32)


def test_threads_are_those_of_the_segment():
    before = torch.get_num_threads()
    try:
        devices.configure_device(1)
        assert torch.get_num_threads() == 1
        devices.configure_device(2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_looking_up_positions_has_one_gradient():
    """With two threads and torch's defaults, nearly all of these sums are in another order."""
    device = devices.configure_device(2)
    if device.type != "cpu":
        pytest.skip("the order of sums is promised on a CPU only")
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(448, 384, generator=generator, requires_grad=True)
    positions = torch.arange(20).expand(64, 20)
    gradient = torch.randn(64, 20, 384, generator=generator)
    sums = set()
    for _ in range(30):
        table.grad = None
        table[positions].backward(gradient)
        sums.add(table.grad.numpy().tobytes())
    assert len(sums) == 1
