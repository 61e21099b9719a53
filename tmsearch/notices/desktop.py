"""A notice on this machine's desktop, by the program notify-send (Debian: libnotify-bin)."""

from __future__ import annotations

import shutil
import subprocess

_PROGRAM = "notify-send"
_SECONDS = 5.0


def is_missing() -> bool:
    """Whether this machine has no program for it."""
    return shutil.which(_PROGRAM) is None


def show(text: str) -> str | None:
    """Show `text`, its first line as the title; returns why it was not shown, or None. Raises nothing."""
    title, _, body = text.partition("\n")
    command = [_PROGRAM, "--app-name=tmsearch", "--", title, body]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_SECONDS)
    except FileNotFoundError:
        return f"this machine has no {_PROGRAM}"
    except (OSError, subprocess.SubprocessError) as error:
        return f"{_PROGRAM}: {type(error).__name__}"
    return f"{_PROGRAM} ended with {done.returncode}" if done.returncode else None
