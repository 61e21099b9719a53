"""Ways of choosing between configurations: halving with promotion, a synchronous bracket, Optuna's stopping rules."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator

from search.records import Configuration
from search.schedulers.paired_test import significantly_worse
from search.schedulers.scheduler import Policy, SchedulerState, Verdict, value_at

# Optuna's own pruners stop and never promote; search.schedulers.optuna_pruners asks them.
OPTUNA_POLICIES = ("optuna-median", "optuna-halving", "optuna-hyperband")


def _rests(one: Configuration) -> bool:
    """Whether it waits at a rung, or has lost there and may still be called back."""
    return one.state in ("paused", "pruned") and one.failure is None and one.steps > 0 and not one.unfinished


def _pauses(study: SchedulerState, mine: Configuration) -> Verdict:
    return "paused"


def _share(study: SchedulerState, rung: int, ranked: int) -> int:
    """How many of those judged at `rung` go on: one in eta."""
    return ranked // study.config.eta


def _late_share(study: SchedulerState, rung: int, ranked: int) -> int:
    """The same, but two in three past the last rung before the end, unless that is the first rung.

    Judging is cheap where little was trained yet, so that is where to be strict; whoever came to the last rung is too
    close to the others for a ranking to be trusted, and half of its way is paid for (replayed: studies/README.md).
    """
    rungs = study.config.rungs
    late = rung == rungs[-2] and rung != rungs[0] and study.config.eta > 1
    return 2 * ranked // 3 if late else _share(study, rung, ranked)


def _promoted(
    study: SchedulerState, at_least: int, share: Callable[[SchedulerState, int, int], int] = _share
) -> Configuration | None:
    """The best of a rung's `share` that still rests there; the highest rung with one is served first."""
    for rung in reversed(study.config.rungs[:-1]):
        ranked = study.at(rung)
        for one in ranked[: max(at_least if ranked else 0, share(study, rung, len(ranked)))]:
            if one.steps == rung and _rests(one):
                return one
    return None


def _halving(study: SchedulerState) -> Configuration | None:
    """Asynchronous successive halving (Li et al., arXiv:1810.05934, algorithm 2) with a late share, and a finish.

    Where nothing new is to be begun and nobody is at anything, the best of each rung goes on whatever its share; then,
    up to `max_full`, whoever the paired comparison cannot tell from the leader.
    """
    one = _promoted(study, 0, _late_share)
    if one is None and study.full and not study.is_busy:
        one = _promoted(study, 1, _late_share) or next(contenders(study), None)
    return one


def contenders(study: SchedulerState) -> Iterator[Configuration]:
    """Those that rest and can't be told from the leader where both were judged, as many as `max_full` has room for.

    The nearest to the end come first; the first one goes on, and what it comes to decides about the others.
    """
    last = study.config.rungs[-1]
    finished = [one for one in study.at(last) if math.isfinite(value_at(one, last))]
    if not finished:
        return
    leader, others = finished[0], [one for one in finished[1:] if not significantly_worse(finished[0], one, last)]
    room = study.config.max_full - len(others)
    for rung in reversed(study.config.rungs[:-1]):
        if rung not in leader.curve:
            continue
        for one in study.at(rung):
            if room > 0 and one.steps == rung and _rests(one) and not significantly_worse(leader, one, rung):
                room -= 1
                yield one


def promising(study: SchedulerState) -> list[Configuration]:
    """The resting ones whose checkpoints can still be needed, the most promising first.

    By their place at their rung; those beyond a full study's share of it, who can only be called back as contenders,
    come after all others.
    """
    shares: list[tuple[bool, float, int, Configuration]] = []
    for rung in study.config.rungs[:-1]:
        ranked = study.at(rung)
        for place, one in enumerate(ranked):
            if one.steps == rung and _rests(one) and one.state == "paused":
                beyond = place >= max(1, study.total // study.config.eta)
                shares.append((beyond, place / len(ranked), -rung, one))
    return [one for *_, one in sorted(shares, key=lambda each: each[:3])]


def _bracket(study: SchedulerState) -> Configuration | None:
    """Successive halving in step (Jamieson and Talwalkar, arXiv:1502.07943): a rung is complete before any goes on."""
    if not study.full:
        return None
    size = len(study.history)
    for rung in study.config.rungs[:-1]:
        ranked = study.at(rung)
        if len(ranked) < size and study.is_busy:
            return None
        size = max(1, size // study.config.eta)
        for one in ranked[:size]:
            if one.steps == rung and _rests(one):
                return one
    return None


def _still_in(study: SchedulerState) -> Configuration | None:
    """Whatever was not stopped goes on at once, lower numbers first."""
    return next((one for one in study.history if one.state == "paused" and _rests(one)), None)


def _optuna(name: str, study: SchedulerState, mine: Configuration) -> Verdict:
    from search.schedulers import optuna_pruners

    return "pruned" if optuna_pruners.should_prune(name, study, mine) else "paused"


def _race(study: SchedulerState) -> Configuration | None:
    from search.schedulers import racing  # numpy: reading a space file must not import it

    return racing.next_replicate(study)


def _all(study: SchedulerState, rung: int, ranked: int) -> int:
    return ranked


POLICIES: dict[str, Policy] = {
    "halving": Policy(_pauses, _halving, share=_late_share),
    "bracket": Policy(_pauses, _bracket, synchronous=True, share=_share),
    "none": Policy(_pauses, _still_in, share=_all),
    **{name: Policy(functools.partial(_optuna, name), _still_in) for name in OPTUNA_POLICIES},
}
# What a study may be run by; no space asks for a race, `tmsearch confirm` does.
ALL_POLICIES: dict[str, Policy] = {**POLICIES, "race": Policy(_pauses, _race, share=_all)}
