"""Workers as tasks of Ray Core: one task a worker, with one GPU each by default."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

from search.errors import RunError, UserError, first_line
from search.execution.launchers import LOCATION_VARIABLE, PARENT_VARIABLE, last_line, options
from search.exit_codes import INTERRUPTED

# Keys of --engine, as Ray names them.
OPTIONS = {
    "address": "of the cluster, such as ray://head:10001 (auto: the one that this machine belongs to)",
    "num_gpus": "GPUs of a worker (1); 0 on a cluster without",
    "num_cpus": "CPUs of a worker (1)",
    "resources": "a resource of your own that a worker needs, such as h100",
}
CONNECT_SECONDS = 10.0
SAVE_SECONDS = 600.0  # for a worker to finish its step and save


def run_worker(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """On the node: start a worker, wait for it, and return its exit code. A cancelled task lets it save first."""
    import ray

    node = ray.get_runtime_context().get_node_id()[:8]
    assigned = {LOCATION_VARIABLE: f"Ray node {node}", PARENT_VARIABLE: str(os.getpid())}
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env={**os.environ, **environment, **assigned})
    try:
        while (code := process.poll()) is None:
            time.sleep(0.2)
        return code
    except (KeyboardInterrupt, ray.exceptions.TaskCancelledError):
        process.terminate()
        return process.wait(timeout=SAVE_SECONDS)
    finally:
        if process.poll() is None:
            process.kill()


class RayLauncher:
    """Starts workers by `command` on the nodes of a cluster, where all that they need must be installed.

    Raises:
        UserError: Ray is not installed, or an option is not a number.
        RunError: there is no cluster at the address.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], options: Mapping[str, str], name: str
    ) -> None:
        import ray

        self._ray = ray
        self._command = list(command)
        self._environment = dict(environment)
        self._name = name
        self._requirements = _requirements(options)
        self._resources = {options["resources"]: 1.0} if "resources" in options else {}
        self._joined = not ray.is_initialized()
        address = options.get("address", "auto")
        if self._joined:
            _check_reachable(address)
            try:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise RunError(f"--on ray: no cluster at {address}: {first_line(error)}") from None

    def start(self, slot: int) -> RayWorker:
        # When a node disappears, Ray starts the task again on another one, as often as necessary.
        remote = self._ray.remote(run_worker).options(
            **self._requirements, resources=self._resources, max_retries=-1, name=f"{self._name}-{slot}"
        )
        return RayWorker(self._ray, remote.remote(self._command, self._environment))

    def close(self) -> None:
        """Leave the cluster, unless this process had joined it before."""
        if self._joined:
            self._ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise RunError if nothing listens at host:port; Ray itself would wait for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # auto, or another name that Ray resolves
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise RunError(f"--on ray: no cluster at {address}: {error.strerror or error}") from None


def checked_options(texts: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE of --engine by key, once it is known that Ray is here.

    Raises:
        UserError: an option is none of Ray's, or Ray is missing.
    """
    values = options(texts, OPTIONS)
    _requirements(values)
    if importlib.util.find_spec("ray") is None:
        raise UserError("--on ray: needs Ray: pip install 'tmsearch[ray]'")
    return values


def _requirements(options: Mapping[str, str]) -> dict[str, float]:
    """GPUs and cores of a worker."""
    return {key: _number(key, options.get(key, "1")) for key in ("num_gpus", "num_cpus")}


def _number(key: str, text: str) -> float:
    with contextlib.suppress(ValueError):
        if float(text) >= 0:
            return float(text)
    raise UserError(f"--engine {key}={text}: expected a number from 0")


class RayWorker:
    """A worker as a task of the cluster."""

    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray = ray
        self._reference = reference
        self._error = ""

    def poll(self) -> int | None:
        ready, _ = self._ray.wait([self._reference], timeout=0)
        if not ready:
            return None
        try:
            return int(self._ray.get(self._reference))
        except self._ray.exceptions.TaskCancelledError:
            return INTERRUPTED
        except self._ray.exceptions.RayError as error:
            self._error = last_line(str(error))
            return -9

    def stop(self) -> None:
        self._ray.cancel(self._reference, force=False)

    def kill(self) -> None:
        self._ray.cancel(self._reference, force=True)

    def last_line(self) -> str:
        return self._error
