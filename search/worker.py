"""Claim -> run one segment in a child process -> commit -> publish -> again."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from search import disk, ladder, sampling
from search.child import Child, ChildDied
from search.errors import RunError, UserError
from search.identity import Identity
from search.imported import own
from search.knobs import Knob
from search.ladder import Rule
from search.ledger import LEASE_SECONDS, Ledger
from search.publish import Publisher
from search.records import Claim
from search.space import Space
from search.study import trial_folder

RENEW_SECONDS = LEASE_SECONDS / 10
# How often a worker with nothing to claim looks whether another one died, seconds.
POLL_SECONDS = 1.0

Outcome = Literal["done", "stopped", "interrupted", "timeout"]


class Listener(Protocol):
    """Who watches a worker: the command line's display."""

    def claimed(self, number: int, params: Mapping[str, Any], first_step: int, last_step: int) -> None: ...
    def progress(self, number: int, event: Mapping[str, Any]) -> None: ...
    def fact(self, key: str, value: Any) -> None: ...
    def rung(self, number: int, step: int, value: float, metrics: Mapping[str, Any], state: str) -> None: ...
    def failed(self, number: int, failure: str, reason: str) -> None: ...
    def notice(self, text: str) -> None: ...


@dataclass
class Interrupts:
    """What signals ask for: `stop` finishes the step and saves, `leave` goes at once."""

    stop: bool = False
    leave: bool = False

    def signal(self) -> None:
        self.leave, self.stop = self.stop, True


def rule_of(space: Space) -> Rule:
    """The ladder's part of the space's budget."""
    return Rule(space.budget.rungs, space.budget.strategy, space.budget.eta, space.budget.max_full)


class _Lost(Exception):
    """Another worker holds the claim now."""


class Worker:
    """One supervisor and its child on one study."""

    def __init__(
        self,
        ledger: Ledger,
        space: Space,
        knobs: Mapping[str, Knob],
        child: Child,
        folder: Path,
        job: Mapping[str, Any],
        listener: Listener,
    ) -> None:
        self._ledger = ledger
        self._space = space
        self._knobs = knobs
        self._child = child
        self._folder = folder
        self._job = job
        self._listener = listener
        self._rule = rule_of(space)
        self._me = Identity.mine()
        self._publisher = Publisher(ledger, space, listener.notice)
        self._seed = ledger.record().seed

    def run(self, interrupts: Interrupts, deadline: float = math.inf) -> Outcome:
        """Work until nothing is left, somebody asks to stop, or time.monotonic() passes `deadline`.

        Raises UserError where the data or the model cannot be used, RunError where the program is at fault.
        """
        self._publisher.check()
        try:
            outcome = self._until_done(interrupts, deadline)
            self._sweep()
            return outcome
        finally:
            self._publisher.finish()

    def _until_done(self, interrupts: Interrupts, deadline: float) -> Outcome:
        waited = False
        while True:
            self._publisher.publish()
            self._sweep()
            if interrupts.stop:
                return "interrupted"
            if time.monotonic() >= deadline:
                return "timeout"
            closing = deadline - time.monotonic() < ladder.seconds_to_finish(self._rule, self._ledger.history())
            claim = self._ledger.claim(self._me, self._rule, closing)
            if claim is not None:
                self._segment(claim, interrupts, deadline)
                waited = False
                continue
            if self._ledger.record().stopping:
                return "stopped"
            if not self._ledger.open_work():
                return "done"
            if closing and not any(one.state == "running" for one in self._ledger.history()):
                return "timeout"
            if not waited:
                self._listener.notice("waiting for other workers of this study")
                waited = True
            time.sleep(POLL_SECONDS)

    def _sweep(self) -> None:
        disk.sweep(self._ledger, self._rule, self._folder, self._space.budget.disk_gb)

    def _segment(self, claim: Claim, interrupts: Interrupts, deadline: float) -> None:
        claim = self._with_params(claim)
        self._publisher.publish()
        assert claim.params is not None
        self._listener.claimed(claim.number, claim.params, claim.first_step, claim.last_step)
        try:
            answer = self._answer(claim, interrupts, deadline)
        except ChildDied as death:
            reason = f"the training process ended: {death}"
            if self._ledger.crashed(claim, reason):
                self._listener.failed(claim.number, "crashed", reason)
            else:
                self._listener.notice(f"trial {claim.number}: {reason}; it goes on from its last checkpoint")
        except _Lost:
            self._child.kill()
            self._listener.notice(f"trial {claim.number}: the lease was lost, another worker goes on with it")
        else:
            self._settle(claim, answer)

    def _with_params(self, claim: Claim) -> Claim:
        """Sample what the claim still lacks and record it before anything is trained with it."""
        if claim.params is not None:
            return claim
        place = sum(one.number < claim.number for one in own(claim.history))
        start = self._space.start[place] if place < len(self._space.start) else None
        drawn = sampling.draw(
            self._space.search,
            claim.history,
            seed=self._seed,
            number=claim.number,
            last_rung=self._rule.rungs[-1],
            sampler=self._space.budget.sampler,
            given=self._space.drawn_from_start(start, self._knobs) if start else None,
        )
        params = self._space.resolve(drawn, self._knobs)
        self._ledger.set_params(claim, drawn, params, "start" if start else "sampled")
        return dataclasses.replace(claim, drawn=drawn, params=params)

    def _answer(self, claim: Claim, interrupts: Interrupts, deadline: float) -> dict[str, Any]:
        """Run the segment in the child; its last word. The lease is renewed meanwhile."""
        self._child.send(self._message(claim))
        told_to_stop, renewed, progress = False, time.monotonic(), {}
        while True:
            event = self._child.event(timeout=0.2)
            kind = event.get("event") if event else None
            if event and kind == "progress":
                progress = event
                self._listener.progress(claim.number, event)
            elif event and kind == "fact":
                self._ledger.add_fact(event["key"], event["value"])
                self._listener.fact(event["key"], event["value"])
            elif event and kind == "limit":
                self._ledger.lower_fact(event["key"], event["value"])
            elif event:
                return event
            stop = interrupts.stop or time.monotonic() >= deadline
            if time.monotonic() - renewed > RENEW_SECONDS:
                ours, asked = self._ledger.renew(claim, progress)
                renewed = time.monotonic()
                stop = stop or asked
                if not ours:
                    raise _Lost
            if interrupts.leave:
                self._child.kill()
                return {"event": "stopped"}
            if stop and not told_to_stop:
                self._child.send({"stop": True})
                told_to_stop = True
                self._listener.notice("finishing the step, then saving (Ctrl-C again leaves at once)")

    def _message(self, claim: Claim) -> dict[str, Any]:
        """The segment as the child gets it."""
        return {
            **self._job,
            "job": "segment",
            "number": claim.number,
            "params": dict(claim.params or {}),
            "seed": self._seed,
            "first_step": claim.first_step,
            "last_step": claim.last_step,
            "folder": str(trial_folder(self._folder, claim.number)),
            "facts": self._ledger.facts(),
        }

    def _settle(self, claim: Claim, answer: Mapping[str, Any]) -> None:
        kind = answer.get("event")
        if kind == "stopped":
            self._ledger.release(claim)
        elif kind == "result" and math.isfinite(float(answer["value"])):
            self._commit(claim, float(answer["value"]), answer.get("metrics") or {})
        elif kind == "result":
            self._fail(claim, "diverged", f"the value at step {claim.last_step} is not finite")
        elif kind == "failure" and answer.get("failure") in ("diverged", "oom"):
            self._fail(claim, str(answer["failure"]), str(answer.get("reason")))
        else:
            self._give_up(claim, answer)

    def _commit(self, claim: Claim, value: float, metrics: Mapping[str, Any]) -> None:
        finite = {
            key: one if not isinstance(one, float) or math.isfinite(one) else None for key, one in metrics.items()
        }
        state = self._ledger.commit(claim, value, finite, self._rule)
        if state is None:
            self._listener.notice(f"trial {claim.number}: the lease was lost, its result was not recorded")
        else:
            self._listener.rung(claim.number, claim.last_step, value, finite, state)

    def _fail(self, claim: Claim, failure: str, reason: str) -> None:
        self._ledger.fail(claim, failure, reason)
        self._listener.failed(claim.number, failure, reason)

    def _give_up(self, claim: Claim, answer: Mapping[str, Any]) -> None:
        """Bad data, a full disk or a bug would fail every trial: the study stops, and this one stays to be run."""
        reason = str(answer.get("reason") or f"unexpected answer {answer}")
        self._ledger.release(claim, reason)
        self._publisher.publish()
        if answer.get("failure") == "input":
            raise UserError(reason)
        log = self._folder / "worker.log"
        raise RunError(f"trial {claim.number}: {reason}; the details are in {log}")


def each_event(child: Child, job: Mapping[str, Any], on_event: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
    """Run a job that belongs to no segment (a check of data and models) and give its last word."""
    child.send(job)
    while True:
        event = child.event(timeout=1.0)
        if event is None:
            continue
        if event.get("event") in ("progress", "fact", "limit"):
            on_event(event)
            continue
        return event
