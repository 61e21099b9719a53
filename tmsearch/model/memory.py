"""Memory that runs out: how that is recognized, what is given back, and how many clips are tried next."""

from __future__ import annotations

import gc
import math

import torch

# What torch, cuBLAS and cuDNN say where memory is lacking and the error has no class of its own.
_LACKING = ("can't allocate memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory is what was lacking, in this error or in the one that it was raised over.

    A CUDA graph whose recording runs out of memory ends in a second error, which only says that the recording failed.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in _LACKING):
        return True
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return earlier is not None and is_out_of_memory(earlier)


def free_memory() -> None:
    """Gives back what a failed attempt still holds; call it outside the `except` block, whose error holds tensors."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def halve(clips: int) -> int:
    """Half of `clips`, rounded up."""
    return max(1, math.ceil(clips / 2))
