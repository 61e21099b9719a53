"""What large-v3's training and decoding would take on a GPU that is not there: a CPU build of torch plays it.

    python tests/bench/gpu_model.py step                                # a training step of 16 clips of 2 to 11 s
    python tests/bench/gpu_model.py step --seconds 10 --micro-batch 4 --low-memory
    python tests/bench/gpu_model.py step --captured                     # the same, replayed from CUDA graphs
    python tests/bench/gpu_model.py evaluation --eval-batch-size 124
    python tests/bench/gpu_model.py host                                # the host's own time for a step, on this CPU
    python tests/bench/gpu_model.py probe                               # what the memory probe sees, and what is taken
    python tests/bench/gpu_model.py costs                               # the figures of model/cost.py, anew
    python tests/bench/gpu_model.py spaces                              # what it predicts for the spaces, and is played
    python tests/bench/gpu_model.py all                                 # the table of studies/README.md

Launches, bytes and waits are counted on the project's own code, which runs on fake tensors; times are modelled, by the
rates of tests/bench/gpu_player/rates.py, which are assumptions. `--measured FILE` or `--measured key=value` puts a real
machine's rates in. Needs torch, transformers, and once a C++ compiler; no GPU, no weights, no network.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.gpu_player import guard, rates
from tests.bench.gpu_player.shapes import SHAPES

PLAYS = ("step", "evaluation", "host", "probe", "costs", "spaces", "all")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("play", choices=PLAYS, help="what is played")
    parser.add_argument("--model", choices=list(SHAPES), default="large-v3", help="shapes (large-v3)")
    parser.add_argument("--layers", type=int, help="of encoder and decoder each, in place of the model's")
    parser.add_argument("--batch-size", type=int, default=16, help="clips a step (16)")
    parser.add_argument("--micro-batch", type=int, default=0, help="clips a forward pass (the batch)")
    parser.add_argument("--eval-batch-size", type=int, default=32, help="clips decoded together (32)")
    parser.add_argument("--clips", type=int, default=124, help="of an evaluation (124)")
    parser.add_argument("--seconds", default="mix", help="of every clip, or mix: 2 to 11 (mix)")
    parser.add_argument("--low-memory", action="store_true", help="bf16 weights and moments")
    parser.add_argument("--captured", action="store_true", help="a step whose layers are replayed from CUDA graphs")
    parser.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE", help="any other knob, as a number")
    parser.add_argument("--device", choices=list(rates.DEVICES), default="H200", help="whose rates (H200)")
    parser.add_argument("--measured", action="append", default=[], metavar="FILE or KEY=VALUE", help="in their place")
    parser.add_argument("--rows", type=int, default=20, help="of the table of operators (20)")
    return parser.parse_args()


def main() -> None:
    said = arguments()
    device = rates.with_measured(rates.DEVICES[said.device], said.measured)
    shapes = SHAPES[said.model]
    if said.layers:
        shapes = dataclasses.replace(shapes, encoder_layers=said.layers, decoder_layers=said.layers)
    if said.play != "host":
        guard.load()
    from tests.bench.gpu_player import plays  # imports torch, which the guard must precede

    plays.play(said, shapes, device)


if __name__ == "__main__":
    main()
