"""Whether the Hugging Face hub answers, and takes the token that is set, which is never shown."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tmsearch.hub import LOOKUP_TIMEOUT, REQUEST_TIMEOUT, call_within, connection_failure


@dataclass(frozen=True)
class HubAccess:
    """What came of one request.

    Attributes:
        has_token: whether HF_TOKEN, or a file that `hf auth login` wrote, holds one.
        status: of the hub's answer: 200 for a token that it takes, 401 for one that it does not take, or for none.
        seconds: until the answer.
        failure: why there was no answer.
    """

    has_token: bool
    status: int | None = None
    seconds: float | None = None
    failure: str | None = None


def ask() -> HubAccess:
    """Ask the hub who the token's owner is, once; the answer takes a few seconds at most."""
    from huggingface_hub import constants, get_session, get_token

    token = get_token()
    if constants.HF_HUB_OFFLINE:
        return HubAccess(token is not None, failure="is not asked: HF_HUB_OFFLINE is set")

    headers = {"authorization": f"Bearer {token}"} if token else {}

    def request() -> tuple[int, float]:
        started = time.perf_counter()
        response = get_session().get(
            f"{constants.ENDPOINT}/api/whoami-v2", headers=headers, timeout=REQUEST_TIMEOUT, follow_redirects=True
        )
        return int(response.status_code), time.perf_counter() - started

    try:
        status, seconds = call_within(LOOKUP_TIMEOUT, request)
    except Exception as error:  # the transport's own classes; its text may quote headers
        return HubAccess(token is not None, failure=connection_failure(error))
    return HubAccess(token is not None, status, seconds)
