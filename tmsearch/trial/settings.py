"""What every training job of a study has in common, beside its configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrialSettings:
    """The application's own fields of a segment's or test's job.

    Args:
        data: the study's DataConfig as keywords.
        max_steps: length of the learning-rate schedule.
        threads: CPU threads of a training; its results depend on them.
        cache: folder of log-mels and compiled graphs.
        tensorboard: folder of the study's event files.
        choices: the values of each categorical knob, for TensorBoard's table of hyperparameters.
        objective: one of search.space.budget.OBJECTIVES, which a segment's value, errors and lengths are of.
        shares_checkpoints: whether they are copied for workers elsewhere once a segment has ended.
        keep_weights: whether a finished training's weights are kept for a test or a merge.
    """

    data: Mapping[str, Any]
    max_steps: int
    threads: int
    cache: str
    tensorboard: str = ""
    choices: Mapping[str, list[Any]] = field(default_factory=dict)
    keep_weights: bool = False
    objective: str = "wer"
    shares_checkpoints: bool = False

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, settings: Mapping[str, Any]) -> TrialSettings:
        """Raises TypeError where one is missing or unknown."""
        return cls(**settings)
