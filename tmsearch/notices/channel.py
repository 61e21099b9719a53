"""The one way by which notices are sent; what fails is said, and changes nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from tmsearch.errors import InputError
from tmsearch.notices import desktop, webhook
from tmsearch.notices.target import DESKTOP, is_target

VARIABLE = "TMSEARCH_NOTIFY"  # in place of a command's --notify


@dataclass(frozen=True)
class Channel:
    """To a webhook or the desktop. The target is in no text about it."""

    _target: str = field(repr=False)

    @property
    def problem(self) -> str | None:
        """Why nothing can arrive, as far as can be told before anything is sent."""
        if self._target == DESKTOP and desktop.is_missing():
            return "this machine has no notify-send (Debian: libnotify-bin)"
        return None

    def send(self, text: str) -> str | None:
        """Send `text`; returns why it did not arrive, or None. Takes seconds at most, and raises nothing."""
        if self._target == DESKTOP:
            return desktop.show(text)
        return webhook.post(self._target, text)


def channel(target: str | None) -> Channel | None:
    """The channel to `target`, else to what TMSEARCH_NOTIFY says; None: nobody wants a notice.

    The variable is removed, so that no process that is started from now on has it.

    Raises:
        InputError: the variable holds something else.
    """
    variable = os.environ.pop(VARIABLE, None)
    target = target or variable
    if not target:
        return None
    if not is_target(target):
        raise InputError(f"{VARIABLE}: neither an http(s) URL nor `desktop`")
    return Channel(target)
