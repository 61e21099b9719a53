"""Tensors as a safetensors file, written and hashed in one pass.

The library writes a file that must be read again for its checksum; a checkpoint of large-v3 has 18.5 GB.
Format: https://github.com/huggingface/safetensors, "Format" (an unsigned 64-bit length, a header in JSON, the bytes).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_LENGTH_BYTES = 8  # of the header's length, and what the header is padded to
_BLOCK = 4 << 20  # bytes hashed and written at a time: what was hashed is still in the processor's cache


def write(path: Path, tensors: Mapping[str, torch.Tensor]) -> str:
    """Writes tensors that lie on the CPU into a new file; returns the file's sha256.

    Raises OSError, and ValueError for a tensor of a type that the format does not have.
    """
    # The widest first, as the library orders them: each tensor then starts at a multiple of its elements' size.
    ordered = dict(sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])))
    digest = hashlib.sha256()
    with path.open("xb") as stream:
        head = _head(ordered)
        digest.update(head)
        stream.write(head)
        for tensor in ordered.values():
            content = _bytes_of(tensor)
            for start in range(0, len(content), _BLOCK):
                block = content[start : start + _BLOCK]
                digest.update(block)
                stream.write(block)
    return digest.hexdigest()


def _head(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """The header's length and the header: type, shape and place of every tensor, in the order of their bytes."""
    header = {}
    start = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise ValueError(f"{name}: safetensors has no type {tensor.dtype}")
        end = start + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """The tensor's own bytes, little-endian as on every machine that torch has wheels for; not a copy if contiguous."""
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
