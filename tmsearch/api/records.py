"""Frozen records of trials, as callbacks and studies give them. Names are those of `status --json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search.records import Configuration
from tmsearch.cli.view.trial_fields import configuration_json

if TYPE_CHECKING:
    from tmsearch.evaluation.bootstrap import Interval


@dataclass(frozen=True)
class Rung:
    """One evaluation of a trial.

    Attributes:
        number: the trial's.
        step: at which it was evaluated.
        value: what the study minimises, by default the WER.
        wer: the normalised WER on the validation clips.
        cer: the CER.
        params: every knob of the trial.
        state: what became of the trial: paused, pruned or finished.
    """

    number: int
    step: int
    value: float
    wer: float
    cer: float | None
    params: Mapping[str, Any]
    state: str


@dataclass(frozen=True)
class Trial:
    """One configuration, how far it came, and what it scored at its last rung.

    Attributes:
        number: from 0 on.
        state: queued, running, paused, pruned, finished or failed.
        params: every knob; None before they are sampled.
        steps: of its last rung.
        wer: the normalised WER on the validation clips; `wer_raw` counts case and punctuation, too.
        wer_low: the lower end of the 95 % interval of `wer` over utterances.
        wer_high: the upper end.
        cer: the CER; `wer_long`, `mean` and `wer_keep` are of studies that measure them.
        train_seconds: spent on training; `eval_seconds` on evaluation.
        reason: why it failed or waits.
        worker: host:pid of the worker that trains it now.
        origin: start, sampled, imported or what else it comes from.
        curve: what the study minimises, by step.
    """

    number: int
    state: str
    params: Mapping[str, Any] | None
    steps: int
    wer: float | None
    wer_low: float | None
    wer_high: float | None
    wer_raw: float | None
    cer: float | None
    wer_long: float | None
    mean: float | None
    wer_keep: float | None
    train_seconds: float
    eval_seconds: float
    reason: str | None
    worker: str | None
    origin: str
    curve: Mapping[int, float]

    def row(self, knobs: Sequence[str]) -> dict[str, Any]:
        """A row of a table: the fields of `column_names`, then the `knobs`, each a column."""
        fields = {name: getattr(self, name) for name in column_names()}
        return fields | {name: (self.params or {}).get(name) for name in knobs}


def column_names() -> list[str]:
    """The columns of a table of trials before its knobs."""
    return [field.name for field in dataclasses.fields(Trial) if field.name not in ("params", "curve")]


def trial_of(trial: Configuration, interval: Interval | None) -> Trial:
    """The record of a configuration; `interval`: of its WER at its last rung."""
    fields = configuration_json(trial, interval)
    low, high = fields.pop("wer_interval") or (None, None)
    return Trial(**fields, wer_low=low, wer_high=high, origin=trial.origin, curve=dict(trial.curve))


def rung_of(trial: Configuration, index: int) -> Rung:
    """The record of a configuration's rung; all but the last were paused at."""
    rung = trial.rungs[index]
    is_last = index == len(trial.rungs) - 1
    return Rung(
        number=trial.number,
        step=rung.step,
        value=rung.value,
        wer=rung.metrics.get("wer", rung.value),
        cer=rung.metrics.get("cer"),
        params=dict(trial.params or {}),
        state=trial.state if is_last and trial.state in ("pruned", "finished") else "paused",
    )
