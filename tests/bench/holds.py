"""Does a trial at trimmed context say what the exported model does at 30 s? WER by seed, and ranks over configurations.

    python tests/bench/holds.py --model MODEL --dataset FOLDER --folder /tmp/holds

Every model is trained by tmsearch, so that only the context differs, and scored twice: as a trial is, and padded to all
that the checkpoint hears, as its users do. Results are kept in --folder: run again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from workload import Workload, arguments, workload

from tmsearch.config import TrainConfig
from tmsearch.evaluation import evaluate
from tmsearch.export import weights
from tmsearch.training.state import fingerprint

CONTEXTS: dict[str, dict[str, Any]] = {
    "own, thinned silence": {},
    "own, silence cut off": {"context_silence": False},
    "longest, silence cut": {"context_step": 0.0, "context_silence": False},
    "30 s": {"context_seconds": 30.0, "context_step": 0.0},
}
# Good, poor and failing ones, so that there is something to rank: one knob or two off the usual recipe.
CONFIGURATIONS: tuple[dict[str, Any], ...] = (
    {"learning_rate": 2e-6},
    {"learning_rate": 5e-6},
    {"learning_rate": 1e-5},
    {"learning_rate": 2e-5},
    {"learning_rate": 6e-5},
    {"learning_rate": 1.5e-4},
    {"learning_rate": 4e-4},
    {"learning_rate": 1e-5, "normalize_audio": True},
    {"normalize_audio": True, "warmup_steps": 0},
    {"freeze_encoder": True},
    {"freeze_encoder_layers": 2, "learning_rate": 6e-5},
    {"label_smoothing": 0.15, "dropout": 0.1},
    {"spec_time_masks": 2, "spec_freq_masks": 2},
    {"batch_size": 2, "learning_rate": 1e-5},
)


def ranks(values: list[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """1 for the smallest; equal values share the mean of their ranks."""
    array = np.array(values)
    return np.array([(array < value).sum() + ((array == value).sum() + 1) / 2 for value in array])


def spearman(first: list[float], second: list[float]) -> float:
    """Rank correlation (Spearman 1904), ties by mean rank."""
    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def scored(work: Workload, config: TrainConfig, steps: int, kept: Path) -> tuple[float, float]:
    """WER as the trial has it, and at all that the checkpoint hears."""
    file = kept / f"{fingerprint(config)[:24]}-{steps}.json"
    if not file.exists():
        result, _ = work.train(config, steps)
        whisper = weights.trained_model(config, weights.read(result.checkpoint / weights.WEIGHTS))
        full, _ = evaluate.evaluate(whisper, work.speech, work.speech.split.validation, config, context="full")
        file.write_text(json.dumps([result.wer, full.wer]))
    trimmed, whole = json.loads(file.read_text())
    return trimmed, whole


def main() -> None:
    parser = arguments(str(__doc__).splitlines()[0])
    parser.add_argument("--steps", type=int, default=40, help="steps of each training (40)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each context (3); 0: ranks only")
    options = parser.parse_args()
    work, kept = workload(options), options.folder / "wer"
    kept.mkdir(parents=True, exist_ok=True)
    if options.seeds:
        by_context(work, options, kept)
    pairs = []
    for knobs in CONFIGURATIONS:
        config = work.config(**{"max_steps": options.steps, **knobs})
        pairs.append(scored(work, config, options.steps, kept))
        print(f"{pairs[-1][0]:.4f} trimmed, {pairs[-1][1]:.4f} at 30 s: {knobs}", flush=True)
    print(f"rank correlation over {len(pairs)} configurations: {spearman(*map(list, zip(*pairs, strict=True))):.3f}")


def by_context(work: Workload, options: argparse.Namespace, kept: Path) -> None:
    """Prints a line of WERs for each way of hearing a clip."""
    print(f"{'context':20} {'WER as the trial has it':>30} {'WER at 30 s':>30}   mean at 30 s (spread)")
    for name, knobs in CONTEXTS.items():
        configs = [work.config(max_steps=options.steps, seed=seed, **knobs) for seed in range(options.seeds)]
        rates = [scored(work, config, options.steps, kept) for config in configs]
        trimmed = [f"{rate:.4f}" for rate, _ in rates]
        whole = [f"{rate:.4f}" for _, rate in rates]
        values = [rate for _, rate in rates]
        print(
            f"{name:20} {' '.join(trimmed):>30} {' '.join(whole):>30}   "
            f"{np.mean(values):.4f} ({np.std(values, ddof=1) if len(values) > 1 else 0:.4f})"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
