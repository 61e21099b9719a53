"""Training and scoring real speech on this machine's CPU: tmsearch against the two recipes that people use.

    python tests/bench/cpu.py --model MODEL --dataset FOLDER --folder /tmp/cpu

Same model, clips, batch and evaluation points for all. Steady steps (the median) and one whole evaluation are measured,
each recipe in a process of its own, and 25 steps with one evaluation are composed of them. All evaluations are of the
same tuned weights, since a model that has not learnt when to stop takes longer. WER at 30 s: tests/bench/holds.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from peers import Task, Timed, best_common, seed_recipe
from traffic import bytes_per_step, copy_rate
from transformers import WhisperForConditionalGeneration
from workload import arguments, workload

from search.execution.child_process import ChildProcess
from search.execution.messages import (
    Checked,
    CheckJob,
    Event,
    Failure,
    ProgressEvent,
    SegmentJob,
    SegmentResult,
)
from tmsearch import devices
from tmsearch.cli.services.run_study import THREADS_THAT_SLEEP_SOON
from tmsearch.export import model_folder, weights
from tmsearch.machine import device_speed
from tmsearch.model import cost
from tmsearch.model import whisper as model
from tmsearch.trial.settings import TrialSettings

STEPS = 25
PEERS_STEPS, SEED_STEPS = 7, 5  # measured of the slow ones, the first of which does not count
CPU = torch.device("cpu")


def tmsearch(options: argparse.Namespace) -> dict[str, Any]:
    """As `tmsearch run`'s child trains; leaves the tuned weights for the others to score."""
    work = workload(options)
    config = work.config(max_steps=STEPS)
    result, seen = work.train(config, STEPS)
    whisper = weights.trained_model(config, weights.read(result.checkpoint / weights.WEIGHTS))
    model_folder.export(whisper, options.folder / "tuned")
    again = [work.evaluate(whisper, config) for _ in range(3)]
    seconds = work.speech.context_rule(whisper, config).mean_seconds(
        [clip.seconds for clip in work.speech.corpus.clips]
    )
    ids = work.speech.label_ids([clip.name for clip in work.speech.corpus.clips], whisper)
    tokens = sum(map(len, ids.values())) / len(ids)
    info = model.describe(options.model)
    floor = cost.estimate(info, config, tokens, seconds)
    bf16 = devices.uses_bf16(config, CPU, whisper.model.config.d_model)
    return {
        "steps": [progress.seconds for progress in seen[5:]],
        "evaluation": statistics.median(again),
        "seconds": seconds,
        "flops": floor.flops_per_step,
        "bytes": bytes_per_step(info, config, tokens, seconds),
        "format": "bf16" if bf16 else "float32",
        "products": device_speed.matmul_rate(options.threads, 1.0, bf16),
        "copies": copy_rate(options.threads, 1.0),
    }


def peer(options: argparse.Namespace, run: Callable[[Task, dict[str, torch.Tensor]], Timed]) -> dict[str, Any]:
    work = workload(options)
    split = work.speech.split
    torch.set_num_threads(options.threads)
    transformers.utils.logging.disable_progress_bar()
    tuned = WhisperForConditionalGeneration.from_pretrained(options.folder / "tuned", dtype=torch.float32).state_dict()
    train, validation = work.padded(split.train), work.padded(split.validation)
    longest = max(len(ids) for _, ids in validation)
    task = Task(train, validation, work.start_token(), options.batch_size, 16, int(1.5 * longest) + 8)
    return asdict(run(task, tuned))


RECIPES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "tmsearch": tmsearch,
    "best common, bf16": lambda options: peer(
        options, lambda task, tuned: best_common(lambda: _fresh(options), tuned, task, CPU, PEERS_STEPS)
    ),
    "best common, float32": lambda options: peer(
        options, lambda task, tuned: best_common(lambda: _fresh(options), tuned, task, CPU, PEERS_STEPS, torch.float32)
    ),
    "the seed's": lambda options: peer(
        options,
        lambda task, tuned: seed_recipe(lambda: _fresh(options), tuned, task, CPU, SEED_STEPS, len(task.validation)),
    ),
}


def _fresh(options: argparse.Namespace) -> WhisperForConditionalGeneration:
    return model.load(workload(options).config()).model


def second_trial(options: argparse.Namespace) -> float:
    """Seconds from one trial's end to the first step of the next, of another configuration, in a warm process."""
    data = {"dataset": options.dataset, "validation": options.validation, "test": 32}
    child = ChildProcess(
        [sys.executable, "-m", "tmsearch.trial"], options.folder / "child.log", THREADS_THAT_SLEEP_SOON
    )

    def ask(job: CheckJob | SegmentJob, until: type[Event]) -> Event:
        child.send(job.to_json())
        while True:
            event = child.event(timeout=600)
            if event is None or isinstance(event, Failure):
                raise RuntimeError(f"{event}")
            if isinstance(event, until):
                return event

    checked = ask(CheckJob(data, ({"model": options.model},), measure=False, objective="wer"), Checked)
    settings = TrialSettings(
        data, 3, options.threads, str(options.folder / "mels"), str(options.folder / "tensorboard")
    )
    job = SegmentJob(
        number=0,
        token=1,
        params={"model": options.model, "batch_size": options.batch_size, "warmup_steps": 0, "learning_rate": 1e-5},
        first_step=0,
        last_step=3,
        seed=0,
        folder=str(options.folder / "study/trials/0"),
        facts={"data": checked.data, f"baseline:{options.model}": {"wer": 1.0}},
        settings=settings.to_json(),
    )
    try:
        ask(job, SegmentResult)
        began = time.perf_counter()
        params = {**job.params, "learning_rate": 3e-5}
        job = dataclasses.replace(job, number=1, params=params, folder=str(options.folder / "study/trials/1"))
        first = ask(job, ProgressEvent)
        return time.perf_counter() - began - float(first.seconds or 0.0)
    finally:
        child.close()


def measured(options: argparse.Namespace, recipe: str) -> dict[str, Any]:
    """The recipe in a fresh process, which prints its figures as its last line."""
    environment = {**THREADS_THAT_SLEEP_SOON, **os.environ} if recipe == "tmsearch" else os.environ
    command = [sys.executable, __file__, *sys.argv[1:], "--recipe", recipe]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    parser = arguments(str(__doc__).splitlines()[0])
    parser.add_argument("--recipe", choices=list(RECIPES), help="this one alone, its figures as JSON")
    options = parser.parse_args()
    options.folder = Path(options.folder).resolve()
    if options.recipe:
        print(json.dumps(RECIPES[options.recipe](options)))
        return
    print(
        f"{options.model} on {options.dataset}: batch {options.batch_size}, {options.validation} validation clips, "
        f"{options.threads} threads, torch {torch.__version__}"
    )
    print(f"{'recipe':24}{'a step':>9}{'an evaluation':>15}{'together':>10}{'tmsearch is':>14}")
    own: Timed | None = None
    for recipe in RECIPES:
        figures = measured(options, recipe)
        timed = Timed(tuple(figures["steps"]), figures["evaluation"])
        together = timed.trial(STEPS, 1)
        ratio = f"{together / own.trial(STEPS, 1):.1f} x faster" if own else ""
        print(f"{recipe:24}{timed.step:8.2f}s{timed.evaluation:14.1f}s{together:9.1f}s{ratio:>14}", flush=True)
        if own is None:
            own, own_figures = timed, figures
    assert own is not None
    print(
        f"tmsearch hears {own_figures['seconds']:.1f} s a clip, in {own_figures['format']}; a step is "
        f"{own_figures['flops'] / 1e9:.0f} GFLOP and moves at least {own_figures['bytes'] / 1e9:.2f} GB"
    )
    products, copies = (
        own_figures["flops"] / own.step / own_figures["products"],
        own_figures["bytes"] / own.step / own_figures["copies"],
    )
    print(
        f"this machine: products {own_figures['products'] / 1e9:.0f} GFLOP/s, of which a step reaches {products:.0%}; "
        f"copies {own_figures['copies'] / 1e9:.1f} GB/s, {copies:.0%}"
    )
    print(f"in a warm process the second trial's first step begins {second_trial(options):.2f} s after the first's end")


if __name__ == "__main__":
    main()
