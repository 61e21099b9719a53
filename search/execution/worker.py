"""A worker: claim a segment, run it in the training process, commit its result, publish, repeat."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from search.dashboard.annotator import Annotator
from search.dashboard.background import BackgroundPublisher
from search.dashboard.publisher import Publisher
from search.errors import EngineError, MachineError, RepeatedDrawError, RunError, StorageUnavailableError, UserError
from search.execution import checkpoint_gc, lease
from search.execution.checkpoint_store import CheckpointStore
from search.execution.child_process import ChildExitError, ChildProcess
from search.execution.lease import ClaimedSegment, Interrupts, LeaseLostError, Listener
from search.execution.messages import Failure, JobAnswer, SegmentJob, SegmentResult, SegmentStopped
from search.imported import without_imported
from search.paths import trial_folder
from search.process_id import ProcessId
from search.records import CRASHES_ALLOWED, KILLS_ALLOWED, Claim, Configuration
from search.samplers import earlier, knowledge, repeats, sampler
from search.schedulers import eta, scheduler
from search.schedulers.scheduler import SchedulerConfig
from search.space.knobs import Knob
from search.space.search_space import Space
from search.storage import ownership
from search.storage.claims import SegmentOutcome, SignIn
from search.storage.ledger import Ledger
from search.storage.retry import Retry, RetryingLedger

POLL_SECONDS = 1.0  # how often a worker with nothing to claim looks again
_SLEEP_SECONDS = 0.05  # between looks at interrupts meanwhile
_FETCH = "copying its checkpoint from TMSEARCH_CHECKPOINTS"
_STORE = "copying its checkpoint to TMSEARCH_CHECKPOINTS"
_MACHINE_FAILURES = ("disk", "machine")  # concern this machine alone

Outcome = Literal["done", "stopped", "interrupted", "timeout"]


class Worker:
    """One supervisor and its training process on one study.

    Args:
        ledger: the study.
        space: what is searched and its budget.
        knobs: all knobs of the application by name.
        child: the training process.
        folder: the study's files.
        settings: the application's own fields of every segment's job.
        listener: gets progress, results and notices.
        location: where the worker runs, as a person reads it.
        version: of the code, recorded with every result.
        checkpoint_store: where checkpoints are copied for workers on other machines.
        annotator: makes notes and attachments of published trials.
    """

    def __init__(
        self,
        ledger: Ledger,
        space: Space,
        knobs: Mapping[str, Knob],
        child: ChildProcess,
        folder: Path,
        settings: Mapping[str, Any],
        listener: Listener,
        *,
        location: str = "local",
        version: str = "",
        checkpoint_store: CheckpointStore | None = None,
        annotator: Annotator | None = None,
    ) -> None:
        self._interrupts = Interrupts()
        self._deadline = math.inf
        self._ledger = RetryingLedger(ledger, Retry(listener.notice, lambda: self._interrupts.stop))
        self._space = space
        self._knobs = knobs
        self._child = child
        self._folder = folder
        self._owner = ownership.read_owner(folder)
        self._settings = settings
        self._listener = listener
        self._checkpoint_store = checkpoint_store
        self._scheduler_config = space.budget.scheduler_config
        self._signed = SignIn(ProcessId.current(), location, version)
        self._background_publisher = BackgroundPublisher(Publisher(ledger, space, listener.notice, annotator))
        self._seed = ledger.record().seed
        self._has_machine_failed = False  # in the last segment
        disk_gb = space.budget.disk_gb
        self._sweeper = checkpoint_gc.Sweeper(ledger, self._scheduler_config, folder, disk_gb, checkpoint_store)
        self._knowledge = knowledge.of_facts(ledger.facts(), space.search)

    def run(self, interrupts: Interrupts, deadline: float = math.inf) -> Outcome:
        """Work until nothing is left, a stop is requested, or time.monotonic() passes `deadline`.

        Raises:
            UserError: the data or the model cannot be used.
            RunError: the program is at fault, or this machine is.
        """
        self._interrupts = interrupts
        self._deadline = deadline
        self._background_publisher.start()
        checkpoint_gc.clear_discarded(self._folder)
        try:
            outcome = self._run_until_done()
            self._remove_checkpoints()
            return outcome
        finally:
            try:
                self._background_publisher.close(self._ledger.retry)
            finally:
                self._sign_out()

    def _sign_out(self) -> None:
        try:
            self._ledger.ledger.sign_out(self._signed.worker)
        except StorageUnavailableError:  # a worker that does not sign in for a lease's time counts as gone
            return

    def _run_until_done(self) -> Outcome:
        is_wait_announced = False
        signed_in = -math.inf
        while True:
            self._background_publisher.wake()
            ownership.keep_claimed(self._folder, self._owner)
            self._remove_checkpoints()
            outcome = self._outcome_of_waiting()
            if outcome is not None:
                return outcome
            if time.monotonic() - signed_in > lease.RENEW_SECONDS:
                self._ledger.sign_in(self._signed.worker, self._signed.location, self._signed.version)
                signed_in = time.monotonic()
            closing = self._is_closing()
            config = self._config_in_time()
            claim = self._ledger.claim(self._signed.worker, config, closing)
            if claim is not None:
                outcome = self._run_claims(claim)
                is_wait_announced = False
            else:
                outcome = self._outcome_without_claim(closing or config.limit < math.inf)
            if outcome is not None:
                return outcome
            if claim is not None:
                continue
            if not is_wait_announced:
                self._listener.notice("idle: what is left runs in other workers of this study")
                is_wait_announced = True
            self._pause()

    def _outcome_of_waiting(self) -> Outcome | None:
        """How the work ends for want of time or by a person's wish; None if it goes on."""
        if self._interrupts.stop:
            return "interrupted"
        return "timeout" if time.monotonic() >= self._deadline else None

    def _run_claims(self, first: Claim) -> Outcome | None:
        """Run a claimed segment, and those that were claimed as the one before was committed."""
        claim: Claim | None = first
        while claim is not None:
            with self._released_on_error(claim):
                self._background_publisher.wake()
                ownership.keep_claimed(self._folder, self._owner)
                outcome = self._outcome_of_waiting()
                if outcome is not None:
                    self._ledger.release(claim)
                    return outcome
                next_claim = self._run_claim(claim)
            claim = next_claim
        return None

    @contextlib.contextmanager
    def _released_on_error(self, claim: Claim) -> Iterator[None]:
        """Give the claim back, unless that was done, where the worker leaves with an error."""
        try:
            yield
        except Exception:
            with contextlib.suppress(EngineError):
                self._ledger.ledger.release(claim)
            raise

    def _pause(self) -> None:
        until = min(time.monotonic() + POLL_SECONDS, self._deadline)
        while time.monotonic() < until and not self._interrupts.stop:
            time.sleep(_SLEEP_SECONDS)

    def _is_closing(self) -> bool:
        """Whether the remaining time is only enough to finish the leader."""
        if self._deadline == math.inf:
            return False
        seconds = scheduler.seconds_to_finish(self._scheduler_config, self._ledger.history())
        return self._deadline - time.monotonic() < seconds

    def _config_in_time(self) -> SchedulerConfig:
        """The budget, and what the time until the deadline allows of its plan."""
        config = self._scheduler_config
        if self._deadline == math.inf or not config.is_planned:
            return config
        workers = max(1, sum(worker.alive for worker in self._ledger.ledger.workers()))
        seconds = self._deadline - time.monotonic()
        limit = eta.trainings_in_time(config, self._ledger.history(), seconds, workers)
        return dataclasses.replace(config, limit=limit)

    def _outcome_without_claim(self, closing: bool) -> Outcome | None:
        """How the work ended where nothing can be claimed; None while others run what may come back."""
        history, record = self._ledger.snapshot()
        if record.stopping:
            return "stopped"
        if all(trial.ended for trial in history):
            is_short = closing and len(without_imported(history)) < record.trials
            return "timeout" if is_short else "done"
        if closing and not any(trial.state == "running" for trial in history):
            return "timeout"
        return None

    def _remove_checkpoints(self) -> None:
        """Remove checkpoints that nothing needs or that exceed the disk budget, here and in the store."""
        self._ledger.retry.call(lambda again: self._sweeper.sweep())
        self._sweeper.wait(lambda: self._interrupts.leave)

    def _remove_checkpoints_once(self) -> None:
        """The same while a segment trains: what does not answer now is tried again after it."""
        with contextlib.suppress(StorageUnavailableError):
            self._sweeper.sweep()

    def _run_claim(self, claim: Claim) -> Claim | None:
        """Run one segment; returns the next one, where it was claimed as the result was committed."""
        try:
            claim = self._with_params(claim)
            self._background_publisher.wake()
            assert claim.params is not None
            self._listener.claimed(claim.number, claim.params, claim.first_step, claim.last_step)
            answer = self._train(claim, claim.params)
        except ChildExitError as error:
            self._handle_exit(claim, error)
        except LeaseLostError:
            self._child.kill()
            self._handle_lost_lease(claim, "another worker continues it")
        else:
            return self._handle_answer(claim, answer)
        return None

    def _train(self, claim: Claim, params: Mapping[str, Any]) -> JobAnswer:
        """The training process's answer; before and after, checkpoints come from the store and go there."""
        folder = trial_folder(self._folder, claim.number)
        store = self._checkpoint_store
        segment = ClaimedSegment(claim, self._ledger, self._child, self._listener, self._signed)
        if store is not None and claim.token > 1:
            segment.run_beside(lambda: store.fetch(claim.number, folder), _FETCH, self._interrupts)
            if self._interrupts.stop:
                return SegmentStopped(None)
        job = SegmentJob(
            number=claim.number,
            token=claim.token,
            params=params,
            first_step=claim.first_step,
            last_step=claim.last_step,
            seed=self._seed,
            folder=str(folder),
            facts=earlier.without(self._ledger.facts()),
            settings=self._settings,
        )
        answer = segment.run(job, self._interrupts, self._deadline, self._remove_checkpoints_once)
        if store is not None and claim.last_step < self._scheduler_config.rungs[-1]:
            segment.run_beside(lambda: store.store(claim.number, folder, claim.token), _STORE, self._interrupts)
        return answer

    def _handle_lost_lease(self, claim: Claim, consequence: str) -> None:
        checkpoint_gc.discard_claim(trial_folder(self._folder, claim.number), claim.token)
        self._listener.notice(f"trial {claim.number}: the lease was lost, {consequence}")

    def _handle_exit(self, claim: Claim, error: ChildExitError) -> None:
        """Release the claim of a process that was terminated; count the crash of another one."""
        state: str | None = "paused"
        reason = f"the training process ended: {error}"
        if error.was_terminated:
            self._ledger.release(claim)
        else:
            allowed = KILLS_ALLOWED if error.was_killed else CRASHES_ALLOWED
            state = self._ledger.crashed(claim, reason, allowed)
        if state is None:
            # Probably because another worker removed the checkpoint that it was reading.
            self._handle_lost_lease(claim, f"and {reason}")
        elif state == "failed":
            self._listener.failed(claim.number, "crashed", reason)
            self._stop_if_all_crash(reason)
        else:
            self._listener.notice(f"trial {claim.number}: {reason}; it resumes from its last checkpoint")

    def _stop_if_all_crash(self, reason: str) -> None:
        """Where no trial has a result and two crashed, the configurations are not at fault: stop the study."""
        history = self._ledger.history()
        crashed = [trial.number for trial in history if trial.failure == "crashed"]
        if len(crashed) < 2 or any(trial.rungs for trial in history):
            return
        numbers = ", ".join(map(str, crashed))
        log = self._folder / "worker.log"
        problem = f"trials {numbers} crashed and none has a result: {reason}; the details are in {log}"
        self._ledger.request_stop(problem)
        raise RunError(f"{problem}; `tmsearch retry {self._ledger.study}` queues them again")

    def _with_params(self, claim: Claim) -> Claim:
        """Draw the claim's parameters if it has none, and record them before anything is trained with them."""
        if claim.params is not None:
            return claim
        position = sum(trial.number < claim.number for trial in without_imported(claim.history))
        start = self._space.start[position] if position < len(self._space.start) else None
        given = self._space.drawn_from_start(start, self._knobs) if start else None
        origin = "start" if start else "sampled"
        taken = claim.history
        while True:
            drawn = self._draw(claim, given, taken)
            params = self._space.resolve(drawn, self._knobs)
            try:
                is_held = self._ledger.set_params(dataclasses.replace(claim, history=taken), drawn, params, origin)
                break
            except RepeatedDrawError:
                taken = tuple(trial for trial in self._ledger.history() if trial.number != claim.number)
        if not is_held:
            raise LeaseLostError
        self._notice_repeat(claim, drawn, taken)
        return dataclasses.replace(claim, drawn=drawn, params=params)

    def _draw(self, claim: Claim, given: Mapping[str, Any] | None, taken: Sequence[Configuration]) -> Mapping[str, Any]:
        return sampler.draw(
            self._space.search,
            claim.history,
            seed=self._seed,
            number=claim.number,
            last_rung=self._scheduler_config.last_rung,
            sampler=self._space.budget.sampler,
            given=given,
            taken=taken,
            knowledge=self._knowledge,
        )

    def _notice_repeat(self, claim: Claim, drawn: Mapping[str, Any], taken: Sequence[Configuration]) -> None:
        original = repeats.repeated_trial(taken, drawn)
        if original is not None:
            self._listener.notice(f"trial {claim.number}: {repeats.reason(self._space.search, original)}")

    def _handle_answer(self, claim: Claim, answer: JobAnswer) -> Claim | None:
        if not (isinstance(answer, Failure) and answer.failure in _MACHINE_FAILURES):
            self._has_machine_failed = False
        if isinstance(answer, SegmentStopped):
            self._ledger.release(claim)
        elif isinstance(answer, SegmentResult):
            return self._commit(claim, answer)
        elif isinstance(answer, Failure) and answer.failure in ("diverged", "oom"):
            self._fail(claim, answer)
        elif isinstance(answer, Failure):
            self._give_up(claim, answer)
        else:
            self._give_up(claim, Failure("bug", f"unexpected answer {answer}"))
        return None

    def _commit(self, claim: Claim, result: SegmentResult) -> Claim | None:
        """Record the result, and claim the next segment unless the work is to end."""
        config = self._scheduler_config
        outcome = SegmentOutcome(result.value, result.metrics, self._signed.version)
        worker = None if self._outcome_of_waiting() else self._signed.worker
        seconds_left = self._deadline - time.monotonic()
        state, next_claim = self._ledger.commit_and_claim(claim, outcome, config, worker, seconds_left)
        if state is None:
            self._handle_lost_lease(claim, "its result was not recorded")
        else:
            self._listener.rung(claim.number, claim.last_step, result.value, result.metrics, state)
        return next_claim

    def _fail(self, claim: Claim, failure: Failure) -> None:
        if self._ledger.fail(claim, failure.failure, failure.reason):
            self._listener.failed(claim.number, failure.failure, failure.reason)
        else:
            self._handle_lost_lease(claim, f"and it failed: {failure.reason}")

    def _give_up(self, claim: Claim, failure: Failure) -> None:
        """Stop the study for bad data or a bug, which would fail every trial; the claimed one is kept to be run.

        A full disk or a limit concerns this machine alone: the worker tries once more, then leaves.
        """
        reason = f"trial {claim.number}: {failure.reason}"
        if not self._ledger.release(claim, failure.reason):
            # Two workers at one checkpoint explain it: neither a bug nor a full disk.
            self._handle_lost_lease(claim, f"and it ended: {failure.reason}")
            return
        log = self._folder / "worker.log"
        if failure.failure in _MACHINE_FAILURES:
            if self._has_machine_failed:
                raise MachineError(f"{reason}; this worker leaves, the details are in {log}")
            self._has_machine_failed = True
            self._child.kill()  # a library that was loaded in part for want of memory stays so
            self._listener.notice(f"{reason}; it is tried once more")
            return
        self._ledger.request_stop(reason)
        if failure.failure == "input":
            raise UserError(failure.reason)
        raise RunError(f"{reason}; the details are in {log}")
