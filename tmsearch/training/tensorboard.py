"""What TensorBoard shows of a trial."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from tmsearch.evaluation.scores import ClipScore, worst_first
from tmsearch.quoting import markdown
from tmsearch.training.train import StepMetrics

METRICS = ("wer", "wer_raw", "cer")
_CLIPS = 10  # of the worst, as text


class TrialLog:
    """TensorBoard events of one trial, over all its segments. `choices` are what its study chooses from, by knob."""

    def __init__(
        self,
        folder: Path,
        first_step: int,
        params: Mapping[str, Any],
        choices: Mapping[str, Sequence[Any]] = MappingProxyType({}),
    ) -> None:
        # Events past the point from which training goes on belong to steps that are done again: taken out of the files,
        # and a TensorBoard that has them already is told so.
        forget(folder, first_step)
        self._writer = SummaryWriter(str(folder), purge_step=first_step + 1)
        if not first_step:
            shown = {key: _shown(value) for key, value in params.items() if value is not None}
            # Words that are not on the list are filtered away: each trial's file has those of all.
            words = {key: choices.get(key, [params[key]]) for key, one in shown.items() if isinstance(one, str)}
            listed = {key: [str(_shown(one)) for one in values] for key, values in words.items()}
            experiment, start, _ = hparams(  # type: ignore[no-untyped-call]
                shown, dict.fromkeys(METRICS, 0.0), hparam_domain_discrete=listed
            )
            self._writer._get_file_writer().add_summary(experiment)  # type: ignore[no-untyped-call]
            self._writer._get_file_writer().add_summary(start)  # type: ignore[no-untyped-call]

    def progress(self, progress: StepMetrics) -> None:
        self._scalar("loss", progress.loss, progress.step)
        self._scalar("learning_rate", progress.learning_rate, progress.step)
        self._scalar("gradient_norm", progress.grad_norm, progress.step)

    def rung(self, step: int, metrics: Mapping[str, float], clips: Sequence[ClipScore]) -> None:
        """An evaluation: its rates, and the worst clips to read. Sounds and pictures come when the trial has ended."""
        for name in METRICS:
            self._scalar(name, metrics[name], step)
        self._writer.add_text("worst_clips", _worst(clips), step)

    def _scalar(self, tag: str, value: float, step: int) -> None:
        self._writer.add_scalar(tag, value, step)

    def __enter__(self) -> TrialLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()


def forget(folder: Path, step: int) -> None:
    """Take what comes after `step` out of a training's event files; of 0 nothing is left."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    for file in sorted(folder.glob("events.out.tfevents.*")):
        if not step:
            file.unlink(missing_ok=True)
            continue
        records = list(RawEventFileLoader(str(file)).Load())
        kept = [one for one in records if Event.FromString(one).step <= step]
        if len(kept) < len(records):
            scratch = folder / f".{os.getpid()}"
            with scratch.open("wb") as stream:
                writer = RecordWriter(stream)
                for one in kept:
                    writer.write(one)
            scratch.replace(file)


def _shown(value: Any) -> float | str:
    """As the HParams tab has it: numbers are sorted as such, and a switch is a word."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)


def _worst(clips: Sequence[ClipScore]) -> str:
    """A Markdown table."""
    rows = ["| clip | errors | words | said | heard |", "|---|---|---|---|---|"]
    for one in worst_first(clips)[:_CLIPS]:
        texts = f"{markdown(one.reference)} | {markdown(one.hypothesis)}"
        rows.append(f"| {markdown(one.name)} | {one.edits} | {one.words} | {texts} |")
    return "\n".join(rows)
