"""Watching a study through its ledger: what changed since the last look, told as one worker tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.errors import StorageUnavailableError
from search.execution.lease import Listener
from search.execution.messages import ProgressEvent
from search.records import Configuration
from search.storage.ledger import Ledger


class Monitor:
    """Tells a listener what all workers of a study do, wherever they run. What was there before it came is not told."""

    def __init__(self, ledger: Ledger, listener: Listener) -> None:
        self._ledger = ledger
        self._listener = listener
        self._seen: dict[int, Configuration] = {one.number: one for one in ledger.history()}
        self._facts: Mapping[str, Any] = ledger.facts()
        self._gone = False

    def try_look(self) -> None:
        """As `look`; a database that is away is said once, and looked at again the next time."""
        try:
            self.look()
        except StorageUnavailableError as gone:
            if not self._gone:
                self._listener.notice(f"{gone}; the workers wait for it")
            self._gone = True
        else:
            if self._gone:
                self._listener.notice("the database answers again")
            self._gone = False

    def look(self) -> None:
        """Tell what is new."""
        facts = self._ledger.facts()
        for key in sorted(set(facts) - set(self._facts)):
            self._listener.fact(key, facts[key])
        self._facts = facts
        history = self._ledger.history()
        for one in history:
            self._changed(self._seen.get(one.number), one)
        places = {one.identity: one.place for one in self._ledger.workers()}
        at_work = [one for one in history if one.state == "running" and one.params is not None]
        self._listener.at_work({one.number: places.get(one.worker or "", "") for one in at_work})

    def _changed(self, before: Configuration | None, one: Configuration) -> None:
        if one.state == "running" and one.params is None:
            return  # told once it is drawn
        known = len(before.rungs) if before else 0
        began = before.token if before else 0
        new = one.rungs[known:]
        for place, rung in enumerate(new, start=1):
            last = place == len(new)
            state = one.state if last and one.state in ("pruned", "finished") else "paused"
            self._listener.rung(one.number, rung.step, rung.value, rung.metrics, state)
        if one.failure and not (before and before.failure):
            self._listener.failed(one.number, one.failure, one.reason or "")
        if one.state == "running" and one.token != began:
            self._listener.claimed(one.number, one.params or {}, one.steps, one.target)
        elif one.state == "running" and one.progress and (before is None or one.progress != before.progress):
            self._listener.progress(one.number, ProgressEvent.from_json(one.progress))
        self._seen[one.number] = one
