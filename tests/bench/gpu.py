"""Large-v3's training and decoding on this machine's GPU: tmsearch against the two recipes that people use.

    python tests/bench/gpu.py

Needs torch and transformers only, no weights and no network: the shapes are large-v3's, the weights random, the clips
10 s long, labels and hypotheses 40 tokens. Steady steps and whole evaluations are measured, and a trial of 800 steps
and 32 evaluations of 124 clips is composed of them. Every row prints as soon as it is known; all take under 10 minutes.
`--shapes toy` runs the same in a minute on a CPU, to see that it works.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import peers
import torch
from peers import Task, Timed
from traffic import bytes_per_step, copy_rate
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.model import cost, decoding, trainable
from tmsearch.model.decoding import Decoder
from tmsearch.model.forward import MicroBatch
from tmsearch.model.whisper import ModelInfo, Whisper
from tmsearch.training.step import Stepper

STEPS, EVALUATIONS, CLIPS, SECONDS, TOKENS, BATCH = 800, 32, 124, 10, 40, 16
LARGE_V3 = {"d_model": 1280, "layers": 32, "heads": 20, "n_mels": 128, "vocabulary": 51_866}
TOY = {"d_model": 64, "layers": 2, "heads": 2, "n_mels": 80, "vocabulary": 600}
START, STOP = 1, 2  # token ids of the random model


@dataclass(frozen=True)
class Bench:
    """Shapes, device, and how much is measured."""

    shapes: dict[str, int]
    place: torch.device
    clips: int
    batch: int
    steps: int

    def model(self) -> WhisperForConditionalGeneration:
        """Random weights, made where they are used."""
        width, layers, heads = self.shapes["d_model"], self.shapes["layers"], self.shapes["heads"]
        settings = WhisperConfig(
            vocab_size=self.shapes["vocabulary"],
            num_mel_bins=self.shapes["n_mels"],
            d_model=width,
            encoder_layers=layers,
            decoder_layers=layers,
            encoder_attention_heads=heads,
            decoder_attention_heads=heads,
            encoder_ffn_dim=4 * width,
            decoder_ffn_dim=4 * width,
            decoder_start_token_id=START,
            bos_token_id=STOP,
            eos_token_id=STOP,
            pad_token_id=STOP,
            suppress_tokens=None,
            begin_suppress_tokens=None,
        )
        torch.manual_seed(0)
        with self.place:
            model = WhisperForConditionalGeneration._from_config(
                settings, attn_implementation="sdpa", dtype=torch.float32
            )
        model.generation_config = GenerationConfig(
            bos_token_id=STOP,
            eos_token_id=STOP,
            pad_token_id=STOP,
            decoder_start_token_id=START,
            max_length=448,
            is_multilingual=False,
            no_timestamps_token_id=3,
            return_timestamps=False,
            suppress_tokens=[STOP],
        )
        return model

    def whisper(self) -> Whisper:
        class Tokens:  # all that is asked of a tokenizer here
            def convert_tokens_to_ids(self, token: str) -> int:
                return STOP

            def convert_ids_to_tokens(self, index: int) -> str:
                return "<|endoftext|>"

        return Whisper(self.model(), cast(Any, Tokens()), cast(Any, None), "random", False, 1500)

    def mels(self, clips: int, frames: int) -> torch.Tensor:
        rng = torch.Generator().manual_seed(1)
        heard = torch.randn(clips, self.shapes["n_mels"], min(frames, 100 * SECONDS), generator=rng)
        return torch.nn.functional.pad(heard, (0, frames - heard.shape[2]), value=-1.0)

    def task(self, clips: int) -> Task:
        labels = torch.randint(10, self.shapes["vocabulary"], (clips, TOKENS)).tolist()
        padded = [(mel, ids) for mel, ids in zip(self.mels(clips, 3000), labels, strict=True)]
        return Task(padded[: 2 * self.batch], padded, START, self.batch, 32, TOKENS, forced=True)

    def facts(self) -> ModelInfo:
        with torch.device("meta"):
            outline = Bench(self.shapes, torch.device("meta"), 0, 0, 0).model()
        layers, width = self.shapes["layers"], self.shapes["d_model"]
        count = sum(weight.numel() for weight in outline.parameters())
        return ModelInfo(
            "random",
            count,
            width,
            2 * layers,
            30.0,
            self.shapes["n_mels"],
            True,
            layers,
            layers,
            4 * width,
            4 * width,
            self.shapes["vocabulary"],
            448,
        )


def ours(bench: Bench, config: TrainConfig) -> Timed:
    """tmsearch's own step and evaluation; one read of the losses for all measured steps, as its loop is one behind."""
    whisper = bench.whisper()
    trainable.prepare(whisper, config)
    devices.move(whisper.model, bench.place, torch.bfloat16 if config.low_memory else None)
    updates = Stepper(whisper, config, bench.place)
    size = config.micro_batch_size or bench.batch
    mels = bench.mels(bench.batch, 100 * SECONDS).to(bench.place)
    inputs = torch.randint(10, bench.shapes["vocabulary"], (bench.batch, TOKENS), device=bench.place)
    kept = torch.arange(size * TOKENS, device=bench.place)

    def batch() -> Iterator[MicroBatch]:
        for first in range(0, bench.batch, size):
            part = inputs[first : first + size]
            yield MicroBatch((mels[first : first + size],), part, kept, part.flatten(), bench.batch * TOKENS)

    if bench.place.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for step in range(1, 5):  # compiles, fills caches
        updates.launch(step, batch()).measured.tolist()
    began = time.perf_counter()
    for step in range(5, 5 + bench.steps):
        measured = updates.launch(step, batch()).measured
    measured.tolist()
    step_seconds = (time.perf_counter() - began) / bench.steps
    memory = torch.cuda.max_memory_allocated() if bench.place.type == "cuda" else 0
    del updates
    release()
    whisper.model.eval()
    heard = bench.mels(bench.clips, 100 * SECONDS)
    spans = []
    for _ in range(3):  # the first is slower: kernels are chosen; it counts as one of 32 would
        began = time.perf_counter()
        with devices.autocast(config, bench.place, bench.shapes["d_model"]):
            decoder = Decoder(whisper)
            for first in range(0, bench.clips, config.eval_batch_size):
                said = decoder.greedy([heard[first : first + config.eval_batch_size]], [START], TOKENS)
                assert all(len(one.ids) == TOKENS for one in said)
        spans.append(time.perf_counter() - began)
    return Timed((step_seconds,), sorted(spans)[1], memory)


def release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def rows(bench: Bench, fewer: int) -> dict[str, Callable[[], Timed]]:
    """What is measured, fast ones first."""
    usual: dict[str, Any] = {"batch_size": bench.batch, "context_seconds": float(SECONDS), "context_step": 0.0}
    usual |= {"learning_rate": 1e-6, "warmup_steps": 0, "eval_batch_size": bench.clips}
    return {
        "tmsearch": lambda: ours(bench, TrainConfig(**usual)),
        "tmsearch, compiled": lambda: ours(bench, TrainConfig(**usual, compile=True)),
        "tmsearch, micro-batch 8": lambda: ours(bench, TrainConfig(**usual, micro_batch_size=bench.batch // 2)),
        "tmsearch, low memory": lambda: ours(
            bench, TrainConfig(**usual, low_memory=True, micro_batch_size=bench.batch // 4)
        ),
        "best common": lambda: peers.best_common(bench.model, None, bench.task(bench.clips), bench.place, 6),
        "the seed's": lambda: peers.seed_recipe(bench.model, None, bench.task(bench.clips), bench.place, 4, fewer),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--shapes", choices=("large-v3", "toy"), default="large-v3")
    parser.add_argument("--only", help="one row, by its name")
    said = parser.parse_args()
    toy = said.shapes == "toy"
    place = devices.configure_device(torch.get_num_threads())
    # Random weights loop at once; here every hypothesis is to have its 40 tokens.
    decoding.LOOP_TOKENS = 10**9
    bench = Bench(TOY if toy else LARGE_V3, place, 4 if toy else CLIPS, 4 if toy else BATCH, 2 if toy else 20)
    name = torch.cuda.get_device_name() if place.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    cores = cost.matmul_rate(torch.get_num_threads(), 1.0, bf16=True)
    copies = copy_rate(torch.get_num_threads())
    config = TrainConfig(batch_size=bench.batch)
    floor = cost.estimate(bench.facts(), config, TOKENS, SECONDS)
    moved = bytes_per_step(bench.facts(), config, TOKENS, SECONDS)
    print(f"{name}, torch {torch.__version__}")
    print(f"bf16 products {cores / 1e12:.2f} TFLOP/s, copies {copies / 1e12:.2f} TB/s")
    print(f"a step: {floor.flops_per_step / 1e12:.2f} TFLOP, at least {moved / 1e9:.1f} GB moved")
    print(f"{'recipe':26}{'step':>9}{'of peak':>9}{'evaluation':>12}{'x real time':>13}{'a trial':>10}{'peak':>9}")
    known: dict[str, float] = {}
    for recipe, measure in rows(bench, 4 if toy else 16).items():
        if said.only not in (None, recipe):
            continue
        timed = measure()
        release()
        known[recipe] = timed.trial(STEPS, EVALUATIONS)
        # The peers train at 30 s: their share of the peak is of the work that they do, not of what is needed.
        share = "" if recipe in ("best common", "the seed's") else f"{floor.flops_per_step / timed.step / cores:.0%}"
        print(
            f"{recipe:26}{timed.step:8.3f}s{share:>9}{timed.evaluation:11.2f}s"
            f"{bench.clips * SECONDS / timed.evaluation:13.0f}{known[recipe]:9.0f}s{timed.memory / 1e9:6.1f} GB",
            flush=True,
        )
    mine = min((seconds for recipe, seconds in known.items() if recipe.startswith("tmsearch")), default=None)
    for peer in ("best common", "the seed's"):
        if mine and peer in known:
            print(f"tmsearch's fastest trial is {known[peer] / mine:.1f} times as fast as {peer} recipe's")


if __name__ == "__main__":
    main()
