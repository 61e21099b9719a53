"""Ways of choosing between configurations: halving with promotion, a synchronous bracket, Optuna's stopping rules."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator

from search.records import Configuration
from search.schedulers.paired_test import tells_apart
from search.schedulers.scheduler import Strategy, Study, Verdict, value_at

# Optuna's own pruners stop and never promote; search.schedulers.optuna_pruners asks them.
OPTUNA = ("optuna-median", "optuna-halving", "optuna-hyperband")


def _rests(one: Configuration) -> bool:
    """Whether it waits at a rung, or has lost there and may still be called back."""
    return one.state in ("paused", "pruned") and one.failure is None and one.steps > 0 and not one.unfinished


def _pauses(study: Study, mine: Configuration) -> Verdict:
    return "paused"


def _share(study: Study, rung: int, ranked: int) -> int:
    """How many of those judged at `rung` go on: one in eta."""
    return ranked // study.rule.eta


def _late_share(study: Study, rung: int, ranked: int) -> int:
    """The same, but two in three past the last rung before the end, unless that is the first rung.

    Judging is cheap where little was trained yet, so that is where to be strict; whoever came to the last rung is too
    close to the others for a ranking to be trusted, and half of its way is paid for (replayed: studies/README.md).
    """
    rungs = study.rule.rungs
    late = rung == rungs[-2] and rung != rungs[0] and study.rule.eta > 1
    return 2 * ranked // 3 if late else _share(study, rung, ranked)


def _promoted(study: Study, at_least: int, share: Callable[[Study, int, int], int] = _share) -> Configuration | None:
    """The best of a rung's `share` that still rests there; the highest rung with one is served first."""
    for rung in reversed(study.rule.rungs[:-1]):
        ranked = study.at(rung)
        for one in ranked[: max(at_least if ranked else 0, share(study, rung, len(ranked)))]:
            if one.steps == rung and _rests(one):
                return one
    return None


def _halving(study: Study) -> Configuration | None:
    """Asynchronous successive halving (Li et al., arXiv:1810.05934, algorithm 2) with a late share, and a finish.

    Where nothing new is to be begun and nobody is at anything, the best of each rung goes on whatever its share; then,
    up to `max_full`, whoever the paired comparison cannot tell from the leader.
    """
    one = _promoted(study, 0, _late_share)
    if one is None and study.full and not study.held:
        one = _promoted(study, 1, _late_share) or next(contenders(study), None)
    return one


def contenders(study: Study) -> Iterator[Configuration]:
    """Those that rest and can't be told from the leader where both were judged, as many as `max_full` has room for.

    The nearest to the end come first; the first one goes on, and what it comes to decides about the others.
    """
    last = study.rule.rungs[-1]
    finished = [one for one in study.at(last) if math.isfinite(value_at(one, last))]
    if not finished:
        return
    leader, others = finished[0], [one for one in finished[1:] if not tells_apart(finished[0], one, last)]
    room = study.rule.max_full - len(others)
    for rung in reversed(study.rule.rungs[:-1]):
        if rung not in leader.curve:
            continue
        for one in study.at(rung):
            if room > 0 and one.steps == rung and _rests(one) and not tells_apart(leader, one, rung):
                room -= 1
                yield one


def promising(study: Study) -> list[Configuration]:
    """The resting ones whose checkpoints can still be needed, the most promising first.

    By their place at their rung; those beyond a full study's share of it, who can only be called back as contenders,
    come after all others.
    """
    shares: list[tuple[bool, float, int, Configuration]] = []
    for rung in study.rule.rungs[:-1]:
        ranked = study.at(rung)
        for place, one in enumerate(ranked):
            if one.steps == rung and _rests(one) and one.state == "paused":
                beyond = place >= max(1, study.total // study.rule.eta)
                shares.append((beyond, place / len(ranked), -rung, one))
    return [one for *_, one in sorted(shares, key=lambda each: each[:3])]


def _bracket(study: Study) -> Configuration | None:
    """Successive halving in step (Jamieson and Talwalkar, arXiv:1502.07943): a rung is complete before any goes on."""
    if not study.full:
        return None
    size = len(study.history)
    for rung in study.rule.rungs[:-1]:
        ranked = study.at(rung)
        if len(ranked) < size and study.held:
            return None
        size = max(1, size // study.rule.eta)
        for one in ranked[:size]:
            if one.steps == rung and _rests(one):
                return one
    return None


def _still_in(study: Study) -> Configuration | None:
    """Whatever was not stopped goes on at once, lower numbers first."""
    return next((one for one in study.history if one.state == "paused" and _rests(one)), None)


def _optuna(name: str, study: Study, mine: Configuration) -> Verdict:
    from search.schedulers import optuna_pruners

    return "pruned" if optuna_pruners.prunes(name, study, mine) else "paused"


def _race(study: Study) -> Configuration | None:
    from search.schedulers import racing  # numpy: reading a space file must not import it

    return racing.next_replicate(study)


def _all(study: Study, rung: int, ranked: int) -> int:
    return ranked


STRATEGIES: dict[str, Strategy] = {
    "halving": Strategy(_pauses, _halving, share=_late_share),
    "bracket": Strategy(_pauses, _bracket, synchronous=True, share=_share),
    "none": Strategy(_pauses, _still_in, share=_all),
    **{name: Strategy(functools.partial(_optuna, name), _still_in) for name in OPTUNA},
}
# What a study may be run by; no space asks for a race, `tmsearch confirm` does.
EVERY: dict[str, Strategy] = {**STRATEGIES, "race": Strategy(_pauses, _race, share=_all)}
