"""The plays that gpu_model.py prints. The guard must have been loaded, but for `host`."""

from __future__ import annotations

import argparse
import dataclasses
import time

import torch

from tests.bench.gpu_player import costs, evaluation, fake_cuda, host, probing, training
from tests.bench.gpu_player.evaluation import EvaluationPlayed
from tests.bench.gpu_player.rates import Rates
from tests.bench.gpu_player.shapes import Shapes
from tests.bench.gpu_player.training import StepPlayed
from tmsearch.config import TrainConfig
from tmsearch.model import cost

CARDS = (24, 40, 80)  # GB that the memory probe is played on
HOST_GROUPS = (1, 12)  # a batch of one length, and of many as a mix has them


def step_text(played: StepPlayed, rates: Rates) -> str:
    total = played.total
    optimizer = total.since(played.gradients)
    ideal = total.flop / (rates.peak * 1e12)
    waits = ", ".join(f"{line} {count} times" for line, count in played.waits.items()) or "none"
    return (
        f"  {total.launches:,} launches, {1e3 * total.seconds:.1f} ms on the device, peak {played.peak_bytes / 1e9:.1f}"
        f" GB; groups of lengths {', '.join(map(str, played.groups))}\n"
        f"  forward and backward {played.gradients.launches:,} launches, {1e3 * played.gradients.seconds:.1f} ms; "
        f"clipping and AdamW {optimizer.launches:,} launches, {1e3 * optimizer.seconds:.1f} ms\n"
        f"  {total.flop / 1e12:.1f} TFLOP, {ideal / total.seconds:.0%} of {rates.peak:g} TFLOP/s; launching takes the "
        f"host {1e-3 * total.launches * rates.launch:.0f} ms at {rates.launch:g} us\n"
        f"  weights {played.weights_bytes / 1e9:.1f} GB, between two steps {played.live_bytes / 1e9:.1f} GB; attention "
        f"{dict(played.attention)}; host waits: {waits}"
    )


def evaluation_text(played: EvaluationPlayed) -> str:
    lines = []
    for batch in played.batches:
        waits = ", ".join(f"{line} {count} times" for line, count in batch.waits.items()) or "none"
        lines.append(
            f"  {batch.clips} clips in {batch.groups} groups: encoding {batch.encoding.launches:,} launches "
            f"{1e3 * batch.encoding.seconds:.1f} ms, prompt {batch.prompt.launches:,} launches, a token "
            f"{batch.token.launches:,} launches {1e3 * batch.token.seconds:.2f} ms; peak "
            f"{batch.peak_bytes / 1e9:.1f} GB; host waits in a token: {waits}"
        )
    rate = played.audio_seconds / played.seconds
    lines.append(f"  {played.seconds:.2f} s for {played.audio_seconds:.0f} s of audio: {rate:,.0f} x real time")
    return "\n".join(lines)


def play_step(said: argparse.Namespace, shapes: Shapes, config: TrainConfig, device: Rates) -> None:
    settings = {"rows": said.rows, "is_captured": said.captured}
    played = training.step(shapes, config, device, said.seconds, said.micro_batch, **settings)
    print(f"a training step: {said.model}, {config.batch_size} clips, seconds {said.seconds}, {said.device}")
    print(step_text(played, device))
    if said.rows:
        print(played.table)


def play_evaluation(said: argparse.Namespace, shapes: Shapes, config: TrainConfig, device: Rates) -> None:
    played = evaluation.evaluation(shapes, config, device, said.seconds, said.clips, said.rows)
    print(f"an evaluation: {said.model}, {said.clips} clips, seconds {said.seconds}, {said.device}")
    print(evaluation_text(played))
    if said.rows:
        print("  a token of the first batch:")
        print(played.batches[0].table)


def play_host(said: argparse.Namespace, shapes: Shapes, config: TrainConfig, device: Rates) -> None:
    half = dataclasses.replace(config, precision="bf16")  # on this CPU as well
    ways = (
        ("modules", dataclasses.replace(half, compile=False), False),
        ("fused kernels", half, False),
        ("CUDA graphs", half, True),
    )
    for way, knobs, is_captured in ways:
        for groups in HOST_GROUPS:
            spent = host.milliseconds(knobs, groups, is_captured=is_captured)
            print(
                f"the host's own time for a step, {groups} lengths, {way}: {spent['step']:.0f} ms, of which forward "
                f"and backward {spent['gradients']:.0f} (this CPU, a narrow model, AdamW not grouped)",
                flush=True,
            )


def play_probe(said: argparse.Namespace, shapes: Shapes, config: TrainConfig, device: Rates) -> None:
    for gigabytes in CARDS:
        try:
            promise = probing.promise(shapes, config, device, gigabytes)
        except torch.OutOfMemoryError:
            print(f"{gigabytes} GB: does not fit")
            continue
        print(
            f"{gigabytes} GB: micro-batch {promise.limits.micro_batch}, seen {promise.probed_step / 1e9:.1f} GB, "
            f"taken {promise.step / 1e9:.1f}; {promise.limits.eval_batch} clips decoded together, seen "
            f"{promise.probed_evaluation / 1e9:.1f} GB, taken {promise.evaluation / 1e9:.1f}",
            flush=True,
        )


def play_all(said: argparse.Namespace, shapes: Shapes, config: TrainConfig, device: Rates) -> None:
    low_memory = TrainConfig(batch_size=config.batch_size, low_memory=True)
    rows = [("mix", config, 0), ("10", config, 0), ("mix", low_memory, 4), ("10", low_memory, 4)]
    for seconds, knobs, micro_batch in rows:
        played = training.step(shapes, knobs, device, seconds, micro_batch, rows=0)
        memory = "low memory" if knobs.low_memory else "full"
        print(f"a step, seconds {seconds}, {memory}, micro-batch {micro_batch or knobs.batch_size}")
        print(step_text(played, device))
    for size in (32, 124):
        knobs = TrainConfig(eval_batch_size=size)
        print(f"an evaluation in batches of {size}")
        print(evaluation_text(evaluation.evaluation(shapes, knobs, device, rows=0)))


def play_costs(said: argparse.Namespace, shapes: Shapes, config: TrainConfig, device: Rates) -> None:
    for name, value in costs.fitted(device).items():
        print(f"{name} = {value:.4g}  # cost.py has {getattr(cost, name):.4g}", flush=True)


def play_spaces(said: argparse.Namespace, shapes: Shapes, config: TrainConfig, device: Rates) -> None:
    for setting in costs.SETTINGS:
        print(costs.comparison(setting, device), flush=True)


PLAYS = {
    "step": play_step,
    "evaluation": play_evaluation,
    "host": play_host,
    "probe": play_probe,
    "costs": play_costs,
    "spaces": play_spaces,
    "all": play_all,
}


def play(said: argparse.Namespace, shapes: Shapes, device: Rates) -> None:
    """Plays and prints what `said` asks for."""
    knobs = {}
    for text in said.set:
        key, _, value = text.partition("=")
        knobs[key] = float(value) if "." in value else int(value)
    config = TrainConfig(
        batch_size=said.batch_size, eval_batch_size=said.eval_batch_size, low_memory=said.low_memory, **knobs
    )
    if said.play != "host":
        fake_cuda.install()
    started = time.perf_counter()
    PLAYS[said.play](said, shapes, config, device)
    print(f"played in {time.perf_counter() - started:.0f} s with torch {torch.__version__}")
