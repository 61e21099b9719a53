"""The dashboard's site: optuna-dashboard, the studies' reports beside it, and a check of who asks."""

from __future__ import annotations

import contextlib
import html
import ipaddress
import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from search import study
from search.dashboard.artifacts import artifacts_folder
from search.dashboard.published_study import show_waiting
from search.errors import RunError, UserError
from search.storage.database import Storage
from tmsearch.cli.services.annotator import REPORTS

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]
Page = Callable[[Storage, str], bytes]
# A study's list of trials. Asked for as it is, it comes without the pruned ones, which its filter brings back.
_TRIAL_LIST = re.compile(r"/dashboard/studies/\d+/trials")
_WITHOUT_PRUNED = "?exclude=Pruned"
_LOOK_SECONDS = 60.0
# No page from elsewhere shows the dashboard in a frame, where a person's click would change a study unknowingly.
_SAFETY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "frame-ancestors 'self'"),
    ("X-Frame-Options", "SAMEORIGIN"),
)


class Site:
    """A WSGI application: optuna-dashboard with the studies' reports under REPORTS.

    The dashboard has no password. So it refuses requests that a page from elsewhere makes: those with a foreign origin,
    and, where it is served to this machine alone (`local`), those for another host name (DNS rebinding).
    """

    def __init__(self, storage: Storage, dashboard: Application, page: Page, *, local: bool) -> None:
        self._storage = storage
        self._dashboard = dashboard
        self._page = page
        self._local = local
        self._cached: tuple[Any, bytes] | None = None
        self._building = threading.Lock()
        self._next_look = 0.0

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start_response(status, [*headers, *_SAFETY_HEADERS], *more)

        path = str(environ.get("PATH_INFO", ""))
        try:
            self._storage.check_file()
        except RunError as error:
            return _text_page(start, "503 Service Unavailable", f"{error}; start the dashboard again")
        if not self._is_allowed(environ):
            return _text_page(start, "403 Forbidden", "this dashboard answers to its own address only")
        if path.startswith(REPORTS):
            # PEP 3333 hands bytes over as if they were Latin-1.
            name = path.removeprefix(REPORTS).rstrip("/").encode("latin-1").decode(errors="replace")
            return self._report(name, start)
        self._show_waiting(path)
        if _TRIAL_LIST.fullmatch(path) and not environ.get("QUERY_STRING"):
            start("302 Found", [("Location", f"{path}{_WITHOUT_PRUNED}")])
            return []
        if path == "/favicon.ico":  # the dashboard has none, and a browser asks for it
            start("204 No Content", [])
            return []
        if path.startswith("/artifacts/") and not self._has_artifact(path.rpartition("/")[2]):
            return _text_page(start, "404 Not Found", "this file is not here: made on another machine, or removed")
        return self._dashboard(environ, start)

    def _show_waiting(self, path: str) -> None:
        """Let nothing that a killed worker left look like work; looked for once a minute, as a page asks for data."""
        now = time.monotonic()
        if not path.startswith("/api/") or now < self._next_look or self._storage.is_read_only:
            return
        self._next_look = now + _LOOK_SECONDS
        with contextlib.suppress(UserError, RunError):  # what asks for the page itself says it
            for name in study.names(self._storage):
                show_waiting(study.open_study(self._storage, name))

    def _has_artifact(self, artifact_id: str) -> bool:
        return (
            len(artifact_id) < 200
            and artifact_id.isprintable()
            and (artifacts_folder(self._storage) / artifact_id).is_file()
        )

    def _is_allowed(self, environ: Environ) -> bool:
        host = str(environ.get("HTTP_HOST", ""))
        origin = environ.get("HTTP_ORIGIN")
        try:
            name = urlsplit(f"//{host}").hostname or ""
            origin_host = host if origin is None else urlsplit(str(origin)).netloc
        except ValueError:  # brackets without an address in them
            return False
        return origin_host == host and (is_local(name) or not self._local)

    def _report(self, name: str, start: StartResponse) -> Iterable[bytes]:
        try:
            if name not in study.names(self._storage):
                return _text_page(start, "404 Not Found", f"there is no study {name}")
            body = self._current_page(name)
        except (UserError, RunError) as error:
            return _text_page(start, "503 Service Unavailable", str(error))
        start("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-cache")])
        return [body]

    def _current_page(self, name: str) -> bytes:
        """The page of the study as it is now; built again only when the study changed."""
        with self._building:
            summary = study.summarize(study.open_study(self._storage, name))
            revisions = sum(trial.revision for trial in summary.history)
            state = (name, summary.record, revisions, len(summary.facts))
            if self._cached is None or self._cached[0] != state:
                self._cached = (state, self._page(self._storage, name))
            return self._cached[1]


def is_local(host: str) -> bool:
    """Whether a host's name or address is a loopback one, which no other machine reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _text_page(start: StartResponse, status: str, line: str) -> Iterable[bytes]:
    start(status, [("Content-Type", "text/html; charset=utf-8")])
    return [f"<!doctype html><title>{status}</title><p>{html.escape(line)}</p>".encode()]
