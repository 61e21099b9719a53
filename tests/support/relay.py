"""A relay in front of a PostgreSQL cluster that counts round trips, and can make each of them slow."""

import contextlib
import selectors
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

_TERMINATE = b"X\x00\x00\x00\x04"  # a client that leaves waits for no answer


@dataclass(frozen=True)
class Flight:
    """One message of a client that it waits for the answer of: a round trip."""

    connection: int  # in the order in which they were opened
    time: float  # time.monotonic()
    message: bytes


class Relay:
    """Listens on a socket in a folder of its own and passes everything on to the cluster's.

    Args:
        folder: of the relay's socket.
        cluster: the server's folder.
        database: its name.
        delay: seconds that everything takes on its way, in each direction.
    """

    def __init__(self, folder: Path, cluster: Path, database: str = "postgres", delay: float = 0.0):
        self.url = f"postgresql://tester@/{database}?host={folder}"
        self.flights: list[Flight] = []
        self.delay = delay
        self._target = str(cluster / ".s.PGSQL.5432")
        self._listener = socket.socket(socket.AF_UNIX)
        folder.mkdir()
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen(64)
        self._connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._target)
                threading.Thread(target=self._pass_on, args=(self._connections, client, server), daemon=True).start()
                self._connections += 1

    def _pass_on(self, connection, client, server):
        """Until one side closes: each way a change of direction, from answers to questions, is a flight."""
        is_answering = True
        with contextlib.suppress(OSError), client, server, selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in ready.select():
                    data = key.fileobj.recv(2**16)
                    if not data:
                        return
                    is_question = key.fileobj is client
                    if is_question and is_answering and not data.startswith(_TERMINATE):
                        self.flights.append(Flight(connection, time.monotonic(), data))
                    is_answering = not is_question
                    time.sleep(self.delay)
                    key.data.sendall(data)
