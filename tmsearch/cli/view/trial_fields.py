"""A configuration in the form that scripts and tables of data are written against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search.records import Configuration
from tmsearch.cli.view import intervals

if TYPE_CHECKING:
    from tmsearch.evaluation.bootstrap import Interval


def configuration_json(trial: Configuration, interval: Interval | None) -> dict[str, Any]:
    """A configuration in the form that scripts are written against; `interval`: of its WER at its last rung."""
    return {
        "number": trial.number,
        "state": trial.state,
        "params": dict(trial.params) if trial.params is not None else None,
        "steps": trial.steps,
        "wer": trial.metrics.get("wer", trial.value),
        "wer_interval": intervals.as_json(interval),
        "wer_raw": trial.metrics.get("wer_raw"),
        "cer": trial.metrics.get("cer"),
        "wer_long": trial.metrics.get("wer_long"),
        "mean": trial.metrics.get("mean"),
        "wer_keep": trial.metrics.get("wer_keep"),
        "train_seconds": trial.total("train_seconds"),
        "eval_seconds": trial.total("eval_seconds"),
        "reason": trial.reason,
        "worker": trial.worker_name,
    }
