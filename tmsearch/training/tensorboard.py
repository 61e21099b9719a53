"""What TensorBoard shows of a trial while it trains."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from tmsearch.evaluation.scores import ClipScore
from tmsearch.evaluation.worst_clips import markdown_table
from tmsearch.files import write_atomically
from tmsearch.training.state import StepMetrics

METRICS = ("wer", "wer_raw", "cer")
_WORST_CLIPS = 10  # shown as text


class TrialLog:
    """TensorBoard events of one trial, over all its segments.

    Args:
        folder: of the trial's event files.
        first_step: the step that training resumes from; 0 at the start.
        params: the trial's knobs, for the HParams tab.
        choices: the values that the study searches, by knob.
    """

    def __init__(
        self,
        folder: Path,
        first_step: int,
        params: Mapping[str, Any],
        choices: Mapping[str, Sequence[Any]] = MappingProxyType({}),
    ) -> None:
        # Events past `first_step` belong to steps that are done again: they are taken out of the files, and
        # purge_step tells a running TensorBoard to drop what it has read of them.
        drop_events_after(folder, first_step)
        self._writer = SummaryWriter(str(folder), purge_step=first_step + 1)
        if not first_step:
            self._add_params(params, choices)

    def _add_params(self, params: Mapping[str, Any], choices: Mapping[str, Sequence[Any]]) -> None:
        shown = {name: _hparam(value) for name, value in params.items() if value is not None}
        # The HParams tab hides words that are not declared in the first trial's file, so each file declares all.
        domains = {}
        for name, value in shown.items():
            if isinstance(value, str):
                domains[name] = [str(_hparam(choice)) for choice in choices.get(name, [params[name]])]
        experiment, start, _ = hparams(  # type: ignore[no-untyped-call]
            shown, dict.fromkeys(METRICS, 0.0), hparam_domain_discrete=domains
        )
        file_writer = self._writer._get_file_writer()  # type: ignore[no-untyped-call]
        file_writer.add_summary(experiment)
        file_writer.add_summary(start)

    def add_step(self, metrics: StepMetrics) -> None:
        """Adds the metrics of one optimizer step."""
        self._scalar("loss", metrics.loss, metrics.step)
        self._scalar("learning_rate", metrics.learning_rate, metrics.step)
        self._scalar("gradient_norm", metrics.grad_norm, metrics.step)

    def add_evaluation(self, step: int, metrics: Mapping[str, float], clips: Sequence[ClipScore]) -> None:
        """Adds the error rates of an evaluation and the worst clips as text; sounds and pictures come at the end."""
        for name in METRICS:
            self._scalar(name, metrics[name], step)
        if metrics.get("wer_long") is not None:
            self._scalar("wer_long", metrics["wer_long"], step)
        self._writer.add_text("worst_clips", markdown_table(clips, _WORST_CLIPS), step)

    def _scalar(self, tag: str, value: float, step: int) -> None:
        self._writer.add_scalar(tag, value, step)

    def __enter__(self) -> TrialLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()


def has_events(folder: Path) -> bool:
    """Whether a trial's log was begun here."""
    return any(folder.glob("events.out.tfevents.*"))


def drop_events_after(folder: Path, step: int) -> None:
    """Takes the events of later steps out of a trial's event files; for step 0 the files are deleted."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    for file in sorted(folder.glob("events.out.tfevents.*")):
        if not step:
            file.unlink(missing_ok=True)
            continue
        records = list(RawEventFileLoader(str(file)).Load())
        valid = [record for record in records if Event.FromString(record).step <= step]
        if len(valid) < len(records):
            content = io.BytesIO()
            writer = RecordWriter(content)
            for record in valid:
                writer.write(record)
            write_atomically(file, content.getvalue())


def _hparam(value: Any) -> float | str:
    """A knob's value as the HParams tab takes it: numbers sort as numbers, and a switch is a word."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, int | float) else str(value)
