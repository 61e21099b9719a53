"""A small Hugging Face hub on the loopback: public, private and gated repositories served from folders.

    repos = {("dataset", "me/throat"): {"main": folder, "v1": older_folder}, ("model", "me/whisper"): {"main": other}}
    with Hub(repos, private={"me/throat"}, token="hf_right") as hub:
        subprocess.run([...], env={**os.environ, **hub.environment(cache_folder, token="hf_right")})
        hub.requests  # ["GET /api/datasets/me/throat", ...]

The client is the real one, in a process of its own, since huggingface_hub reads HF_ENDPOINT when it is imported.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Collection, Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

import yaml

Repos = Mapping[tuple[str, str], Mapping[str, Path]]

_API = re.compile(r"/api/(dataset|model)s/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(?:/(.*))?)?$")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)$")


class Hub:
    """The server, in a thread of this process; a context manager.

    `private` repositories exist only for a client with `token`; `gated` ones refuse their files to all others.
    `stalls` is a hub that accepts connections and never answers, `fails` the status that it answers everything with.
    `stop()` leaves a port that refuses connections.
    """

    handler: type[Handler]

    def __init__(
        self,
        repos: Repos,
        *,
        private: Collection[str] = (),
        gated: Collection[str] = (),
        token: str | None = None,
        stalls: bool = False,
        fails: int = 0,
    ) -> None:
        self.repos = repos
        self.private = private
        self.gated = gated
        self.token = token
        self.stalls = stalls
        self.fails = fails
        self.requests: list[str] = []
        self.closing = threading.Event()
        handler = type("Handler", (self.handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """What a child process needs to see this hub as the only one, with caches of its own in `home`."""
        return hub_environment(self.url, home, token)

    @staticmethod
    def commit(kind: str, repo: str, revision: str) -> str:
        """The 40 hex digits that a revision resolves to."""
        if re.fullmatch("[0-9a-f]{40}", revision):
            return revision
        return hashlib.sha1(f"{kind} {repo} {revision}".encode()).hexdigest()

    def folder(self, kind: str, repo: str, revision: str) -> Path | None:
        commit = self.commit(kind, repo, revision)
        revisions = self.repos[kind, repo]
        return next((folder for name, folder in revisions.items() if self.commit(kind, repo, name) == commit), None)


def hub_environment(url: str, home: Path, token: str | None = None) -> dict[str, str]:
    """Environment of a client of the hub at `url`; an empty HF_TOKEN counts as none, and `home` holds no token file."""
    return {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_TOKEN": token or "",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }


def refusing_url() -> str:
    """A URL where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    headers: Message
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._fail(404, "RepoNotFound", "no such route")

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.stalls:
            self.hub.closing.wait(60)
            self.close_connection = True
        elif self.hub.fails:
            self._fail(self.hub.fails, None, "out of order")
        elif match := _API.match(path):
            kind, repo, route, revision, below = match.groups()
            self._api(kind, repo, route, revision or "main", below or "")
        elif match := _FILE.match(path):
            prefix, repo, revision, name = match.groups()
            self._file("dataset" if prefix else "model", repo, revision, name)
        else:
            self._fail(404, "RepoNotFound", "Repository not found")

    def _folder(self, kind: str, repo: str, revision: str, *, file: bool = False) -> Path | None:
        """The revision's folder, or None when a refusal, worded and coded as the hub does, has been sent."""
        sent = self.headers.get("Authorization", "").removeprefix("Bearer ")
        is_authorized = self.hub.token is not None and sent == self.hub.token
        if sent and not is_authorized:
            self._fail(401, None, "Invalid credentials in Authorization header")
        elif (kind, repo) not in self.hub.repos or (repo in self.hub.private and not is_authorized):
            if is_authorized:
                self._fail(404, "RepoNotFound", "Repository not found")
            else:
                self._fail(401, "RepoNotFound", "Invalid username or password.")
        elif file and repo in self.hub.gated and not is_authorized:
            self._fail(401, "GatedRepo", f"Access to {kind} {repo} is restricted.")
        elif (folder := self.hub.folder(kind, repo, revision)) is None:
            self._fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return folder
        return None

    def _api(self, kind: str, repo: str, route: str | None, revision: str, below: str) -> None:
        folder = self._folder(kind, repo, revision)
        if folder is None:
            return
        files = sorted(path for path in (folder / below).rglob("*") if path.is_file())
        if route == "tree":
            if not files:
                self._fail(404, "EntryNotFound", f"{below} does not exist")
                return
            self._json([_entry(path, folder) for path in files])
            return
        names = [path.relative_to(folder).as_posix() for path in files]
        sha = self.hub.commit(kind, repo, revision)
        gated = "auto" if repo in self.hub.gated else False
        description = {"id": repo, "sha": sha, "private": repo in self.hub.private, "gated": gated, "tags": []}
        description["cardData"] = _card(folder / "README.md")
        self._json({**description, "siblings": [{"rfilename": name} for name in names]})

    def _file(self, kind: str, repo: str, revision: str, name: str) -> None:
        folder = self._folder(kind, repo, revision, file=True)
        if folder is None:
            return
        headers = {"X-Repo-Commit": self.hub.commit(kind, repo, revision)}
        path = folder / name
        if not path.is_file():
            self._fail(404, "EntryNotFound", "Entry not found", headers)
            return
        body = path.read_bytes()
        etag = hashlib.sha1(body).hexdigest()
        start = 0
        size = len(body)
        if match := re.match(r"bytes=(\d+)-(\d*)$", self.headers.get("Range", "")):
            start = int(match[1])
            body = body[start : int(match[2]) + 1 if match[2] else None]
            headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{size}"
        self._send(206 if start else 200, body, {**headers, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"})

    def _json(self, answer: object) -> None:
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _fail(self, status: int, code: str | None, message: str, more: Mapping[str, str] | None = None) -> None:
        headers = {**({"X-Error-Code": code} if code else {}), "X-Error-Message": message, **(more or {})}
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


Hub.handler = Handler


def _card(readme: Path) -> object:
    """The YAML between the first two lines of dashes."""
    parts = readme.read_text().split("---\n") if readme.is_file() else []
    return yaml.safe_load(parts[1]) if len(parts) > 2 else {}


def _entry(path: Path, folder: Path) -> dict[str, object]:
    body = path.read_bytes()
    oid = hashlib.sha1(body).hexdigest()
    return {"type": "file", "path": path.relative_to(folder).as_posix(), "size": len(body), "oid": oid}
