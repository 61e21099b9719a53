"""What the played GPU is assumed to reach, in one table; `--measured` puts a real machine's figures in."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Rates:
    """Products and attention in TFLOP/s, memory in TB/s, times in microseconds."""

    peak: float  # bf16 products of 8192 x 8192 matrices: what a share of the peak is of
    products: float  # bf16 products of a training step's shapes
    float32_products: float
    flash_forward: float  # flash attention, without a mask
    flash_backward: float
    efficient_forward: float  # memory-efficient attention: what SDPA takes where there is a mask
    efficient_backward: float
    varlen_forward: float  # flash attention of clips of differing lengths, of the tiles that it computes
    varlen_backward: float
    memory: float  # as an elementwise kernel reaches it
    kernel: float  # the shortest kernel, with the gap before the next
    launch: float  # of the host, for a kernel that no graph holds


# Assumptions, written on 2026-11-28 without a GPU, but for the H200's `peak`, which was measured.
DEVICES = {
    "H200": Rates(
        peak=788,
        products=600,
        float32_products=50,
        flash_forward=330,
        flash_backward=260,
        efficient_forward=170,
        efficient_backward=110,
        varlen_forward=360,
        varlen_backward=280,
        memory=3.8,
        kernel=2.5,
        launch=6.0,
    ),
    "H100": Rates(
        peak=700,
        products=560,
        float32_products=50,
        flash_forward=330,
        flash_backward=260,
        efficient_forward=170,
        efficient_backward=110,
        varlen_forward=360,
        varlen_backward=280,
        memory=2.75,
        kernel=2.5,
        launch=6.0,
    ),
}


def with_measured(rates: Rates, measured: list[str]) -> Rates:
    """`rates` with what was measured in place of what was assumed.

    Args:
        rates: A row of the table.
        measured: Each `key=value`, or a file of such lines or of one JSON object.

    Raises:
        SystemExit: in one line, for an unknown key, a value that is no positive number, or a file that is not there.
    """
    for argument in measured:
        pairs = [argument.partition("=")[::2]] if "=" in argument else _read(Path(argument))
        for key, text in pairs:
            rates = _replaced(rates, key.strip(), text, argument)
    return rates


def _read(path: Path) -> list[tuple[str, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"--measured {path}: {error}; give a file of key=value lines, or key=value") from None
    if text.lstrip().startswith("{"):
        try:
            return [(str(key), str(value)) for key, value in json.loads(text).items()]
        except json.JSONDecodeError as error:
            raise SystemExit(f"--measured {path}: not JSON ({error}); give one object of numbers") from None
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [line.partition("=")[::2] for line in lines]


def _replaced(rates: Rates, key: str, text: str, argument: str) -> Rates:
    keys = [field.name for field in dataclasses.fields(rates)]
    if key not in keys:
        raise SystemExit(f"--measured {argument}: no rate {key}; there are {', '.join(keys)}")
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise SystemExit(f"--measured {argument}: {key}: {text.strip() or 'nothing'} is no positive number")
    return dataclasses.replace(rates, **{key: value})
