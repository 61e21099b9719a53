"""`status`: a table that fits, coloured on a terminal alone; `--watch` in place, or page by page."""

import dataclasses
import re
import threading
import time

import pytest
import sqlalchemy as sa

from search.storage.schema import studies
from search.study import summarize
from tests.support import in_process
from tests.support.command import status, tmsearch
from tests.support.study_builder import THIS_PROCESS, claimed_study, commit_made_up
from tests.support.terminal import Screen, run_in_terminal
from tmsearch.api.status import status_of
from tmsearch.cli.commands.status import has_ended
from tmsearch.cli.view.status_page import page_lines
from tmsearch.cli.view.table import table


def text(line):
    return "".join(part for part, _ in line)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    return folder, claimed_study(folder, 200)[0]


@pytest.fixture(scope="module")
def midway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("midway")
    return folder, claimed_study(folder, 20, results=12)[0]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_every_configuration_has_a_line_that_fits(many, width):
    summary = summarize(many[1])
    page = [text(line) for line in page_lines(summary, width)]
    assert max(map(len, page)) <= width
    rows = [line for line in page if re.match(r" *\*?\d+ (pruned|finished|failed)", line)]
    assert len(rows) == 200
    assert sum("*" in row[:5] for row in rows) == 1
    assert any(line.startswith("rungs 100: ") for line in page)
    if width < 200:
        assert any(line.startswith("no room for") for line in page)
    else:
        assert not any(line.startswith("no room for") for line in page)
        assert "spec_time_masks" in " ".join(page) or "masks" in " ".join(page)


def test_states_are_words_and_columns_line_up(many):
    summary = summarize(many[1])
    status_table = table(summary, summary.history, 120)
    head = text(status_table.head[-1])
    for row in status_table.rows[:20]:
        assert text(row)[head.index("WER") : head.index("WER") + 3].strip(" ."), "a number ends below its name"
    failed = next(row for row in status_table.rows if "failed" in text(row))
    assert "the loss is not finite" in text(failed)
    assert {part.strip(): style for part, style in failed}["failed"] == "red"


def test_a_page_of_some_rows_keeps_the_best_and_those_at_work(midway):
    summary = summarize(midway[1])
    assert len(summary.history) > 9
    page = [text(line) for line in page_lines(summary, 80, 16)]
    assert len(page) <= 16
    assert any("running" in line for line in page)
    assert any(line.lstrip().startswith("*") for line in page)
    assert any(re.match(r"\d+ more: `tmsearch status many` lists all", line) for line in page)
    assert any(re.match(r"about .* left with 1 worker", line) for line in page)


def test_what_is_left_has_a_range_and_a_price(midway):
    folder, ledger = midway
    summary = summarize(ledger)
    page = [text(line) for line in page_lines(summary, 80, price=2.5)]
    (left,) = [number for number, line in enumerate(page) if " left with 1 worker" in line]
    assert re.match(r"about .* \(.* to .*\) left with 1 worker", page[left])
    assert re.match(r"  about [\d.]+ dollars \([\d.]+ to [\d.]+\)", page[left + 1])
    assert any(re.search(r"of training and evaluation, about [\d.]+ dollars at 2.5 an hour", line) for line in page)
    nobody = [text(line) for line in page_lines(dataclasses.replace(summary, workers=()), 80)]
    assert any(line.endswith("left with one worker; none works now") for line in nobody)
    printed = in_process.status(folder, "many", "--price", "36")
    assert printed["dollars_spent"] == pytest.approx(printed["seconds_spent"] / 100)
    left = printed["seconds_left"]
    assert left["low"] < left["seconds"] < left["high"]
    assert printed["dollars_left"] == pytest.approx(
        {"dollars": left["seconds"] / 100, "low": left["low"] / 100, "high": left["high"] / 100}
    )
    api = status_of(summarize(ledger), "storage", 36.0)
    assert (api.dollars_left_low, api.dollars_left_high) == (
        printed["dollars_left"]["low"],
        printed["dollars_left"]["high"],
    )
    assert (api.seconds_left_low, api.seconds_left_high) == (left["low"], left["high"])
    assert "dollars_spent" not in in_process.status(folder, "many")


def test_a_study_in_a_few_words(midway):
    folder = midway[0]
    brief = in_process.tmsearch(folder, "status", "many", "--brief", "--price", "2")
    assert brief.returncode == 0, brief.stderr
    assert len(brief.stdout) <= 501
    assert brief.stdout.startswith("study many: ")
    for other in ("--json", "--watch"):
        assert in_process.tmsearch(folder, "status", "many", "--brief", other).returncode == 2


def test_colours_only_where_they_are_wanted(midway):
    folder = midway[0]
    plain = tmsearch(folder, "status", "many")
    assert plain.returncode == 0, plain.stderr
    assert "\x1b" not in plain.stdout
    assert max(map(len, plain.stdout.splitlines())) <= 80
    assert "\x1b[36mrunning" in tmsearch(folder, "status", "many", FORCE_COLOR="1").stdout
    for words in (["status", "many"], ["list"], ["best", "many"], ["show", "many", "0"]):
        code, written = run_in_terminal(folder, *words)
        assert code == 0
        assert re.search(r"\x1b\[[\d;]*m", written)
        _, without = run_in_terminal(folder, *words, NO_COLOR="yes")
        assert set(re.findall(r"\x1b\[([\d;]*)m", without)) <= {"0", "1"}
        assert Screen(80).write(without).lines == Screen(80).write(written).lines


def test_a_terminal_of_60_columns_gets_60(midway):
    _, written = run_in_terminal(midway[0], "status", "many", width=60)
    assert Screen(60).write(written).wrapped == 0


def finish(ledger, scheduler_config, after):
    """What is left of a study, in a thread, after some seconds."""

    def work():
        time.sleep(after)
        ledger.release_stale()
        claim = ledger.claim(THIS_PROCESS, scheduler_config, again=True)
        while claim is not None:
            commit_made_up(ledger, scheduler_config, claim)
            claim = ledger.claim(THIS_PROCESS, scheduler_config)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_watch_ends_with_the_study(tmp_path):
    (tmp_path / "a").mkdir()
    ledger, scheduler_config = claimed_study(tmp_path / "a", 6, results=4)
    thread = finish(ledger, scheduler_config, 2.5)
    code, written = run_in_terminal(tmp_path / "a", "status", "--watch", "many", TMSEARCH_STUDIES="")
    thread.join()
    assert code == 0
    screen = Screen(80).write(written)
    assert screen.wrapped == 0
    assert sum(line.startswith("study many") for line in screen.lines) == 1, "in place"
    assert "running" not in screen.lines[0]
    assert has_ended(summarize(ledger))


def test_watch_ends_when_the_study_is_stopped(tmp_path):
    (tmp_path / "a").mkdir()
    ledger, _ = claimed_study(tmp_path / "a", 6, results=4)
    ledger.sign_out(THIS_PROCESS)
    ledger.request_stop("trial 4: the labels are gone")
    done = tmsearch(tmp_path / "a", "status", "many", "--watch=0.5s")
    assert done.returncode == 1
    assert "stopped: trial 4: the labels are gone" in done.stdout
    assert done.stderr == "tmsearch: many: stopped before its end; `tmsearch resume many` continues\n"


def test_ctrl_c_leaves_the_last_page_and_says_so_in_the_exit_code(midway):
    def press(written_so_far):
        if written_so_far.count("tells more") < 2:  # drawn twice, in place
            return b""
        time.sleep(0.2)
        return b"\x03"

    code, written = run_in_terminal(midway[0], "status", "many", "--watch", "1", keys=press)
    assert code == 130
    screen = Screen(80).write(written)
    assert sum(line.startswith("study many") for line in screen.lines) == 1
    assert "Traceback" not in written


def test_watch_in_a_pipe_prints_a_page_a_change(tmp_path):
    (tmp_path / "a").mkdir()
    ledger, scheduler_config = claimed_study(tmp_path / "a", 6, results=4)
    thread = finish(ledger, scheduler_config, 3.0)
    done = tmsearch(tmp_path / "a", "status", "many", "--watch=0.5s")
    thread.join()
    assert done.returncode == 0, done.stderr
    pages = done.stdout.split("\n\n")
    assert 2 <= len(pages) <= 14
    assert all(page.startswith("study many") for page in pages)
    assert len(set(pages)) == len(pages)
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--watch", "0.1"], "too short"), (["--watch", "--json"], "give one of them")],
)
def test_watch_says_what_it_cannot_do(midway, words, message):
    done = in_process.tmsearch(midway[0], "status", "many", *words)
    assert done.returncode == 2
    assert message in done.stderr


def test_json_has_what_it_had(midway):
    assert len(status(midway[0], "many")["configurations"]) == len(midway[1].history())


def test_a_study_with_rungs_in_seconds_is_refused_in_one_line(tmp_path):
    """Earlier versions had them; a study in the same database that has none is still listed."""
    ledger, _ = claimed_study(tmp_path, 2)
    with ledger.storage.write() as connection:
        row = dict(connection.execute(sa.select(studies)).mappings().one())
        budget = {**row["space"]["budget"], "rungs": [800], "rung_seconds": [300.0, 600.0]}
        timed = {**row, "id": row["id"] + 1, "name": "timed"}
        timed["space"] = {**row["space"], "study": "timed", "budget": budget}
        connection.execute(sa.insert(studies).values(timed))
    line = "tmsearch: timed: budget.rungs: this study's rungs are in seconds"
    for command in (["status", "timed"], ["best", "timed"], ["resume", "timed"], ["export", "timed", "-o", "a.yaml"]):
        done = in_process.tmsearch(tmp_path, *command)
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        assert done.stderr.startswith(line)
        assert len(done.stderr.splitlines()) == 1
    listed = in_process.tmsearch(tmp_path, "list")
    assert listed.returncode == 0
    assert listed.stdout.split()[0] == "many"
    assert listed.stderr.startswith(line)
    assert in_process.tmsearch(tmp_path, "delete", "timed", "--yes").returncode == 0


def test_a_long_table_has_the_intervals_of_the_leaders_and_says_so(many):
    summary = summarize(many[1])
    page = [text(line) for line in page_lines(summary, 120)]
    assert sum(bool(re.search(r"\.\d{3}-\.\d{3}", line)) for line in page) == 50
    assert any("95 % of the 50 best alone" in line for line in page)
