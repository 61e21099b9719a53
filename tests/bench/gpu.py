"""Large-v3's training and decoding on this machine's GPU: tmsearch against the two recipes that people use.

    python tests/bench/gpu.py

From a clone, which need not be installed: torch 2.11 or later and transformers 5 are enough (peft for the row with
adapters, accelerate for the seed's), no weights, no network. The shapes are large-v3's, the weights random, the clips 2
to 11 s or all 10 s long, labels and hypotheses 40 tokens. tmsearch's rows go through train(): the memory probe, steady
steps, a checkpoint on the disk, an evaluation of 124 clips; a trial of 800 steps and 4 evaluations is composed of
them. The table is Markdown, for tmsearch/README.md; a row that fails says why and the next one follows; what does not
fit into `--minutes` is left out. `--shapes toy` runs the same on a CPU, to see that it works.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import device_rates
import made_speech
import torch
import transformers
from made_speech import LARGE_V3, TOKENS, TOY, Shapes
from traffic import bytes_per_step

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.evaluation import evaluate
from tmsearch.evaluation.scores import Scores
from tmsearch.model import cost, decoding
from tmsearch.model.context import context_rule
from tmsearch.model.kernels import recorder
from tmsearch.training import micro_batch, train
from tmsearch.training.state import StepMetrics
from tmsearch.training.train import ModelCache, Stretch

STEPS, EVALUATIONS, CLIPS, BATCH = 800, 4, 124, 16
SECONDS = 10  # of the clips of one length
LEAST_SECONDS = 25  # left for a row to be begun
GRACE_SECONDS = 30  # after the time is up, for what cannot be interrupted


class TimeIsUpError(Exception):
    """The benchmark's minutes are over."""


@dataclass(frozen=True)
class Bench:
    """Shapes, device, and how much is measured."""

    shapes: Shapes
    device: torch.device
    clips: int  # to score
    batch: int
    warm_steps: int
    steps: int  # after those, which count
    folder: Path


@dataclass(frozen=True)
class Measured:
    """One recipe: seconds of a step, of an evaluation and of waiting for a checkpoint, and bytes at the peak."""

    step: float
    evaluation: float
    checkpoint: float | None  # None: writes none
    memory: int
    micro_batch: int
    audio_seconds: float  # of all scored clips
    flop: float | None = None  # that a step needs; None: it does more than is needed

    @property
    def trial(self) -> float:
        """Seconds of a trial composed of steady steps and evaluations."""
        return STEPS * self.step + EVALUATIONS * (self.evaluation + (self.checkpoint or 0.0))


def trained(bench: Bench, seconds: str, **knobs: Any) -> Measured:
    """tmsearch's own training of clips of `seconds`, by train() as a trial calls it."""
    lengths = {} if seconds == "mix" else {"context_seconds": float(seconds), "context_step": 0.0}
    usual = {"model": "made", "batch_size": bench.batch, "learning_rate": 1e-6, "warmup_steps": 0}
    config = TrainConfig(**{**usual, **lengths, "max_steps": STEPS, "eval_batch_size": 32, **knobs})
    scored = made_speech.clip_seconds(seconds, bench.clips, 1)
    speech = made_speech.made_speech(bench.shapes, made_speech.clip_seconds(seconds, 4 * bench.batch, 0), scored)
    cache = ModelCache()
    metrics: list[StepMetrics] = []
    with _made_model(bench), tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        limits = micro_batch.find(config, speech, cache)

        def train_to(step: int, checkpoint: Path | None) -> train.Result:
            stretch = Stretch(
                first_step=0,
                last_step=step,
                threads=torch.get_num_threads(),
                micro_batch=limits.micro_batch,
                checkpoint=checkpoint,
                save_to=Path(folder),
                eval_batch=limits.eval_batch,
            )
            return train.train(config, speech, stretch, metrics.append, model_cache=cache)

        warm = train_to(bench.warm_steps, None)
        metrics.clear()
        _reset_peak(bench.device)
        started = time.perf_counter()
        result = train_to(bench.warm_steps + bench.steps, warm.checkpoint)
        whole = time.perf_counter() - started
    spans = [step.seconds for step in metrics]
    info = made_speech.made_info(bench.shapes)
    heard = context_rule(config, info.context_seconds, max(scored)).mean_seconds(scored)
    return Measured(
        step=statistics.median(spans),
        evaluation=result.eval_seconds,
        checkpoint=max(0.0, whole - sum(spans) - result.eval_seconds),
        memory=_peak(bench.device),
        micro_batch=limits.micro_batch,
        audio_seconds=sum(scored),
        flop=cost.estimate(info, config, TOKENS, heard).flops_per_step,
    )


def launched(bench: Bench, seconds: str) -> Measured:
    """`trained`, every step launched kernel by kernel."""
    recorder_for = recorder.recorder_for
    recorder.recorder_for = lambda device: None
    try:
        return trained(bench, seconds)
    finally:
        recorder.recorder_for = recorder_for


@contextmanager
def _made_model(bench: Bench) -> Iterator[None]:
    """Where train() would read a checkpoint it gets random weights; nothing that they say is compared with a text."""
    load = train.model.load
    score = evaluate.score
    loops = decoding.LOOP_TOKENS

    def make(config: TrainConfig) -> Any:
        model = made_speech.made_model(bench.shapes, bench.device)
        devices.move(model, torch.device("cpu"))
        return made_speech.made_whisper(model, bench.shapes)

    train.model.load = make
    evaluate.score = lambda *texts: Scores(0.0, 0.0, 0.0, ())
    decoding.LOOP_TOKENS = 10**9  # random weights loop at once; here every hypothesis has all tokens that it may
    try:
        yield
    finally:
        train.model.load = load
        evaluate.score = score
        decoding.LOOP_TOKENS = loops


def peer(bench: Bench, name: str, steps: int, *more: int) -> Measured:
    """A recipe that people use (peers.py), on clips padded to 30 s."""
    import peers

    noise = torch.Generator().manual_seed(1)
    frames = made_speech.FRAMES_PER_SECOND * SECONDS
    heard = torch.randn(bench.clips, bench.shapes.n_mels, frames, generator=noise)
    mels = torch.nn.functional.pad(heard, (0, 3000 - frames), value=-1.0)
    labels = torch.randint(10, bench.shapes.vocabulary, (bench.clips, TOKENS)).tolist()
    clips = list(zip(mels, labels, strict=True))
    task = peers.Task(clips[: 2 * bench.batch], clips, 1, bench.batch, 32, TOKENS, forced=True)
    measure = getattr(peers, name)
    timed = measure(lambda: made_speech.made_model(bench.shapes, bench.device), None, task, bench.device, steps, *more)
    return Measured(timed.step, timed.evaluation, None, timed.memory, bench.batch, bench.clips * SECONDS)


def rows(bench: Bench, toy: bool) -> dict[str, Callable[[], Measured]]:
    """What is measured, the most wanted first and the compiler last: it may take all of the time that is left."""
    one_length = str(SECONDS)
    return {
        "tmsearch, 2 to 11 s": lambda: trained(bench, "mix"),
        f"tmsearch, {SECONDS} s": lambda: trained(bench, one_length),
        "tmsearch, 2 to 11 s, low memory": lambda: trained(
            bench, "mix", low_memory=True, micro_batch_size=max(1, bench.batch // 4)
        ),
        "tmsearch, 2 to 11 s, without CUDA graphs": lambda: launched(bench, "mix"),
        "tmsearch, 2 to 11 s, for 24 GB": lambda: trained(bench, "mix", low_memory=True, gradient_checkpointing=True),
        "best common": lambda: peer(bench, "best_common", 2 if toy else 6),
        "the seed's": lambda: peer(bench, "seed_recipe", 3 if toy else 4, 2 if toy else 16),
        "tmsearch, 2 to 11 s, LoRA r 32": lambda: trained(bench, "mix", lora_r=32),
        "tmsearch, 2 to 11 s, micro-batch 8": lambda: trained(bench, "mix", micro_batch_size=max(1, bench.batch // 2)),
        f"tmsearch, {SECONDS} s, compiled": lambda: trained(bench, one_length, compile=True),
    }


def guarded(measure: Callable[[], Any], seconds: float) -> Any:
    """What `measure` returns within `seconds`, or why it does not, in one line."""

    def ring(number: int, frame: object) -> None:
        raise TimeIsUpError(f"not done within the {seconds:.0f} s that were left")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(1.0, seconds))
    try:
        measured = measure()
    except Exception as error:
        lines = str(error).strip().splitlines()
        measured = f"failed: {type(error).__name__}: {lines[0][:200] if lines else ''}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    devices.free_memory()  # outside the except block, whose error holds tensors
    return measured


HEAD = "| recipe | micro-batch | a step | of peak | an evaluation | x real time | a checkpoint | a trial | peak |"


def table_row(name: str, measured: Measured | str, peak: float | None) -> str:
    """A line of the table; `peak` in FLOP/s."""
    if isinstance(measured, str):
        return f"| {name} | {measured} |" + " |" * 7
    share = f"{measured.flop / measured.step / peak:.0%}" if measured.flop and peak else ""
    checkpoint = "none" if measured.checkpoint is None else f"{measured.checkpoint:.1f} s"
    memory = f"{measured.memory / 1e9:.1f} GB" if measured.memory else ""
    return (
        f"| {name} | {measured.micro_batch} | {1e3 * measured.step:.0f} ms | {share} | {measured.evaluation:.2f} s | "
        f"{measured.audio_seconds / measured.evaluation:.0f} | {checkpoint} | {measured.trial:.0f} s | {memory} |"
    )


def measured_rates(device: torch.device, seconds: float) -> dict[str, float]:
    """What the device reaches, printed as gpu_model.py takes it; empty where it cannot be measured."""
    rates: dict[str, float] = {}

    def measure() -> None:
        for name, rate in device_rates.measure(device):
            rates[name] = rate

    failure = guarded(measure, seconds)
    print("rates: " + " ".join(f"--measured {name}={rate:.4g}" for name, rate in rates.items()), flush=True)
    if failure:
        print(f"rates: {failure}")
    return rates


def run(bench: Bench, toy: bool, only: Sequence[str] | None, until: float) -> None:
    """Prints everything that can be measured until that time.perf_counter()."""
    place = torch.cuda.get_device_name() if bench.device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{place}, torch {torch.__version__}, transformers {transformers.__version__}, {time.strftime('%Y-%m-%d')}")
    rates = measured_rates(bench.device, until - time.perf_counter())
    info = made_speech.made_info(bench.shapes)
    config = TrainConfig(batch_size=bench.batch)
    floor = cost.estimate(info, config, TOKENS, SECONDS)
    moved = bytes_per_step(info, config, TOKENS, SECONDS)
    print(f"a step of {SECONDS} s: {floor.flops_per_step / 1e12:.2f} TFLOP, at least {moved / 1e9:.1f} GB moved\n")
    print(HEAD)
    print("|---|" + "---:|" * 8, flush=True)
    trials: dict[str, float] = {}
    for name, measure in rows(bench, toy).items():
        if only and name not in only:
            continue
        left = until - time.perf_counter()
        measured = guarded(measure, left) if left > LEAST_SECONDS else "left out: the time is up"
        print(table_row(name, measured, 1e12 * rates.get("peak", 0.0)), flush=True)
        if isinstance(measured, Measured):
            trials[name] = measured.trial
    print_comparison(trials)


def print_comparison(trials: dict[str, float]) -> None:
    """How tmsearch's default compares with what people use, clip for clip of one length."""
    ours = trials.get(f"tmsearch, {SECONDS} s")
    for name in ("best common", "the seed's"):
        if ours and name in trials:
            print(
                f"\ntmsearch's trial of {SECONDS} s clips is {trials[name] / ours:.1f} times as fast as {name} recipe's"
            )


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def _leave(folder: Path) -> None:
    """Ends the program where a row cannot be interrupted, as in a compiler or in a driver that hangs."""
    shutil.rmtree(folder, ignore_errors=True)
    print("\nthe time is up", flush=True)
    os._exit(0)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--shapes", choices=("large-v3", "toy"), default="large-v3")
    parser.add_argument("--only", action="append", help="one row, by its name; may be repeated")
    parser.add_argument("--minutes", type=float, default=10.0, help="that all of it may take (10)")
    parser.add_argument("--folder", help="for checkpoints, 40 GB at a time (the system's temporary folder)")
    said = parser.parse_args(words)
    started = time.perf_counter()
    toy = said.shapes == "toy"
    device = devices.configure_device(torch.get_num_threads())
    folder = Path(tempfile.mkdtemp(prefix="tmsearch-gpu-", dir=said.folder))
    hard_end = threading.Timer(60 * said.minutes + GRACE_SECONDS, _leave, [folder])
    hard_end.daemon = True
    hard_end.start()
    if toy:
        bench = Bench(TOY, device, clips=2, batch=2, warm_steps=1, steps=1, folder=folder)
    else:
        bench = Bench(LARGE_V3, device, clips=CLIPS, batch=BATCH, warm_steps=15, steps=20, folder=folder)
    try:
        run(bench, toy, said.only, started + 60 * said.minutes)
    finally:
        hard_end.cancel()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
