"""A ledger in memory: the contract of the one in a database, for one process, in virtual time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from search.process_id import ProcessId
from search.records import CRASHES_ALLOWED, ENDED, Claim, Configuration, Rung
from search.schedulers import scheduler
from search.schedulers.asha import POLICIES


class MemoryLedger:
    """One study; its claims never run out, as nothing else can take them."""

    def __init__(self, study: str, trials: int) -> None:
        self.study = study
        self.trials = trials
        self.stopping = False
        self._history: list[Configuration] = []
        self._tokens: list[int] = []
        self._crashes: list[int] = []
        self._facts: dict[str, Any] = {}

    def history(self) -> tuple[Configuration, ...]:
        return tuple(self._history)

    def facts(self) -> dict[str, Any]:
        return dict(self._facts)

    def add_fact(self, key: str, value: Any) -> None:
        """Keep what was found out once for the whole study; the first to say it is right."""
        self._facts.setdefault(key, value)

    def lower_fact(self, key: str, value: float) -> None:
        """Keep the smallest number that anybody found."""
        self._facts[key] = min(value, self._facts.get(key, value))

    def set_trials(self, trials: int) -> None:
        """The study's total number of configurations. Also takes back a request to stop."""
        self.trials, self.stopping = trials, False

    def request_stop(self, reason: str | None = None) -> None:
        """Ask to stop."""
        self.stopping = True

    def claim(
        self,
        worker: ProcessId,
        scheduler_config: scheduler.SchedulerConfig,
        closing: bool = False,
        *,
        again: bool = False,
    ) -> Claim | None:
        """Take the next segment; None where there is none for now. No answer gets lost here, so `again` is nothing."""
        if self.stopping:
            return None
        history = self.history()
        known = scheduler.SchedulerState(scheduler_config, history, self.trials, closing)
        strategy = POLICIES[scheduler_config.strategy]
        work = scheduler.choose(strategy, known)
        if work is None:
            if not known.is_busy and not closing:
                for one in history:
                    if one.state == "paused":
                        self._set(one.number, state="pruned", reason=scheduler.pruning_reason(scheduler_config, one))
            return None
        number = len(history) if work.number is None else work.number
        if work.number is None:
            self._history.append(Configuration(number, "sampled", None, None, "running", worker=str(worker)))
            self._tokens.append(0)
            self._crashes.append(0)
        self._tokens[number] += 1
        mine = self._history[number]
        self._set(number, state="running", reason=None, worker=str(worker), target=work.last_step)
        return Claim(
            self.study,
            number,
            self._tokens[number],
            str(worker),
            mine.drawn,
            mine.params,
            work.first_step,
            work.last_step,
            scheduler.history_for_draw(strategy, history, number),
        )

    def _set(self, number: int, **values: Any) -> None:
        one = self._history[number]
        self._history[number] = replace(one, revision=one.revision + 1, **values)

    def _ours(self, claim: Claim) -> bool:
        return self._tokens[claim.number] == claim.token and self._history[claim.number].state == "running"

    def _guarded(self, claim: Claim, **values: Any) -> bool:
        ours = self._ours(claim)
        if ours:
            self._set(claim.number, **values)
        return ours

    def set_params(self, claim: Claim, drawn: Mapping[str, Any], params: Mapping[str, Any], origin: str) -> bool:
        """Record what was sampled. False: the claim is lost."""
        return self._guarded(claim, drawn=dict(drawn), params=dict(params), origin=origin)

    def renew(self, claim: Claim, progress: Mapping[str, Any]) -> tuple[bool, bool]:
        """(the claim is still ours, the study is asked to stop)."""
        return self._guarded(claim, progress=dict(progress)), self.stopping

    def commit(
        self,
        claim: Claim,
        value: float,
        metrics: Mapping[str, Any],
        scheduler_config: scheduler.SchedulerConfig,
        *,
        version: str | None = None,
        again: bool = False,
    ) -> str | None:
        """Record a segment's result and what becomes of its configuration. None: the claim was lost."""
        if not self._ours(claim):
            return None
        state, reason = scheduler.decide(
            POLICIES[scheduler_config.strategy], scheduler_config, self._history, self.trials, claim, value, metrics
        )
        rungs = (*self._history[claim.number].rungs, Rung(claim.last_step, value, dict(metrics), version))
        self._crashes[claim.number] = 0
        self._set(claim.number, rungs=rungs, **_released(state, reason))
        return state

    def fail(self, claim: Claim, failure: str, reason: str) -> bool:
        """End the configuration as failed."""
        return self._guarded(claim, failure=failure, **_released("failed", reason))

    def crashed(self, claim: Claim, reason: str, allowed: int = CRASHES_ALLOWED) -> str | None:
        """Give the segment back to be tried again, `allowed` times, then end it as failed. None: the claim was lost."""
        if not self._ours(claim):
            return None
        self._crashes[claim.number] += 1
        if self._crashes[claim.number] > allowed:
            self.fail(claim, "crashed", reason)
            return "failed"
        self._set(claim.number, **_released("paused", reason))
        return "paused"

    def release(self, claim: Claim, reason: str | None = None) -> bool:
        """Give the segment back."""
        return self._guarded(claim, **_released("paused", reason))

    def open_work(self) -> int:
        """How many configurations have not ended."""
        return sum(1 for one in self._history if one.state not in ENDED)

    def append(self, origin: str, drawn: Mapping[str, Any], params: Mapping[str, Any]) -> int:
        """Queue one configuration with these parameters and give its number."""
        number = len(self._history)
        self._history.append(Configuration(number, origin, dict(drawn), dict(params), "queued"))
        self._tokens.append(0)
        self._crashes.append(0)
        return number

    def requeue(self, numbers: Sequence[int]) -> list[int]:
        """Queue failed configurations again. Gives the ones that had failed."""
        failed = [one.number for one in self._history if one.state == "failed" and one.number in numbers]
        for number in failed:
            self._crashes[number] = 0
            self._set(number, failure=None, **_released("queued", None))
        return failed


def _released(state: str, reason: str | None) -> dict[str, Any]:
    return {"state": state, "reason": reason, "worker": None, "progress": {}}
