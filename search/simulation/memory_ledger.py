"""A ledger in memory: the part of the database's contract that a simulation needs, for one process, in virtual time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from search.process_id import ProcessId
from search.records import Claim, Configuration, Rung
from search.schedulers import scheduler
from search.schedulers.asha import POLICIES
from search.schedulers.scheduler import SchedulerConfig


class MemoryLedger:
    """One study; its leases never expire, as no other process can take them. Its methods are those of `Ledger`."""

    def __init__(self, study: str, trials: int) -> None:
        self.study = study
        self.trials = trials
        self._history: list[Configuration] = []

    def history(self) -> tuple[Configuration, ...]:
        """Every configuration, by number."""
        return tuple(self._history)

    def set_trials(self, trials: int) -> None:
        """Set the study's total number of configurations."""
        self.trials = trials

    def claim(self, worker: ProcessId, config: SchedulerConfig, closing: bool = False) -> Claim | None:
        """Claim the next segment; None if there is none for now."""
        history = self.history()
        state = scheduler.SchedulerState(config, history, self.trials, closing)
        policy = POLICIES[config.strategy]
        segment = scheduler.choose(policy, state)
        if segment is None:
            if not state.is_busy and state.is_whole:
                self._prune_paused(config)
            return None
        if segment.number is None:
            number = len(history)
            self._history.append(Configuration(number, "sampled", None, None, "running"))
        else:
            number = segment.number
        configuration = self._history[number]
        token = configuration.token + 1
        self._update(number, state="running", reason=None, worker=str(worker), target=segment.last_step, token=token)
        return Claim(
            study=self.study,
            number=number,
            token=token,
            worker=str(worker),
            drawn=configuration.drawn,
            params=configuration.params,
            first_step=segment.first_step,
            last_step=segment.last_step,
            history=scheduler.history_for_draw(policy, history, segment.number),
        )

    def set_params(self, claim: Claim, drawn: Mapping[str, Any], params: Mapping[str, Any], origin: str) -> bool:
        """Record what was sampled. False: the claim was lost."""
        return self._update_if_held(claim, drawn=dict(drawn), params=dict(params), origin=origin)

    def commit(self, claim: Claim, value: float, metrics: Mapping[str, Any], config: SchedulerConfig) -> str | None:
        """Record a segment's result; returns the configuration's new state. None: the claim was lost."""
        if not self._is_held(claim):
            return None
        policy = POLICIES[config.strategy]
        state, reason = scheduler.decide(policy, config, self._history, self.trials, claim, value, metrics)
        rungs = (*self._history[claim.number].rungs, Rung(claim.last_step, value, dict(metrics)))
        self._update(claim.number, rungs=rungs, state=state, reason=reason, worker=None)
        return state

    def fail(self, claim: Claim, failure: str, reason: str) -> bool:
        """End the configuration as failed. False: the claim was lost."""
        return self._update_if_held(claim, state="failed", failure=failure, reason=reason, worker=None)

    def _prune_paused(self, config: SchedulerConfig) -> None:
        for configuration in self.history():
            if configuration.state == "paused":
                reason = scheduler.pruning_reason(config, configuration)
                self._update(configuration.number, state="pruned", reason=reason)

    def _update(self, number: int, **values: Any) -> None:
        configuration = self._history[number]
        self._history[number] = replace(configuration, revision=configuration.revision + 1, **values)

    def _is_held(self, claim: Claim) -> bool:
        configuration = self._history[claim.number]
        return configuration.token == claim.token and configuration.state == "running"

    def _update_if_held(self, claim: Claim, **values: Any) -> bool:
        if not self._is_held(claim):
            return False
        self._update(claim.number, **values)
        return True
