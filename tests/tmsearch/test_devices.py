import pytest
import torch

from tests.support.command import SPACE, status, tmsearch
from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.errors import InputError
from tmsearch.training import checkpoint_writer, micro_batch

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


def raised(action):
    with pytest.raises((RuntimeError, InputError)) as caught:
        action()
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_lack_of_memory_by_its_many_names(error):
    assert devices.is_out_of_memory(error)


def test_a_graph_that_could_not_be_recorded_for_lack_of_memory():
    """Recording ends with an error of its own, raised over the first one."""

    def record():
        try:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    assert devices.is_out_of_memory(raised(record))


def test_other_errors_are_not_lack_of_memory():
    def refuse():
        try:
            raise MemoryError
        except MemoryError:
            raise InputError("clips: too long") from None

    assert not devices.is_out_of_memory(RuntimeError("shapes do not match"))
    assert not devices.is_out_of_memory(raised(refuse))


def test_halves_end_at_one():
    assert [devices.halve(clips) for clips in (16, 5, 2, 1)] == [8, 3, 1, 1]


@pytest.mark.parametrize(
    ("compile_layers", "steps", "has_compiler", "expected"),
    [
        ("auto", 10_000, True, True),
        ("auto", 800, True, False),
        ("auto", 10_000, False, False),
        (True, 800, True, True),
        (False, 10_000, True, False),
    ],
)
def test_layers_are_compiled_where_it_pays_or_is_asked_for(monkeypatch, compile_layers, steps, has_compiler, expected):
    monkeypatch.setattr(devices, "has_compiler", lambda device: has_compiler)
    config = TrainConfig(compile=compile_layers, max_steps=steps)
    assert devices.uses_compile(config, torch.device("cuda")) is expected
    assert devices.uses_compile(config, CPU) is False


def test_compiling_that_is_asked_for_and_cannot_be_is_one_line(monkeypatch):
    monkeypatch.setattr(devices, "has_compiler", lambda device: False)
    with pytest.raises(InputError, match="compile: true: needs Triton and a C compiler"):
        devices.uses_compile(TrainConfig(compile=True), torch.device("cuda"))


@pytest.fixture
def apple(monkeypatch):
    """torch as on a Mac: Apple's GPU, and no CUDA."""
    monkeypatch.delenv("TMSEARCH_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    return torch.device("mps")


def test_apples_gpu_is_found_and_another_can_be_named(apple, monkeypatch):
    assert devices.device() == apple
    assert micro_batch.device_name() == "mps"
    monkeypatch.setenv("TMSEARCH_DEVICE", "cpu")
    assert devices.device() == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("TMSEARCH_DEVICE")
    assert devices.device() == torch.device("cuda")


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("gpu", "TMSEARCH_DEVICE=gpu: no such device; give one of cuda, mps, cpu, or unset it"),
        ("cuda", "TMSEARCH_DEVICE=cuda: torch does not see one here; give cpu, or unset it"),
    ],
)
def test_a_device_that_is_not_there_is_refused_in_one_line(apple, monkeypatch, value, line):
    monkeypatch.setenv("TMSEARCH_DEVICE", value)
    assert str(raised(devices.device)) == line


def test_apples_gpu_trains_in_float32(apple):
    assert not devices.uses_bf16(TrainConfig(precision="auto"), apple, 1280)
    with devices.autocast(TrainConfig(), apple, 1280) as context:
        assert context is None or not torch.is_autocast_enabled("mps")
    for knobs, named in (({"precision": "bf16"}, "precision: bf16"), ({"low_memory": True}, "low_memory: true")):
        config = TrainConfig(**knobs)
        line = str(raised(lambda config=config: devices.uses_bf16(config, apple, 1280)))
        assert line.startswith(f"{named}: Apple's GPUs train in float32")
    assert not devices.uses_compile(TrainConfig(max_steps=100_000), apple)


def test_apples_gpu_takes_no_cuda_call(apple, monkeypatch):
    """Each of these would end the process, or ask for a driver that a Mac has not."""

    def refuse(*_, **__):
        raise AssertionError("a call of CUDA's")

    for name in ("empty_cache", "synchronize", "mem_get_info", "get_device_name", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, refuse)
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", refuse)
    emptied = []
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: emptied.append(True))
    before = torch.get_num_threads()
    try:
        assert devices.configure_device(1) == apple
    finally:
        torch.set_num_threads(before)
    devices.free_memory()
    assert emptied == [True]
    assert isinstance(checkpoint_writer.lane_for(apple), checkpoint_writer.PlainLane)


def test_only_cuda_copies_while_the_program_goes_on():
    copies = []

    class Tensor:
        def to(self, device, non_blocking):
            copies.append((device.type, non_blocking))

    for kind in ("cuda", "mps", "cpu"):
        devices.copied(Tensor(), torch.device(kind))
    assert copies == [("cuda", True), ("mps", False), ("cpu", False)]
    assert devices.is_out_of_memory(
        RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB, max allowed: 9 GB)")
    )


def test_a_training_on_apples_gpu(tmp_path):
    if not torch.backends.mps.is_available():
        pytest.skip("this machine has no GPU of Apple's")
    (tmp_path / "small.yaml").write_text(SPACE)
    done = tmsearch(tmp_path, "run", "--space", "small.yaml", "--trials", "2", TMSEARCH_DEVICE="mps")
    assert done.returncode == 0, done.stderr
    assert all(trial["state"] in ("finished", "pruned") for trial in status(tmp_path)["configurations"])
