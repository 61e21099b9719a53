"""What the memory probe promises, on a played GPU: fake tensors count every byte, without a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.gpu_player import guard

ROOT = Path(__file__).parents[2]
PLAY = """
import dataclasses, json, sys
from tests.bench.gpu_player import guard, rates
from tests.bench.gpu_player.shapes import SHAPES

guard.load()
from tests.bench.gpu_player import fake_cuda, probing
from tmsearch.config import TrainConfig

fake_cuda.install()
shapes = dataclasses.replace(SHAPES["large-v3"], encoder_layers=1, decoder_layers=1)
config = TrainConfig(batch_size=16, eval_batch_size=32)
promise = probing.promise(shapes, config, rates.DEVICES["H200"], float(sys.argv[1]))
print(json.dumps(dataclasses.asdict(promise)))
"""
# Large-v3 with one layer of 32 in its encoder and in its decoder, on a card that is smaller accordingly; 24, 40 and 80
# GB and the whole model are played by `gpu_model.py probe`, which takes minutes.
GIGABYTES = 3.0


def test_what_the_probe_finds_is_what_training_and_evaluation_take():
    reason = guard.missing()
    if reason:
        pytest.skip(reason)
    command = [sys.executable, "-c", PLAY, str(GIGABYTES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    promise = json.loads(done.stdout)
    safe = 0.85e9 * GIGABYTES
    assert 1 < promise["limits"]["micro_batch"] < 16
    assert 1 < promise["limits"]["eval_batch"] < 32
    assert promise["step"] <= promise["probed_step"] <= safe, "two backward passes and the moments are seen"
    assert promise["step"] > 0.75 * promise["probed_step"], "and no more than is taken"
    assert promise["evaluation"] <= 1.01 * promise["probed_evaluation"] <= 1.01 * safe
    assert promise["kept"] < 1e6, "the next training finds nothing of an evaluation"
