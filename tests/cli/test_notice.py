"""When a notice is sent at the end of a command, and what it says."""

import contextlib
import os

import pytest

from search.errors import RunError, UserError
from tests.support.study_builder import claimed_study
from tmsearch.cli import notice as module
from tmsearch.cli.notice import notice_at_end
from tmsearch.cli.view.chat import LONGEST
from tmsearch.errors import InputError
from tmsearch.notices import channel as notice_channel


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """A storage with the study `many`, midway."""
    return claimed_study(tmp_path_factory.mktemp("many"), 20, results=12)[0].storage


class PlayedChannel:
    def __init__(self):
        self.sent = []
        self.problem = None
        self.failure = None

    def send(self, text):
        self.sent.append(text)
        if isinstance(self.failure, BaseException):
            raise self.failure
        return self.failure


@pytest.fixture
def sent(monkeypatch):
    played = PlayedChannel()
    monkeypatch.setattr(module, "channel", lambda target: played if target else None)
    return played


def ended(storage, outcome, name="many", notify="desktop", price=None):
    """A command that ends with an exit code or an error."""
    with notice_at_end(storage, notify, price) as notice:
        notice.study = name
        if isinstance(outcome, BaseException):
            raise outcome
        return notice.ended(outcome)


def test_nobody_who_did_not_ask_is_told(storage, sent):
    assert ended(storage, 0, notify=None) == 0
    assert ended(storage, 0, name=None) == 0, "a dry run has no study"
    assert sent.sent == []


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (0, "stopped before its end, everything is kept"),
        (130, "interrupted, everything is kept"),
        (1, "failed: no trial has a result"),
        (KeyboardInterrupt(), "interrupted, everything is kept"),
        (
            RunError("postgresql://me:password@host/db: the disk\nis full"),
            "failed: postgresql://***(at)host/db: the disk",
        ),
        (ZeroDivisionError(), "failed: ZeroDivisionError"),
    ],
)
def test_the_first_line_says_how_it_ended(storage, sent, outcome, words):
    if isinstance(outcome, BaseException):
        with pytest.raises(type(outcome)):
            ended(storage, outcome)
    else:
        assert ended(storage, outcome) == outcome
    (text,) = sent.sent
    assert text.splitlines()[0] == f"study many: {words}"
    assert text.splitlines()[1] == "11 configurations: 10 paused, 1 running"


def test_a_mistake_is_told_on_the_terminal_alone_unless_it_took_long_to_find(storage, sent, monkeypatch):
    with pytest.raises(UserError):
        ended(storage, UserError("spaces/x.yaml: no such knob"))
    assert sent.sent == []
    monkeypatch.setattr(module, "_AT_THE_TERMINAL", -1.0)
    with pytest.raises(UserError):
        ended(storage, UserError("data.dataset: no such folder"))
    assert "failed: data.dataset: no such folder" in sent.sent[0]


@pytest.mark.parametrize("outcome", [0, RunError("the disk is full")])
def test_the_variable_is_gone_while_the_study_is_at_work_and_back_for_the_next_call(storage, monkeypatch, outcome):
    """A process that is started meanwhile must not have it; a notebook calls again."""
    monkeypatch.setattr(notice_channel.Channel, "send", lambda self, text: None)
    monkeypatch.setenv("TMSEARCH_NOTIFY", "https://hook/secret")
    for _ in range(2):
        with contextlib.suppress(RunError), notice_at_end(storage, None) as notice:
            assert "TMSEARCH_NOTIFY" not in os.environ
            notice.study = "many"
            if isinstance(outcome, RunError):
                raise outcome
        assert os.environ["TMSEARCH_NOTIFY"] == "https://hook/secret"
    monkeypatch.setenv("TMSEARCH_NOTIFY", "mailto:me")
    for _ in range(2):
        with pytest.raises(InputError, match="TMSEARCH_NOTIFY: neither"), notice_at_end(storage, None):
            pass


def test_a_study_that_cannot_be_read_still_has_a_notice(storage, sent):
    ended(storage, 0, name="gone")
    assert sent.sent == ["study gone: has ended"]


@pytest.mark.parametrize("failure", ["it was answered with 404", KeyboardInterrupt(), ValueError("https://secret")])
def test_what_becomes_of_the_notice_changes_nothing(storage, sent, failure, capsys):
    sent.failure = failure
    assert ended(storage, 0) == 0
    error = capsys.readouterr().err
    assert error.startswith("no notice was sent: ")
    assert "secret" not in error


def test_a_desktop_that_cannot_show_it_is_told_at_once(storage, sent, capsys):
    sent.problem = "this machine has no notify-send"
    ended(storage, 0)
    assert "no notice will be shown" in capsys.readouterr().err


def test_a_price_is_in_the_notice_and_the_text_may_be_anothers(storage, sent):
    ended(storage, 0, price=2.5)
    assert "dollars at 2.5 an hour" in sent.sent[0]
    with notice_at_end(storage, "desktop") as notice:
        notice.study = "many"
        notice.text_of = lambda summary, ending: f"{summary.record.name}, {ending}, the winner is real"
        notice.ended(0)
    assert sent.sent[1] == "many, stopped before its end, everything is kept, the winner is real"
    assert all(len(text) <= LONGEST for text in sent.sent)
