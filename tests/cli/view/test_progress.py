"""The live lines of a run: cut to the terminal, in place, gone at the end; plain lines everywhere else."""

import dataclasses
import io
import re
import sys
import threading
import time

import pytest
from rich.console import Console

from search.execution.messages import ProgressEvent
from search.schedulers.eta import TimeLeft
from search.study import summarize
from tests.support.study_builder import claimed_study
from tests.support.terminal import Screen
from tmsearch.cli.view.closing import closing_lines
from tmsearch.cli.view.live import LiveDisplay, RunningTrial, pack_parts
from tmsearch.cli.view.progress import ProgressPrinter


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    """Of a study in the middle of its work."""
    ledger, _ = claimed_study(tmp_path_factory.mktemp("display"), 20, results=18)
    return summarize(ledger)


def run_of(summary, console, workers, between=lambda display: None):
    """Eight trials, or as many as `workers`, from their claims to their results."""
    numbers = range(30, 30 + workers)
    with ProgressPrinter(summary, workers, console=console) as display:
        for number in numbers:
            display.claimed(number, {"learning_rate": 1e-5, "warmup_steps": 10}, 100, 200)
        display.at_work({number: f"GPU {number - 30}" for number in numbers})
        for number in numbers:
            display.progress(number, ProgressEvent(step=150, loss=1.2345, seconds=0.52))
        between(display)
        for number in numbers:
            display.rung(number, 200, 0.4, {"train_seconds": 10.0, "eval_seconds": 1.0}, "paused")


def terminal(width, height=24, **more):
    return Console(
        file=io.StringIO(), width=width, height=height, force_terminal=True, legacy_windows=False, highlight=False,
        color_system="truecolor", _environ={"TERM": "xterm"}, **more,
    )  # fmt: skip


def frame(console, board):
    """What of a board is drawn."""
    with console.capture() as caught:
        console.print(board)
    return Screen(console.width).write(caught.get().replace("\n", "\r\n"))


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
@pytest.mark.parametrize("workers", [1, 8])
def test_lines_are_cut_and_gone_at_the_end(summary, width, workers):
    console = terminal(width)
    frames = []

    def look(display):
        frames.append(frame(terminal(width), display._lines_below))

    run_of(summary, console, workers, look)
    (drawn,) = frames
    assert drawn.wrapped == 0
    assert len(drawn.lines) <= 24
    assert sum(bool(re.match(r"trial 3\d +step 150/800", line)) for line in drawn.lines) == workers
    text = "\n".join(drawn.lines)
    if width >= 60:
        assert "loss 1.234" in text
        assert "rungs 100: " in text
    if width >= 80:
        assert "step 200 in 0:2" in text
        assert "GPU 0" in text
        assert "━" in text
        assert re.search(r"best WER 0\.\d+ \[\.\d+, \.\d+\] at step \d+\s+.* spent\s+about .* left", text)
    written = console.file.getvalue()
    after = Screen(10_000).write(written.replace("\n", "\r\n")).lines  # plain lines wrap by themselves
    assert after == [line for line in after if re.match(r"trial 3\d: (resumes|step 200)", line)]
    assert len(after) == 2 * workers
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 1, "the cursor is there again"


def test_more_trials_than_rows_are_counted(summary):
    console = terminal(80, height=12)
    drawn = []
    run_of(summary, console, 40, lambda display: drawn.append(frame(terminal(80, 12), display._lines_below)))
    assert len(drawn[0].lines) <= 11
    assert any("more running" in line for line in drawn[0].lines)


def test_a_terminal_that_became_narrower_is_cleaned(summary):
    console = terminal(80)
    with ProgressPrinter(summary, 2, console=console) as display:
        display.claimed(30, {}, 100, 200)
        display.progress(30, ProgressEvent(step=150, loss=1.0, seconds=0.5))
        display._live.refresh()
        wide = sum(columns > 40 for columns in display._lines_below.line_widths)
        assert wide >= 2
        console.width = 40
        console.file.truncate(0)
        display._live.refresh()
        ups = console.file.getvalue().count("\x1b[1A")
        before = 3 if wide == 3 else len(display._lines_below.line_widths)
        assert ups >= wide + min(before, 3) - 1, "as far up as the wrapped lines reach"


def test_no_color_keeps_the_lines_and_loses_the_colours(summary):
    console = terminal(80, no_color=True)
    run_of(summary, console, 2)
    sgr = set(re.findall(r"\x1b\[([\d;]*)m", console.file.getvalue()))
    assert sgr <= {"0", "1", ""}, sgr  # bold is no colour
    coloured = terminal(80)
    run_of(summary, coloured, 2)
    assert re.search(r"\x1b\[\d*;?(3\d|38;)", coloured.file.getvalue())


@pytest.mark.parametrize("variables", [{}, {"FORCE_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_pipe_gets_plain_lines(summary, monkeypatch, capsys, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    run_of(summary, None, 2)
    written = capsys.readouterr().out
    if "FORCE_COLOR" not in variables:
        assert "\x1b" not in written
    assert not re.search(r"\x1b\[[^m]*[A-Zahlf]", written), "nothing moves"
    lines = re.sub(r"\x1b\[[\d;]*m", "", written).splitlines()
    assert lines[0] == "trial 30: resumes from step 100; learning_rate=1e-05 warmup_steps=10"
    assert len(lines) == 4


def test_who_left_is_taken_off_and_who_came_before_us_is_shown(summary):
    console = terminal(80)
    with ProgressPrinter(summary, 3, console=console) as display:
        display.claimed(30, {}, 0, 100)
        display.progress(31, ProgressEvent(step=5, loss=2.0, seconds=0.1))
        assert set(display._lines_below.running) == {30, 31}
        display.at_work({31: "node 7"})
        assert set(display._lines_below.running) == {31}
        assert display._lines_below.running[31].device == "node 7"


def test_what_is_left_is_not_said_before_there_is_a_result_and_ends_at_the_deadline(summary):
    empty = dataclasses.replace(summary, history=())
    with ProgressPrinter(empty, console=terminal(80)) as display:
        display.claimed(0, {}, 0, 100)
        assert display._lines_below.left is None
        assert "left" not in " ".join(frame(terminal(80), display._lines_below).lines)
    with ProgressPrinter(summary, deadline=time.monotonic() + 100, console=terminal(80)) as display:
        display.claimed(30, {}, 0, 100)
        left = display._lines_below.left
        assert 90 < left.seconds <= 100
        assert left.low <= left.seconds <= left.high <= 100


def test_what_is_left_counts_down_with_its_range_and_its_price():
    running = {1: RunningTrial(1, 0, 200, 800)}
    an_hour_ago = time.monotonic() - 3600
    display = LiveDisplay(running, ["throat"], TimeLeft(3 * 3600, 1800, 4 * 3600), 4.0, an_hour_ago)
    assert display._study_parts() == ["throat", "about 2.0 h (up to 3.0 h) left, about 8.00 dollars"]
    assert LiveDisplay({}, ["throat"], TimeLeft(9.0, 9.0, 9.0))._study_parts() == ["throat"], "nothing runs"


def test_money_is_mentioned_where_there_is_a_price(summary):
    with ProgressPrinter(summary, 2, price=3.0, console=terminal(120)) as display:
        display.claimed(30, {}, 0, 100)
        assert display._lines_below.hourly == 6.0, "of two workers"
        assert re.search(r"spent, about [\d.]+ dollars$", display._lines_below.parts[-1])


def test_a_trial_that_does_not_train_says_so():
    running = RunningTrial(1, 100, 200, 800)
    assert running.cells()["loss"] == "preparing"
    running.step, running.loss = 200, 1.0
    assert running.cells()["next"] == "evaluating"
    assert frame(terminal(80), LiveDisplay({1: running})).lines


def test_parts_go_on_as_few_lines_as_they_fit():
    assert pack_parts(["aaa", "bbb", "cc"], 8) == ["aaa  bbb", "cc"]
    assert pack_parts(["a" * 20], 8) == ["a" * 20]


@pytest.mark.parametrize("name", ["many", "n" * 60])
def test_the_answer_fits_a_terminal(summary, name):
    record = dataclasses.replace(summary.record, name=name)
    lines = closing_lines(dataclasses.replace(summary, record=record))
    assert f"  tmsearch report {name}" in [line.split("  #")[0].rstrip() for line in lines]
    assert lines[lines.index("next:") + 1].startswith("  tmsearch report")
    if name == "many":
        assert max(map(len, lines[lines.index("next:") :])) <= 80


def test_result_lines_stay_however_fast_the_live_lines_change_their_height(summary):
    """Many threads tell; what is on the screen at the end is every line, once."""
    console = terminal(80)
    with ProgressPrinter(summary, 8, console=console) as display:

        def tell(first):
            for number in range(first, first + 40):
                display.claimed(number, {"learning_rate": 1e-5}, 100, 200)
                display.progress(number, ProgressEvent(step=150, loss=1.0, seconds=0.5))
                display.rung(number, 200, 0.4, {"train_seconds": 10.0}, "paused")

        threads = [threading.Thread(target=tell, args=(first,)) for first in (100, 200, 300, 400)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    rows = Screen(80).write(console.file.getvalue().replace("\n", "\r\n")).lines
    results = [row for row in rows if "step 200  WER 0.400" in row]
    assert len(results) == len(set(results)) == 160


def test_one_thread_draws(summary):
    console = terminal(80)
    writers = set()
    write = console.file.write
    console.file.write = lambda text: (writers.add(threading.current_thread().name), write(text))[1]
    with ProgressPrinter(summary, 2, console=console) as display:
        display.claimed(30, {}, 100, 200)
        threading.Thread(target=display.notice, args=("from another thread",)).start()
        time.sleep(0.6)
    assert writers == {"screen"}


def test_what_others_print_appears_above_the_live_lines(summary, capsys):
    console = terminal(80)
    with ProgressPrinter(summary, 2, console=console) as display:
        display.claimed(30, {}, 100, 200)
        print("a library's remark")
        print("unfinished", end="", file=sys.stderr)
    written = console.file.getvalue()
    assert "a library's remark" in written
    assert "unfinished" in written


def test_a_step_that_is_late_is_seen():
    running = RunningTrial(1, 100, 200, 800, step=120, loss=1.0, step_seconds=0.5)
    assert running.cells()["next"].startswith("step 200 in")
    running.updated_at -= 130
    assert running.cells()["next"] == "no step for 2:10"
