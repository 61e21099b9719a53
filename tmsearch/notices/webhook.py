"""A notice to a webhook: one POST of JSON, whose `text` Slack, Mattermost, Rocket.Chat and Google Chat show."""

from __future__ import annotations

import json
import urllib.request
from typing import Any
from urllib.error import HTTPError, URLError

from tmsearch.hub import call_within

SECONDS = 10.0  # for all of it, name resolution included


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A message is not sent on to another address than the one that was given."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def post(url: str, text: str) -> str | None:
    """Send `text`; returns why it was not taken, without the URL, or None. Raises nothing."""
    body = json.dumps({"text": text}).encode()
    try:
        call_within(SECONDS, lambda: _send(url, body))
    except HTTPError as error:
        return f"it was answered with {error.code}"
    except TimeoutError:
        return f"no answer within {SECONDS:g} s"
    except URLError as error:
        reason = error.reason
        return reason.strerror or type(reason).__name__ if isinstance(reason, OSError) else type(error).__name__
    except Exception as error:  # its text may quote the URL
        return type(error).__name__
    return None


def _send(url: str, body: bytes) -> None:
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"}, method="POST")
    with urllib.request.build_opener(_NoRedirects).open(request, timeout=SECONDS) as answer:
        answer.read(1)
