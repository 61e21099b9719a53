"""dashboard and tensorboard listen on this machine only, say where, and answer."""

import json
import signal
import socket
import time
import urllib.request

import pytest

from search.storage.database import open_storage
from tests.support.command import start, tmsearch
from tests.support.toy_study import toy_space, toy_study, work


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    space = toy_space(folder)
    ledger = toy_study(open_storage(f"sqlite:///{folder}/studies/tmsearch.db"), space, 2)
    work(ledger, space, folder / "studies" / "toy")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "studies" / "toy" / "tensorboard" / "0000")) as writer:
        writer.add_scalar("wer", 0.5, 1)
    return folder


def get(url: str) -> bytes:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.read()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def served(folder, *words):
    """(first line, port, process) of a server."""
    port = free_port()
    process = start(folder, *words, "--port", str(port))
    return process.stdout.readline(), port, process


def says_what_it_lacks(process) -> bool:
    """Whether the dashboard's second line says where the commands are that its page has no buttons for."""
    return "each study's note names the commands" in process.stdout.readline()


def ended(process) -> tuple[int, str]:
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    return process.returncode, output


def test_dashboard(folder):
    line, port, process = served(folder, "dashboard")
    try:
        assert f"http://127.0.0.1:{port}/" in line
        assert says_what_it_lacks(process)
        studies = json.loads(get(f"http://127.0.0.1:{port}/api/studies"))["study_summaries"]
        assert [study["study_name"] for study in studies] == ["toy"]
        assert b"<html" in get(f"http://127.0.0.1:{port}/dashboard/").lower()
        with socket.socket() as probe:
            assert probe.connect_ex((socket.gethostbyname(socket.gethostname()), port)) != 0 or socket.gethostbyname(
                socket.gethostname()
            ).startswith("127.")
        taken = tmsearch(folder, "dashboard", "--port", str(port))
        assert taken.returncode == 2
        assert "the port is taken; name another --port" in taken.stderr
    finally:
        code, output = ended(process)
    assert (code, output) == (130, "")


def test_more_than_this_machine_is_told_what_that_means(folder):
    line, port, process = served(folder, "dashboard", "--host", "0.0.0.0")
    try:
        assert f"http://0.0.0.0:{port}/" in line
        assert "everybody who reaches this address can change and delete studies" in process.stdout.readline()
        assert says_what_it_lacks(process)
        assert b"toy" in get(f"http://{socket.gethostname()}:{port}/api/studies")
    finally:
        assert ended(process) == (130, "")


@pytest.mark.parametrize("words", [("dashboard",), ("tensorboard", "toy")])
def test_an_address_of_another_machine_is_the_hosts_fault(folder, words):
    refused = tmsearch(folder, *words, "--host", "192.0.2.1")  # of no machine: RFC 5737
    assert refused.returncode == 2
    given, _, rest = refused.stderr.partition(": cannot assign requested address; ")
    assert given.startswith("tmsearch: --host 192.0.2.1 --port ")
    assert rest == "name an address of this machine as --host, such as 127.0.0.1\n"


def test_tensorboard(folder):
    line, port, process = served(folder, "tensorboard", "toy")
    try:
        assert f"http://127.0.0.1:{port}/" in line
        assert json.loads(get(f"http://127.0.0.1:{port}/data/runs")) == ["0000"]
    finally:
        code, output = ended(process)
    assert (code, output) == (130, "")
