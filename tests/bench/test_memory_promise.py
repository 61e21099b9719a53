"""What the memory probe promises, on played GPUs of three sizes: fake tensors count every byte, without a GPU."""

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
played = []
for gigabytes, low_memory in json.loads(sys.argv[1]):
    config = TrainConfig(batch_size=8, eval_batch_size=32, low_memory=low_memory)
    promise = probing.promise(shapes, config, rates.DEVICES["H200"], gigabytes)
    played.append(dataclasses.asdict(promise))
print(json.dumps(played))
"""
# Large-v3 with one layer of 32 in its encoder and in its decoder, on cards that are smaller accordingly.
CARDS = [(2.4, False), (4.0, False), (1.6, True)]


def test_what_the_probe_finds_is_what_training_and_evaluation_take():
    reason = guard.missing()
    if reason:
        pytest.skip(reason)
    command = [sys.executable, "-c", PLAY, json.dumps(CARDS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    played = json.loads(done.stdout)
    found = [promise["limits"]["micro_batch"] for promise in played]
    assert found[0] < found[1], "a larger card takes more clips"
    assert found[1] == 8
    assert found[2] > 1, "half of the memory for weights and moments"
    for (gigabytes, _), promise in zip(CARDS, played, strict=True):
        assert promise["probed_step"] <= 0.85e9 * gigabytes
        assert promise["step"] <= promise["probed_step"], "two backward passes and the moments are seen"
        assert promise["step"] > 0.75 * promise["probed_step"], "and no more than is taken"
        assert promise["evaluation"] <= promise["probed_evaluation"] <= 0.85e9 * gigabytes
