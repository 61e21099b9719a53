import pytest
import torch

from tmsearch.errors import InputError
from tmsearch.model.memory import halve, is_out_of_memory


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
    assert is_out_of_memory(error)


def test_a_graph_that_could_not_be_recorded_for_lack_of_memory():
    """Recording ends with an error of its own, raised over the first one."""

    def record():
        try:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    assert is_out_of_memory(raised(record))


def test_other_errors_are_not_lack_of_memory():
    def refuse():
        try:
            raise MemoryError
        except MemoryError:
            raise InputError("clips: too long") from None

    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(raised(refuse))


def test_halves_end_at_one():
    assert [halve(clips) for clips in (16, 5, 2, 1)] == [8, 3, 1, 1]
