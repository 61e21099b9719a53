"""A trial's checkpoints, in a folder for each claim on it: two processes that both believe it theirs never meet."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from pathlib import Path

from tmsearch.training import checkpoints

_PREFIX = "claim-"
_GONE = ".pending-"  # on its way out, as checkpoints names it


def folder(kept: Path, token: int) -> Path:
    """Where the claim with this fencing token writes."""
    return kept / f"{_PREFIX}{token:06d}"


def latest(kept: Path, at_most: int) -> Path | None:
    """The newest whole checkpoint of step `at_most` or before, whichever claim wrote it; broken ones are passed by."""
    found = [checkpoints.latest(one, at_most=at_most) for one in (kept, *sorted(kept.glob(f"{_PREFIX}*")))]
    return max((one for one in found if one is not None), key=checkpoints.step_of, default=None)


def keep_only(kept: Path, token: int, step: int) -> None:
    """Of this claim's checkpoints keep that of `step`; those of the claims before it go. Later claims are not ours."""
    mine = folder(kept, token)
    checkpoints.keep_only(mine, [step])
    checkpoints.keep_only(kept, [])  # what a program wrote there that knew no claims
    for other in kept.glob(f"{_PREFIX}*"):
        if other.name < mine.name:
            doomed = kept / f"{_GONE}{other.name}-{uuid.uuid4().hex}"
            with contextlib.suppress(FileNotFoundError):
                other.rename(doomed)
    for left in kept.glob(f"{_GONE}*"):
        shutil.rmtree(left, ignore_errors=True)
