"""A webhook on the loopback: it keeps what it is sent, and answers as the last part of the path says.

with Webhook() as hook:
    post(f"{hook.url}/404", "text")   # `stall` never answers; 302 sends elsewhere
    hook.texts                        # ["text"]
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

SECRET = "T0B0sEcReT"


class Webhook:
    """The server, in a thread of this process; a context manager. `taken` has (path, content type, text)."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str, str]] = []
        self.closing = threading.Event()
        handler = type("Handler", (_Handler,), {"hook": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/{SECRET}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def texts(self) -> list[str]:
        return [text for *_, text in self.taken]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hook: Webhook

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        assert list(body) == ["text"]
        self.hook.taken.append((self.path, self.headers["Content-Type"], body["text"]))
        answer = self.path.rpartition("/")[2]
        if answer == "stall":
            self.hook.closing.wait(30)
            return
        self.send_response(int(answer))
        self.send_header("Location", "/elsewhere/200")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def do_GET(self) -> None:
        self.hook.taken.append((self.path, "", "a redirect was followed"))
        self.send_error(404)
