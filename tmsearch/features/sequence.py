"""Which clip was spoken after which, where a dataset tells: parts of one recording, or clips of one session."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from tmsearch.data.corpus import Clip

LONGEST_PAUSE = 3.0  # seconds; across a longer one, or where a clip of another split lies between, none is known
_SESSION = "session"  # columns of sessions are called so, see data/columns.py


class Sequences:
    """The clip behind each and before each, with the pause between them in seconds where both are parts of one file."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self.following: dict[str, tuple[str, float | None]] = {}
        self.preceding: dict[str, tuple[str, float | None]] = {}
        takes: defaultdict[str, list[Clip]] = defaultdict(list)
        for clip in clips:
            take = _take(clip)
            if take:
                takes[take].append(clip)
        for members in takes.values():
            members.sort(key=lambda clip: (clip.start or 0.0, _natural(clip.name)))
            for earlier, later in pairwise(members):
                pause = _pause(earlier, later)
                self.following[earlier.name] = (later.name, pause)
                self.preceding[later.name] = (earlier.name, pause)


def _take(clip: Clip) -> str:
    """What clips spoken one after the other share; empty where nothing tells."""
    if clip.source:
        return f"file={clip.source}"
    sessions = [entry for entry in clip.group[1:] if _SESSION in entry.partition("=")[0].lower()]
    return "\0".join(sessions)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts `clip10` behind `clip9`."""
    parts = re.findall(r"\d+|\D+", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _pause(earlier: Clip, later: Clip) -> float | None:
    if earlier.start is None or later.start is None:
        return None
    pause = later.start - earlier.start - earlier.seconds
    return max(0.0, pause) if pause <= LONGEST_PAUSE else None
