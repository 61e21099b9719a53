"""Claim -> run one segment in a child process -> commit -> publish -> again."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from search.dashboard.annotator import Annotator
from search.dashboard.background import BackgroundPublisher
from search.dashboard.publisher import Publisher
from search.errors import RunError, StorageUnavailableError, UserError
from search.execution import checkpoint_gc
from search.execution.checkpoint_store import CheckpointStore
from search.execution.child_process import ChildExitError, ChildProcess
from search.execution.lease import Interrupts, LeaseLostError, Listener, Segment
from search.execution.messages import Failure, JobAnswer, SegmentJob, SegmentResult, SegmentStopped
from search.imported import without_imported
from search.paths import trial_folder
from search.process_id import ProcessId
from search.records import CRASHES_ALLOWED, KILLS_ALLOWED, Claim
from search.samplers import sampler
from search.schedulers import scheduler
from search.schedulers.scheduler import SchedulerConfig
from search.space.knobs import Knob
from search.space.search_space import Space
from search.storage.ledger import Ledger
from search.storage.retry import Retry, RetryingLedger

__all__ = ["Interrupts", "Listener", "Outcome", "Worker", "rule_of"]

# How often a worker with nothing to claim looks whether another one died, seconds.
POLL_SECONDS = 1.0

Outcome = Literal["done", "stopped", "interrupted", "timeout"]


def rule_of(space: Space) -> SchedulerConfig:
    """The ladder's part of the space's budget."""
    return space.budget.scheduler_config


class Worker:
    """One supervisor and its child on one study. `place`: where it runs, in words; `version`: of the code."""

    def __init__(
        self,
        ledger: Ledger,
        space: Space,
        knobs: Mapping[str, Knob],
        child: ChildProcess,
        folder: Path,
        job: Mapping[str, Any],
        listener: Listener,
        *,
        place: str = "local",
        version: str = "",
        checkpoint_store: CheckpointStore | None = None,
        annotator: Annotator | None = None,
    ) -> None:
        self._plain_ledger = ledger
        self._space = space
        self._knobs = knobs
        self._child = child
        self._folder = folder
        self._job = job
        self._listener = listener
        self._place = place
        self._version = version
        self._depot = checkpoint_store
        self._rule = rule_of(space)
        self._me = ProcessId.current()
        self._herald = BackgroundPublisher(Publisher(ledger, space, listener.notice, annotator))
        self._seed = ledger.record().seed
        self._out_of_disk = False
        self._cleared: set[int] = set()  # whose checkpoints the depot holds no more

    def run(self, interrupts: Interrupts, deadline: float = math.inf) -> Outcome:
        """Work until nothing is left, somebody asks to stop, or time.monotonic() passes `deadline`.

        Raises UserError where the data or the model cannot be used, RunError where the program is at fault.
        """
        self._interrupts, self._deadline = interrupts, deadline
        self._retry = Retry(self._listener.notice, lambda: interrupts.stop)
        self._ledger = RetryingLedger(self._plain_ledger, self._retry)
        self._herald.start()
        try:
            outcome = self._until_done()
            self._sweep()
            return outcome
        finally:
            self._herald.close(self._retry)
            self._sign_out()

    def _sign_out(self) -> None:
        try:
            self._plain_ledger.sign_out(self._me)
        except StorageUnavailableError:  # nobody will have seen us for a lease's time: that says it as well
            return

    def _sign_in(self) -> None:
        self._ledger.sign_in(self._me, self._place, self._version)

    def _until_done(self) -> Outcome:
        waited, signed = False, -math.inf
        while True:
            self._herald.wake()
            self._sweep()
            if self._interrupts.stop:
                return "interrupted"
            if time.monotonic() >= self._deadline:
                return "timeout"
            if time.monotonic() - signed > Segment.RENEW_SECONDS:
                self._sign_in()
                signed = time.monotonic()
            closing = self._closing()
            claim = self._ledger.claim(self._me, self._rule, closing)
            if claim is not None:
                self._segment(claim)
                waited = False
                continue
            outcome = self._nothing_to_do(closing)
            if outcome is not None:
                return outcome
            if not waited:
                self._listener.notice("waiting for other workers of this study")
                waited = True
            self._pause()

    def _pause(self) -> None:
        until = min(time.monotonic() + POLL_SECONDS, self._deadline)
        while time.monotonic() < until and not self._interrupts.stop:
            time.sleep(0.05)

    def _closing(self) -> bool:
        """Whether the time that is left is only enough to bring the leader to its end."""
        if self._deadline == math.inf:
            return False
        history = self._ledger.history()
        return self._deadline - time.monotonic() < scheduler.seconds_to_finish(self._rule, history)

    def _nothing_to_do(self, closing: bool) -> Outcome | None:
        """How it ended, where nothing could be claimed; None: others are at something that may come back."""
        if self._ledger.record().stopping:
            return "stopped"
        history = self._ledger.history()
        if all(one.ended for one in history):
            return "done"
        if closing and not any(one.state == "running" for one in history):
            return "timeout"
        return None

    def _sweep(self) -> None:
        swept = self._retry.call(
            lambda again: checkpoint_gc.sweep(self._plain_ledger, self._rule, self._folder, self._space.budget.disk_gb)
        )
        if self._depot is not None:
            history = self._ledger.history()
            over = {one.number for one in history if one.ended} - self._cleared
            self._depot.remove(over | set(swept))
            self._cleared |= over

    def _segment(self, claim: Claim) -> None:
        try:
            claim = self._with_params(claim)
            self._herald.wake()
            assert claim.params is not None
            self._listener.claimed(claim.number, claim.params, claim.first_step, claim.last_step)
            answer = self._trained(claim)
        except ChildExitError as death:
            self._died(claim, death)
        except LeaseLostError:
            self._child.kill()
            self._lost(claim, "another worker goes on with it")
        else:
            self._settle(claim, answer)

    def _trained(self, claim: Claim) -> JobAnswer:
        """The child's last word on the segment; its checkpoints are where the next worker finds them."""
        folder, checkpoint_store = trial_folder(self._folder, claim.number), self._depot
        segment = Segment(self._ledger, self._child, self._listener)
        if checkpoint_store is not None and claim.token > 1:
            segment.meanwhile(claim, lambda: checkpoint_store.fetch(claim.number, folder), self._sign_in)
        facts = self._ledger.facts()
        job = SegmentJob(
            number=claim.number,
            token=claim.token,
            params=claim.params or {},
            first_step=claim.first_step,
            last_step=claim.last_step,
            seed=self._seed,
            folder=str(folder),
            facts=facts,
            settings=self._job,
        )
        answer = segment.run(claim, job, self._interrupts, self._deadline, self._sign_in)
        if checkpoint_store is not None and claim.last_step < self._rule.rungs[-1]:
            segment.meanwhile(claim, lambda: checkpoint_store.store(claim.number, folder, claim.token), self._sign_in)
        return answer

    def _lost(self, claim: Claim, what: str) -> None:
        checkpoint_gc.discard_claim(trial_folder(self._folder, claim.number), claim.token)
        self._listener.notice(f"trial {claim.number}: the lease was lost, {what}")

    def _died(self, claim: Claim, death: ChildExitError) -> None:
        """A child that was told to end did nothing wrong; one that crashed may do it again."""
        state: str | None
        reason = f"the training process ended: {death}"
        if death.told_to_end:
            state = "paused"
            self._ledger.release(claim)
        else:
            allowed = KILLS_ALLOWED if death.killed else CRASHES_ALLOWED
            state = self._ledger.crashed(claim, reason, allowed)
        if state is None:
            self._lost(claim, f"and {reason}")  # as after its checkpoint was taken over under its hands
        elif state == "failed":
            self._listener.failed(claim.number, "crashed", reason)
            self._all_crash(reason)
        else:
            self._listener.notice(f"trial {claim.number}: {reason}; it goes on from its last checkpoint")

    def _all_crash(self, reason: str) -> None:
        """Where nothing ever came to a result, it is not the configuration that crashes: the study stops."""
        history = self._ledger.history()
        crashed = [one.number for one in history if one.failure == "crashed"]
        if len(crashed) > 1 and not any(one.rungs for one in history):
            numbers = ", ".join(map(str, crashed))
            log = self._folder / "worker.log"
            said = f"trials {numbers} crashed and none has a result: {reason}; the details are in {log}"
            self._ledger.request_stop(said)
            raise RunError(f"{said}; `tmsearch retry {self._ledger.study}` queues them again")

    def _with_params(self, claim: Claim) -> Claim:
        """Sample what the claim still lacks and record it before anything is trained with it."""
        if claim.params is not None:
            return claim
        place = sum(one.number < claim.number for one in without_imported(claim.history))
        start = self._space.start[place] if place < len(self._space.start) else None
        drawn = sampler.draw(
            self._space.search,
            claim.history,
            seed=self._seed,
            number=claim.number,
            last_rung=self._rule.last_rung,
            sampler=self._space.budget.sampler,
            given=self._space.drawn_from_start(start, self._knobs) if start else None,
        )
        params = self._space.resolve(drawn, self._knobs)
        origin = "start" if start else "sampled"
        if not self._ledger.set_params(claim, drawn, params, origin):
            raise LeaseLostError
        return dataclasses.replace(claim, drawn=drawn, params=params)

    def _settle(self, claim: Claim, answer: JobAnswer) -> None:
        if not (isinstance(answer, Failure) and answer.failure == "disk"):
            self._out_of_disk = False
        if isinstance(answer, SegmentStopped):
            self._ledger.release(claim)
        elif isinstance(answer, SegmentResult):
            self._commit(claim, answer.value, answer.metrics)
        elif isinstance(answer, Failure) and answer.failure in ("diverged", "oom"):
            self._fail(claim, answer.failure, answer.reason)
        elif isinstance(answer, Failure):
            self._give_up(claim, answer)
        else:
            self._give_up(claim, Failure("bug", f"unexpected answer {answer}"))

    def _commit(self, claim: Claim, value: float, metrics: Mapping[str, Any]) -> None:
        state = self._ledger.commit(claim, value, metrics, self._rule, version=self._version)
        if state is None:
            self._lost(claim, "its result was not recorded")
        else:
            self._listener.rung(claim.number, claim.last_step, value, metrics, state)

    def _fail(self, claim: Claim, failure: str, reason: str) -> None:
        if self._ledger.fail(claim, failure, reason):
            self._listener.failed(claim.number, failure, reason)
        else:
            self._lost(claim, f"and it failed: {reason}")

    def _give_up(self, claim: Claim, failure: Failure) -> None:
        """Bad data or a bug would fail every trial: the study stops, and this one stays to be run.

        A full disk is this machine's own: this worker leaves, after one more try with what could be swept.
        """
        reason = f"trial {claim.number}: {failure.reason}"
        if not self._ledger.release(claim, failure.reason):
            self._lost(claim, f"and it ended: {failure.reason}")  # two at one checkpoint: no bug, no full disk
            return
        if failure.failure == "disk" and not self._out_of_disk:
            self._out_of_disk = True
            self._listener.notice(f"{reason}; it is tried once more")
            return
        if failure.failure != "disk":
            self._ledger.request_stop(reason)
        if failure.failure == "input":
            raise UserError(failure.reason)
        raise RunError(f"{reason}; the details are in {self._folder / 'worker.log'}")
