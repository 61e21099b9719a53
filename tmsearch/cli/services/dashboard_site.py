"""The dashboard's site: optuna-dashboard, the studies' reports beside it, and who may ask for either."""

from __future__ import annotations

import html
import ipaddress
import threading
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from search import study
from search.dashboard.artifacts import artifacts_folder
from search.errors import RunError, UserError
from search.storage.database import Storage
from tmsearch.cli.services.annotator import REPORTS

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]
Page = Callable[[Storage, str], str]


class Site:
    """A WSGI application. `local`: it is served to this machine alone, so nobody may ask for it by another name.

    A page from elsewhere that gives its own name this machine's address (DNS rebinding), or that sends what changes a
    study, is refused: the dashboard has no password.
    """

    def __init__(self, storage: Storage, dashboard: Application, page: Page, *, local: bool) -> None:
        self._storage = storage
        self._dashboard = dashboard
        self._page = page
        self._local = local
        self._last: tuple[Any, bytes] | None = None
        self._building = threading.Lock()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start_response(status, [*headers, ("X-Content-Type-Options", "nosniff")], *more)

        path = str(environ.get("PATH_INFO", ""))
        if not self._welcome(environ):
            return _plain(start, "403 Forbidden", "this dashboard answers to its own address only")
        if path.startswith(REPORTS):
            # PEP 3333 hands bytes over as if they were Latin-1.
            name = path.removeprefix(REPORTS).rstrip("/").encode("latin-1").decode(errors="replace")
            return self._report(name, start)
        if path == "/favicon.ico":  # the dashboard has none, and a browser asks for it
            start("204 No Content", [])
            return []
        if path.startswith("/artifacts/") and not self._has(path.rpartition("/")[2]):
            return _plain(start, "404 Not Found", "this file is not here: made on another machine, or removed")
        return self._dashboard(environ, start)

    def _has(self, artifact_id: str) -> bool:
        return len(artifact_id) < 200 and (artifacts_folder(self._storage) / artifact_id).is_file()

    def _welcome(self, environ: Environ) -> bool:
        host, origin = str(environ.get("HTTP_HOST", "")), environ.get("HTTP_ORIGIN")
        if self._local and not is_local(urlsplit(f"//{host}").hostname or ""):
            return False
        return origin is None or urlsplit(str(origin)).netloc == host

    def _report(self, name: str, start: StartResponse) -> Iterable[bytes]:
        try:
            if name not in study.names(self._storage):
                return _plain(start, "404 Not Found", f"there is no study {name}")
            body = self._built(name)
        except (UserError, RunError) as error:
            return _plain(start, "503 Service Unavailable", str(error))
        start("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-cache")])
        return [body]

    def _built(self, name: str) -> bytes:
        """The page of the study as it is now; the last one is kept."""
        with self._building:
            summary = study.summarize(study.open_study(self._storage, name))
            state = (name, summary.record, sum(one.revision for one in summary.history), len(summary.facts))
            if self._last is None or self._last[0] != state:
                self._last = (state, self._page(self._storage, name).encode())
            return self._last[1]


def is_local(host: str) -> bool:
    """Whether a host's name or address is this machine's own, that no other one reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _plain(start: StartResponse, status: str, line: str) -> Iterable[bytes]:
    start(status, [("Content-Type", "text/html; charset=utf-8")])
    return [f"<!doctype html><title>{status}</title><p>{html.escape(line)}</p>".encode()]
