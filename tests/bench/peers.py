"""What people train Whisper with today, written out: the seed's script, and the best that is common.

Both pad every clip to the extractor's 30 s. Both are timed, never scored by their own labels: `tests/bench/holds.py`
compares WER with our own text handling on both sides, so that only speed and context differ.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from torch.nn import functional
from transformers import (
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    WhisperForConditionalGeneration,
)

IGNORED = -100


@dataclass(frozen=True)
class Task:
    """The same clips for everybody. Mels are [n_mels, 3000] float32; label ids begin behind the start token."""

    train: Sequence[tuple[torch.Tensor, Sequence[int]]]
    validation: Sequence[tuple[torch.Tensor, Sequence[int]]]
    start: int
    batch_size: int
    eval_batch_size: int
    max_tokens: int  # new tokens of a hypothesis
    forced: bool = False  # exactly max_tokens, for weights that are random
    learning_rate: float = 2e-5


@dataclass(frozen=True)
class Timed:
    """Seconds: of every measured step, of one whole evaluation; peak GPU memory in bytes, where there is one."""

    steps: tuple[float, ...]
    evaluation: float
    memory: int = 0

    @property
    def step(self) -> float:
        return statistics.median(self.steps)

    def trial(self, steps: int, evaluations: int) -> float:
        """Seconds of a trial composed of steady steps and evaluations."""
        return steps * self.step + evaluations * self.evaluation


def _clock(place: torch.device) -> float:
    if place.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _peak(place: torch.device) -> int:
    return torch.cuda.max_memory_allocated() if place.type == "cuda" else 0


def _generation(task: Task) -> dict[str, Any]:
    return {"max_new_tokens": task.max_tokens, **({"min_new_tokens": task.max_tokens} if task.forced else {})}


class _Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows as datasets hands them out unformatted: nested Python lists."""

    def __init__(self, clips: Sequence[tuple[torch.Tensor, Sequence[int]]], start: int) -> None:
        # The seed's labels keep the start token, so that its decoder sees it twice.
        self.rows = [(mel, [start, *ids]) for mel, ids in clips]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        mel, labels = self.rows[index]
        return {"input_features": mel.tolist(), "labels": labels}


def _collate(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    longest = max(len(row["labels"]) for row in rows)
    labels = [[*row["labels"], *[IGNORED] * (longest - len(row["labels"]))] for row in rows]
    return {
        "input_features": torch.tensor([row["input_features"] for row in rows]),
        "labels": torch.tensor(labels),
    }


class _Clock(TrainerCallback):
    """Times whole steps, batch loading among them, since a user waits for both."""

    def __init__(self, place: torch.device) -> None:
        self.place, self.marks = place, list[float]()

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.marks.append(_clock(self.place))

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.marks.append(_clock(self.place))


def seed_recipe(
    make: Callable[[], WhisperForConditionalGeneration],
    tuned: dict[str, torch.Tensor] | None,
    task: Task,
    place: torch.device,
    steps: int,
    eval_clips: int,
) -> Timed:
    """pauljunsukhan/whisper_finetuning: Seq2SeqTrainer, float32, list features, generation without a key-value cache.

    `steps` are trained; an evaluation of the first `eval_clips` clips, with the weights `tuned`, is timed and scaled
    to all of them.
    """
    model = make()
    model.config.use_cache = False
    model.generation_config.use_cache = False
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    clips = task.validation[:eval_clips]
    with TemporaryDirectory() as folder, _quiet():
        clock = _Clock(place)
        trainer = Seq2SeqTrainer(
            model=model,
            args=Seq2SeqTrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=task.batch_size,
                per_device_eval_batch_size=task.batch_size,
                learning_rate=task.learning_rate,
                max_steps=steps,
                predict_with_generate=True,
                generation_max_length=task.max_tokens,
                save_strategy="no",
                logging_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=place.type == "cpu",
                remove_unused_columns=False,
            ),
            train_dataset=_Rows(task.train, task.start),
            eval_dataset=_Rows(clips, task.start),
            data_collator=_collate,
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        if tuned is not None:
            model.load_state_dict(tuned)
        began = _clock(place)
        trainer.evaluate(**_generation(task))
        evaluation = (_clock(place) - began) * len(task.validation) / len(clips)
    spans = [after - before for before, after in zip(clock.marks, clock.marks[1:], strict=False)]
    return Timed(tuple(spans[1:]), evaluation, _peak(place))


def best_common(
    make: Callable[[], WhisperForConditionalGeneration],
    tuned: dict[str, torch.Tensor] | None,
    task: Task,
    place: torch.device,
    steps: int,
    dtype: torch.dtype = torch.bfloat16,
) -> Timed:
    """A plain loop at 30 s: tensors, autocast, SDPA, fused AdamW; generate() with its key-value cache.

    `dtype` is of the autocast; float32 is none, which is the faster one on some processors.
    """
    model = make()
    torch.nn.Module.to(model, place)
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    optimiser = torch.optim.AdamW(model.parameters(), lr=task.learning_rate, weight_decay=0.0, fused=True)
    autocast = torch.autocast(place.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)
    model.train()
    spans = []
    for step in range(steps):
        began = _clock(place)
        mels, inputs, labels = _batch(task, step, place)
        with autocast:
            logits = model(input_features=mels, decoder_input_ids=inputs, use_cache=False).logits
        loss = functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        spans.append(_clock(place) - began)
    memory = _peak(place)
    del optimiser
    if tuned is not None:
        model.load_state_dict(tuned)
    model.eval()
    began = _clock(place)
    with torch.no_grad(), autocast, _quiet():
        for first in range(0, len(task.validation), task.eval_batch_size):
            mels = torch.stack([mel for mel, _ in task.validation[first : first + task.eval_batch_size]])
            model.generate(mels.to(place), use_cache=True, **_generation(task))
    return Timed(tuple(spans[1:]), _clock(place) - began, memory)


def _batch(task: Task, step: int, place: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    first = step * task.batch_size
    part = [task.train[index % len(task.train)] for index in range(first, first + task.batch_size)]
    longest = max(len(ids) for _, ids in part)
    labels = torch.full((len(part), longest), IGNORED)
    inputs = torch.full((len(part), longest), task.start)
    for row, (_, ids) in enumerate(part):
        labels[row, : len(ids)] = torch.tensor(ids)
        inputs[row, 1 : len(ids)] = torch.tensor(ids[:-1])
    return torch.stack([mel for mel, _ in part]).to(place), inputs.to(place), labels.to(place)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the peers' warnings out of the table: their recipes are quoted as people run them, causes and all."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # the recipes of others keep their faults: what they cost is the table
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)
