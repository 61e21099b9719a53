"""The strategies of the space file: asynchronous successive halving, a synchronous bracket, none, Optuna's pruners."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

from search.records import Configuration
from search.schedulers.paired_test import significantly_worse
from search.schedulers.scheduler import Policy, SchedulerState, Verdict, is_waiting, value_at

# Optuna's own pruners stop trials and never promote any; see search.schedulers.optuna_pruners.
OPTUNA_POLICIES = ("optuna-median", "optuna-halving", "optuna-hyperband")


def _waiting_at(rung: int, ranked: list[Configuration]) -> Iterator[Configuration]:
    """Those of the ranked trials that wait at `rung` itself, best first."""
    for trial in ranked:
        if trial.steps == rung and is_waiting(trial):
            yield trial


def _always_pause(state: SchedulerState, trial: Configuration) -> Verdict:
    return "paused"


def _one_in_eta(state: SchedulerState, rung: int, judged: int) -> int:
    return judged // state.config.eta


def _one_in_eta_then_more(state: SchedulerState, rung: int, judged: int) -> int:
    """One in eta, but two in three past the last rung before the end, unless that is the first rung.

    Strictness is cheap where little was trained. Trials that reached the last rung are too close to each other for
    their ranking to be trusted, and half of their training is paid for (simulated: studies/README.md).
    """
    rungs = state.config.rungs
    is_late = rung == rungs[-2] and rung != rungs[0] and state.config.eta > 1
    return 2 * judged // 3 if is_late else _one_in_eta(state, rung, judged)


def _all(state: SchedulerState, rung: int, judged: int) -> int:
    return judged


def _promoted(state: SchedulerState, at_least: int) -> Configuration | None:
    """The best waiting trial within its rung's share, or among the best `at_least`; highest rung first."""
    for rung in reversed(state.config.rungs[:-1]):
        ranked = state.ranked_at(rung)
        share = max(at_least, _one_in_eta_then_more(state, rung, len(ranked)))
        for trial in _waiting_at(rung, ranked[:share]):
            return trial
    return None


def _halving(state: SchedulerState) -> Configuration | None:
    """By a plan of what the study may spend (planned.py), where `spend` is set; else asynchronous successive halving.

    That is Li et al., arXiv:1810.05934, algorithm 2, with a late share and a finish.
    The finish starts when no new trial may start and no worker is training: the best of each rung goes on whatever
    its share; then, up to `max_full`, trials that the paired test cannot tell from the leader.
    """
    if state.config.is_planned:
        from search.schedulers import planned  # numpy: reading a space file must not import it

        return planned.promote(state)
    trial = _promoted(state, 0)
    if trial is None and state.is_full and not state.is_busy:
        trial = _promoted(state, 1) or next(tied_with_leader(state), None)
    return trial


def tied_with_leader(state: SchedulerState) -> Iterator[Configuration]:
    """Waiting trials that are not significantly worse than the leader where both were judged, nearest to the end first.

    At most as many as make `max_full` beside the leader. Only the first one goes on; its result decides on the others.
    """
    last = state.config.last_rung
    finished = [trial for trial in state.ranked_at(last) if math.isfinite(value_at(trial, last))]
    if not finished:
        return
    leader = finished[0]
    room = state.config.max_full
    for trial in finished[1:]:
        if room <= 0:  # the errors by clip of a long study's others need not be read
            return
        room -= not significantly_worse(leader, trial, last)
    for rung in reversed(state.config.rungs[:-1]):
        if rung not in leader.curve:
            continue
        for trial in _waiting_at(rung, state.ranked_at(rung)):
            if room > 0 and not significantly_worse(leader, trial, rung):
                room -= 1
                yield trial


def promising(state: SchedulerState) -> list[Configuration]:
    """The paused trials whose checkpoints may still be needed, the most promising first.

    Ordered by rank within their rung. Those beyond a full study's share of the rung come last: they can only be
    called back as ties with the leader.
    """
    if state.config.is_planned:
        return _most_expected(state)
    ordered: list[tuple[bool, float, int, int, Configuration]] = []
    within_share = max(1, state.total // state.config.eta)
    for rung in state.config.rungs[:-1]:
        ranked = state.ranked_at(rung)
        for rank, trial in enumerate(ranked):
            if trial.steps == rung and is_waiting(trial) and trial.state == "paused":
                ordered.append((rank >= within_share, rank / len(ranked), -rung, len(ordered), trial))
    return [trial for *_, trial in sorted(ordered)]


def _most_expected(state: SchedulerState) -> list[Configuration]:
    """The paused trials in the order in which a plan lets them go on; then those that can hardly win any more."""
    from search.schedulers import planned

    paused = [trial for trial in state.history if is_waiting(trial) and trial.state == "paused"]
    numbers = [trial.number for trial in planned.contenders(state)]
    rank = {number: index for index, number in enumerate(numbers)}
    return sorted(paused, key=lambda trial: (trial.origin != "start", rank.get(trial.number, len(rank)), trial.number))


def _bracket(state: SchedulerState) -> Configuration | None:
    """Synchronous successive halving (Jamieson and Talwalkar, arXiv:1502.07943): rungs are completed one by one."""
    if not state.is_full:
        return None
    size = len(state.history)
    for rung in state.config.rungs[:-1]:
        ranked = state.ranked_at(rung)
        if len(ranked) < size and state.is_busy:
            return None
        size = max(1, size // state.config.eta)
        for trial in _waiting_at(rung, ranked[:size]):
            return trial
    return None


def _first_paused(state: SchedulerState) -> Configuration | None:
    """The lowest-numbered trial that was not pruned; it goes on at once."""
    return next((trial for trial in state.history if trial.state == "paused" and is_waiting(trial)), None)


def _optuna(name: str, state: SchedulerState, trial: Configuration) -> Verdict:
    from search.schedulers import optuna_pruners  # Optuna: reading a space file must not import it

    return "pruned" if optuna_pruners.should_prune(name, state, trial) else "paused"


def _race(state: SchedulerState) -> Configuration | None:
    from search.schedulers import racing  # numpy: likewise

    return racing.next_replicate(state)


POLICIES: dict[str, Policy] = {
    "halving": Policy(_always_pause, _halving, share=_one_in_eta_then_more),
    "bracket": Policy(_always_pause, _bracket, synchronous=True, share=_one_in_eta),
    "none": Policy(_always_pause, _first_paused, share=_all),
    **{name: Policy(functools.partial(_optuna, name), _first_paused) for name in OPTUNA_POLICIES},
}
# A race cannot be asked for in a space file: `tmsearch confirm` runs it. `race` is that of versions before 0.2.0.
_RACE = Policy(_always_pause, _race, share=_all)
ALL_POLICIES: dict[str, Policy] = {**POLICIES, "race": _RACE, "drop-losers": _RACE}
