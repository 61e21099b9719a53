"""What TensorBoard shows of a trial."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from tmsearch.training import Progress

METRICS = ("wer", "wer_raw", "cer")


class Logbook:
    """TensorBoard events of one trial, over all its segments."""

    def __init__(self, folder: Path, first_step: int, params: Mapping[str, Any]) -> None:
        # Events past the point from which training goes on belong to steps that are done again.
        self._writer = SummaryWriter(str(folder), purge_step=first_step + 1)
        if not first_step:
            shown = {key: value for key, value in params.items() if isinstance(value, bool | int | float | str)}
            experiment, start, _ = hparams(shown, dict.fromkeys(METRICS, 0.0))  # type: ignore[no-untyped-call]
            self._writer._get_file_writer().add_summary(experiment)  # type: ignore[no-untyped-call]
            self._writer._get_file_writer().add_summary(start)  # type: ignore[no-untyped-call]

    def progress(self, progress: Progress) -> None:
        self._scalar("loss", progress.loss, progress.step)
        self._scalar("learning_rate", progress.learning_rate, progress.step)
        self._scalar("gradient_norm", progress.grad_norm, progress.step)

    def rung(self, step: int, metrics: Mapping[str, float]) -> None:
        for name in METRICS:
            self._scalar(name, metrics[name], step)

    def _scalar(self, tag: str, value: float, step: int) -> None:
        self._writer.add_scalar(tag, value, step)

    def __enter__(self) -> Logbook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
