"""Each mistake in a space file is one line with file, key and fix."""

from __future__ import annotations

import os
import time

import pytest

from search.errors import UserError
from search.space import search_space
from tests.support.toy_space import DATA, GOOD, TRAIN, mistake


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


LR = "learning_rate: {low: 1e-6, high: 1e-3, log: true}"
MISTAKES = [
    # what of GOOD, becomes what, and what the line must hold
    ("learning_rate:", "learning_rte:", "s.yaml: search.learning_rte: no such knob; did you mean learning_rate?"),
    ("learning_rate:", "lr:", "search.lr: no such knob; did you mean learning_rate?"),
    ("study: toy", "study: toy\nserach: {}", "s.yaml: serach: no such key; did you mean search?"),
    ("study: toy", "study: toy\nqqq: {}", "qqq: no such key; legal: study, data, budget, train, search, start"),
    ("study: toy", "study: toy\nstudy: toy", "line 2: study is repeated"),
    ("low: 1e-6", "low: 1e-6, low: 1e-6", "line 8: low is repeated"),
    ("study: toy", "study: toy\nlearning_rate: 1", "learning_rate: belongs under train (to fix it) or search"),
    ("adapters: 0", "max_steps: 40", "train.max_steps: belongs under budget"),
    ("test: 0.2", "batch_size: 4", "data.batch_size: belongs under train"),
    ("gain:", "dataset:", "search.dataset: belongs under data"),
    ("gain:", "rungs:", "search.rungs: belongs under budget"),
    ("gain: [true, none]", "seconds: [10, 15]", "search.seconds: has one value for a whole study, since results"),
    ("max_steps: 80", "max_step: 80", "budget.max_step: no such key; did you mean max_steps?"),
    # values
    ("adapters: 0", "batch_size: big", "train.batch_size: big is not a number; give a whole number"),
    ("adapters: 0", "batch_size: true", "train.batch_size: true is not a number"),
    ("adapters: 0", "batch_size: 2.5", "2.5 where a whole number belongs; say 2 or 3"),
    ("adapters: 0", "batch_size: 0", "0 is too low; the least that batch_size takes is 1"),
    ("adapters: 0", "batch_size: 65", "65 is too high; the most that batch_size takes is 64"),
    ("adapters: 0", f"warmup_steps: '{'9' * 400}'", "too large"),
    ("adapters: 0", "batch_size:", "train.batch_size: no value; give a whole number"),
    ("adapters: 0", "batch_size: [8, 16]", "train.batch_size: several values; move it to search"),
    ("adapters: 0", "dropout: .nan", "train.dropout: NaN is not finite"),
    ("adapters: 0", "dropout: 'nan'", "train.dropout: NaN is not finite"),
    ("adapters: 0", "dropout: -.inf", "train.dropout: -Infinity is not finite"),
    ("adapters: 0", "dropout: 1e400", "train.dropout: Infinity is not finite"),
    ("adapters: 0", "gain: pek", "pek is not one of true, false, none, peak; did you mean peak?"),
    ("adapters: 0", "gain: 1", "1 is read as a number"),
    ("adapters: 0", "freeze: maybe", "maybe is text; give true or false"),
    ("test: 0.2", "language: true", "data.language: true is read as true or false; give text, in quotes"),
    ("test: 0.2", "revision: 1234567", "data.revision: 1234567 is read as a number; put it in quotes"),
    ("test: 0.2", "language: ''", "data.language: the text is empty"),
    ("test: 0.2", r'language: "\x1b[31m"', "data.language: the text has characters that cannot be shown"),
    ("dataset: demo, ", "", "data.dataset: missing; give the name of a dataset"),
    # ranges
    ("low: 1e-6", "low: 1", "search.learning_rate.low: low 1 is above high 0.001; swap them"),
    ("step: 5", "log: true", "search.warmup_steps.low: low is 0, and log needs it above 0"),
    ("step: 5", "step: 0", "search.warmup_steps.step: 0 is not above 0"),
    ("step: 5", "step: -5", "search.warmup_steps.step: -5 is not above 0"),
    ("step: 5", "step: 7", "low 0 plus steps of 7 never is 20; make high 14 or 21"),
    ("step: 5", "step: 50", "low 0 plus steps of 50 never is 20; make step smaller"),
    ("log: true", "step: 1e-20", "makes more than a million values"),
    ("log: true", "log: true, step: 1e-6", "search.learning_rate.step: step and log exclude each other"),
    ("log: true", "log: 3", "search.learning_rate.log: 3 is a number; give true or false"),
    ("low: 1e-6", "low: .inf", "search.learning_rate.low: Infinity is not finite"),
    ("low: 1e-6", "low: 1e-30", "search.learning_rate.low: 1e-30 is too low"),
    ("low: 1e-6, ", "", "search.learning_rate.low: missing"),
    ("low: 1e-6", "lo: 1e-6", "search.learning_rate.lo: no such key; did you mean low?"),
    ("low: 1e-6", "low:1e-6", "write a space after the colon"),
    ("low: 1e-6", "low:", "search.learning_rate.low: no value"),
    (LR, "learning_rate: 1e-5", "search.learning_rate: 1e-05 is one value; give a list or {low: , high: }"),
    (LR, "learning_rate:", "search.learning_rate: no value; give a list"),
    ("[big, small]", "[]", "search.model: an empty list"),
    ("[big, small]", "[big, small, big]", "search.model[2]: big is repeated"),
    ("gain: [true, none]", "batch_size: [8, 8.0]", "search.batch_size[1]: 8 is repeated"),
    ("gain: [true, none]", "batch_size: [8, 128]", "search.batch_size[1]: 128 is too high"),
    ("[big, small]", "{low: 1, high: 2}", "search.model: has no range of numbers; give a list"),
    ("[big, small]", "[big, 7]", "search.model[1]: 7 is read as a number"),
    ("[big, small]", "[big, [small]]", "search.model[1]: a list where one value belongs"),
    ("adapters: 0", "warmup_steps: 5", "train.warmup_steps: is also under search; keep it in one of the two"),
    ("{low: 0, high: 20", "{low: 100, high: 120", "search.warmup_steps.low: 100 is past budget.max_steps, 80"),
    # factors
    ("log: true", "times: twice", "search.learning_rate.times: twice is not one of recommended"),
    ("gain: [true, none]", "batch_size: {low: 1, high: 2, times: recommended}", "no recommended value is known for"),
    ("1e-3, log: true", "6, times: recommended, low: 0", "low is repeated"),
    ("low: 1e-6, high: 1e-3, log: true", "low: 0, high: 6, times: recommended", "0 as a factor; give one above 0"),
    (
        "[big, small]\n  learning_rate: {low: 1e-6, high: 1e-3, log: true}",
        "[big, huge]\n  learning_rate: {low: 0.3, high: 6, log: true, times: recommended}",
        "s.yaml: search.learning_rate.times: 'huge'",
    ),
    (
        "low: 1e-6, high: 1e-3, log: true",
        "low: 0.3, high: 1e6, log: true, times: recommended",
        "high: 1e+06 times the recommended 1e-05 for model big is 10; learning_rate takes 1e-09 to 1",
    ),
    # start
    ("learning_rate: 5e-6}", "learning_rate: 5e-2}", "start[0].learning_rate: 0.05 is outside of 1e-06 to 0.001"),
    ("learning_rate: 5e-6}", "warmup_steps: 7}", "start[0].warmup_steps: 7 is not 0 plus a multiple of step 5"),
    ("model: big, learning", "model: huge, learning", "start[0].model: huge is not among the choices big, small"),
    ("learning_rate: 5e-6}", "adapters: 0}", "start[0].adapters: is not searched; take it out"),
    ("learning_rate: 5e-6}", "dropot: 0}", "start[0].dropot: no such knob; did you mean dropout?"),
    ("learning_rate: 5e-6}", "max_steps: 0}", "start[0].max_steps: belongs under budget"),
    ("- {model: big, learning_rate: 5e-6}", "- {}", "start[0]: no values"),
    ("- {model: big, learning_rate: 5e-6}", "- 3", "start[0]: no values"),
    ("- {model: big, learning_rate: 5e-6}", "  model: big", "start: a mapping where a list belongs"),
    # budget
    ("[20, 40, 80]", "[20, 40, 90]", "budget.rungs: the last of budget.rungs, 90, is past budget.max_steps, 80"),
    ("[20, 40, 80]", "[20, 40]", "the last of budget.rungs, 40, is not budget.max_steps, 80; make rungs [20, 40, 80]"),
    ("[20, 40, 80]", "[40, 20, 80]", "budget.rungs[1]: 20 does not rise above 40"),
    ("[20, 40, 80]", "[20, 20, 80]", "budget.rungs[1]: 20 does not rise above 20"),
    ("[20, 40, 80]", "[0, 80]", "budget.rungs[0]: 0 is too low"),
    ("[20, 40, 80]", "[]", "budget.rungs: an empty list; give at least [80]"),
    ("[20, 40, 80]", "80", "budget.rungs: 80 is not a list"),
    ("max_steps: 80, ", "", "budget.max_steps: missing"),
    ("rungs:", "strategy: halvin, rungs:", "halvin is not one of"),
    ("rungs:", "eta: 1, rungs:", "budget.eta: 1 is too low"),
    ("rungs:", "spend: 2, rungs:", "budget.spend: 2.0 is too high; the most that spend takes is 1"),
    ("rungs:", "spend: half, rungs:", "budget.spend: half is not a number; give a share of 1, or auto"),
    ("rungs:", "spend: 0.4, eta: 2, rungs:", "budget.spend and budget.eta both say how much goes on past a rung"),
    ("rungs:", "spend: 0.4, strategy: none, rungs:", "plans what halving spends, and the strategy is none"),
    ("rungs:", "earlier: maybe, rungs:", "budget.earlier: maybe is text; give true or false"),
    ("rungs:", "earlir: off, rungs:", "budget.earlir: no such key; did you mean earlier?"),
    ("rungs:", "earlier: on, sampler: tpe, rungs:", "budget.earlier is for the sampler guided, and the sampler is tpe"),
    # removed
    ("[20, 40, 80]", "[5m, 10m]", "s.yaml: budget.rungs[0]: 5m is a time; give optimizer steps, such as [10, 20, 40"),
    ("[20, 40, 80]", "[20, 1.5 h]", "s.yaml: budget.rungs[1]: 1.5 h is a time; give optimizer steps"),
    ("[20, 40, 80]", "30s", "budget.rungs: 30s is not a list; give the steps to judge at, such as [10, 20, 40, 80]"),
    ("rungs:", "strategy: hyperband, rungs:", "budget.strategy: hyperband was removed; write optuna-hyperband, brack"),
    ("rungs:", "strategy: median, rungs:", "budget.strategy: median was removed; write optuna-median or halving"),
    # names and shapes
    ("study: toy\n", "", "s.yaml: study: missing; name the study, such as study: s"),
    ("study: toy", "study: 2024", "study: 2024 is not text"),
    ("{dataset: demo, test: 0.2}", "[demo]", "data: a list where a mapping belongs"),
    ("{max_steps: 80, rungs: [20, 40, 80]}", "80", "budget: 80 where a mapping belongs"),
    # YAML
    ("  gain", "\tgain", "line 10: a tab; indent with spaces"),
    ("gain: [true", "gain: !!python/object/apply:os.system [true", "line 10: a YAML tag"),
    ("gain: [true", "gain: !x [true", "line 10: a YAML tag (!x); remove it"),
    ("[true, none]", "&a [true, none]\n  freeze: *a", "line 11: an alias (*a); write the value out"),
    ("[true, none]", "[true, none", "line 10: not YAML"),
    ("study: toy", "study: toy\n? [a]\n: b", "line 2: a key must be a plain word"),
    ("start:", "---\nstart:", "line 11: a second document"),
]


@pytest.mark.parametrize(("old", "new", "says"), MISTAKES)
def test_a_mistake_names_file_key_and_fix(old, new, says):
    assert old in GOOD
    line = mistake(GOOD.replace(old, new))
    assert line.startswith("s.yaml: ")
    assert says in line


@pytest.mark.parametrize(
    "name", ["../x", "a/b", ".", "..", ".hidden", "-x", "a b", "'é'", "'x\n\n  y'", "x" * 65, "a\\b", "'a:b'", "''"]
)
def test_a_study_is_named_like_a_plain_file(name):
    assert "s.yaml: study: " in mistake(GOOD.replace("study: toy", f"study: {name}"))
    with pytest.raises(UserError, match=r"^--study: "):
        search_space.check_study_name(name.strip("'"))


@pytest.mark.parametrize("name", ["a", "large_v3", "v1.2-b", "0", "x" * 64])
def test_a_plain_study_name_is_kept(name):
    assert search_space.check_study_name(name) == name


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "the file is empty"),
        ("# only this\n", "the file is empty"),
        ("---\n", "the file is empty"),
        ("- a\n", "a list where a mapping belongs"),
        ("hello", "hello where a mapping belongs"),
        (b"\x89PNG\r\n\x1a\n\xff", "not UTF-8"),
        (b"a: \x00", "not text"),
        ("a: \x1b[31m", "U+001B"),
        ("[" * 5000, "nested more than 20 deep"),
        ("- " * 5000, "nested more than 20 deep"),
        ("a: &a [x]\nb: [*a,*a,*a]", "an alias"),
        ("<<: {study: x}", "<<: no such key"),
        ("a: " + "9" * 10_000, "no such key"),
        ("a: 2024-99-99", "no such key"),
    ],
)
def test_no_space_at_all(content, says):
    assert says in mistake(content)


def test_ten_megabytes_are_refused_unread():
    began = time.monotonic()
    assert "larger than" in mistake(b"{" * 10_000_000)
    assert time.monotonic() - began < 1


def test_a_quarter_megabyte_of_anything_is_refused_within_seconds():
    for piece in ("a: b\n", "- ", "'", "? ", "!", "&a ", "{a: [", "\n", "|\n ", "x", "a: |\n  b\n"):
        began = time.monotonic()
        mistake(piece * (250_000 // len(piece)))
        assert time.monotonic() - began < 20, piece


def test_what_cannot_be_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    locked = tmp_path / "locked.yaml"
    locked.write_text(GOOD)
    locked.chmod(0)
    cases = {
        tmp_path: "a folder",
        tmp_path / "none.yaml": "no such file",
        tmp_path / "pipe": "not a regular file",
        "/dev/zero": "not a regular file",
        "a\0b": "not a path",
        "x" * 5000: "File name too long",
        "none\x1b[31m": r"none\x1b[31m",
    }
    if os.geteuid() != 0:
        cases[locked] = "Permission denied"
    for path, says in cases.items():
        with pytest.raises(UserError) as caught:
            search_space.load(path, train=TRAIN, data=DATA)
        assert says in str(caught.value)
        assert str(caught.value).isprintable()
