"""What the played GPU shows of the CUDA path, as JSON: for tests, which cannot load the guard where torch is loaded.

python tests/bench/played_facts.py
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.gpu_player import guard

guard.load()

from tests.bench.gpu_player import costs, evaluation, fake_cuda, rates, training
from tests.bench.gpu_player.shapes import SHAPES, Shapes
from tmsearch.config import TrainConfig

H200 = rates.DEVICES["H200"]
# What spaces and README name where memory is short, each for a batch of 16 at once.
SETTINGS: dict[str, dict[str, object]] = {
    "low_memory": {"low_memory": True},
    "both": {"low_memory": True, "gradient_checkpointing": True},
    "lora_r: 32": {"lora_r": 32},
}


def shapes(layers: int) -> Shapes:
    """Large-v3's, with few layers: what a layer adds is told by the difference of two."""
    return dataclasses.replace(SHAPES["large-v3"], encoder_layers=layers, decoder_layers=layers)


def setting(knobs: dict[str, object]) -> dict[str, object]:
    """Peak and seconds of a step under `knobs`, by layers, and what the model of cost says of large-v3."""
    config = TrainConfig(**knobs)  # type: ignore[arg-type]
    steps = {layers: training.step(shapes(layers), config, H200, steps=2) for layers in (1, 2)}
    predicted = costs.predicted(SHAPES["large-v3"], config, H200)
    return {
        "peak_bytes": {layers: played.peak_bytes for layers, played in steps.items()},
        "seconds": {layers: played.total.seconds for layers, played in steps.items()},
        "predicted_bytes": predicted[0],
        "predicted_seconds": predicted[1],
    }


def facts() -> dict[str, object]:
    """Of steps of 16 clips of 2 to 11 s, and of an evaluation of 12 in two batches."""
    fake_cuda.install()
    steps = {layers: training.step(shapes(layers), TrainConfig(), H200, steps=2) for layers in (1, 2)}
    replayed = {layers: training.step(shapes(layers), TrainConfig(), H200, is_captured=True) for layers in (1, 2)}
    low = training.step(shapes(1), TrainConfig(low_memory=True), H200, micro_batch=8, steps=2)
    scored = {
        layers: evaluation.evaluation(shapes(layers), TrainConfig(eval_batch_size=6), H200, clips=12)
        for layers in (1, 2)
    }
    predicted = costs.predicted(SHAPES["large-v3"], TrainConfig(), H200)
    return {
        "settings": {name: setting(knobs) for name, knobs in SETTINGS.items()},
        "seconds": {layers: played.total.seconds for layers, played in steps.items()},
        "predicted_bytes": predicted[0],
        "predicted_seconds": predicted[1],
        "rounding_launches": low.total.since(low.gradients).launches,
        "waits": [dict(played.waits) for played in (*steps.values(), *replayed.values(), low)],
        "groups": steps[1].groups,
        "launches": {layers: played.gradients.launches for layers, played in steps.items()},
        "peak_bytes": {layers: played.peak_bytes for layers, played in steps.items()},
        "replayed_launches": [played.gradients.launches for played in replayed.values()],
        "attention": dict(steps[2].attention),
        "token_launches": {layers: played.batches[0].token.launches for layers, played in scored.items()},
        "token_waits": [dict(batch.waits) for played in scored.values() for batch in played.batches],
        "captured": [batch.is_captured for batch in scored[2].batches],
    }


if __name__ == "__main__":
    print(json.dumps(facts()))
