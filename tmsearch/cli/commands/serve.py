"""The commands dashboard and tensorboard."""

from __future__ import annotations

import argparse
import errno
import functools
import socket
import sys
import threading
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from search import study
from search.errors import UserError
from search.exit_codes import DONE
from search.space.errors import printable
from search.storage import ownership
from search.storage.database import open_storage


class _QuietHandler(WSGIRequestHandler):
    """Logs no requests."""

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each request: browsers open connections long before they send a request."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Print errors, but not those of a browser that closed its connection in the middle of an answer."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _ServerIPv6(_Server):
    """For IPv6 addresses such as ::1."""

    address_family = socket.AF_INET6


def _check_port(host: str, port: int) -> None:
    """Raise UserError where nothing can listen at host and port."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        given = f"--host {printable(host)} --port {port}"
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"{given}: the port is taken; name another --port") from None
        if error.errno == errno.EACCES:
            raise UserError(f"{given}: only root may listen there; name a --port from 1024 on") from None
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"{given}: {reason}; name an address of this machine as --host, such as 127.0.0.1") from None


def dashboard(arguments: argparse.Namespace) -> int:
    """Serve optuna-dashboard until Ctrl-C."""
    from search.dashboard.artifacts import dashboard_application
    from tmsearch.cli.services.dashboard_site import Site, is_local
    from tmsearch.cli.services.report.apart import call_apart
    from tmsearch.cli.services.report.study_report import page

    storage = open_storage(arguments.storage)
    if not study.names(storage):
        raise UserError(f"{storage.display_name}: there is no study yet; `tmsearch run` makes one")
    _check_port(arguments.host, arguments.port)
    server_class = _Server
    host = arguments.host
    if ":" in host:
        server_class = _ServerIPv6
        host = f"[{host}]"
    local = is_local(arguments.host)
    site = Site(storage, dashboard_application(storage), functools.partial(page, call=call_apart), local=local)
    with make_server(arguments.host, arguments.port, site, server_class, _QuietHandler) as server:
        print(
            f"optuna-dashboard on {storage.display_name}: http://{host}:{server.server_port}/ (Ctrl-C ends it)",
            flush=True,
        )
        if storage.is_read_only:
            print("the database is read-only: what is changed in the dashboard is not saved", flush=True)
        if not local:
            print("everybody who reaches this address can change and delete studies: there is no password", flush=True)
        print("it has no buttons to stop a study or queue a recipe: each study's note names the commands", flush=True)
        server.serve_forever()
    return DONE


def tensorboard(arguments: argparse.Namespace) -> int:
    """Serve TensorBoard until Ctrl-C."""
    ledger = study.open_study(open_storage(arguments.storage), arguments.study)
    folder = ownership.checked_folder(ledger) / "tensorboard"
    if not folder.is_dir():
        raise UserError(f"{arguments.study}: no trial has started yet, so there is nothing to show")
    _check_port(arguments.host, arguments.port)
    from tensorboard import program

    server = program.TensorBoard()
    options = ["tensorboard", "--logdir", str(folder), "--host", arguments.host, "--port", str(arguments.port)]
    # The fast loader is a process of its own that outlives a kill of this one.
    server.configure(argv=[*options, "--load_fast", "false"])
    print(f"TensorBoard on {folder}: {server.launch()} (Ctrl-C ends it)", flush=True)
    threading.Event().wait()
    return DONE
