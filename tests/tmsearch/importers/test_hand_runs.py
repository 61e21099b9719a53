"""Logs of hand-run trainings: what each format holds, and the one line that says what is wrong with a file."""

import json
import os
from dataclasses import fields
from pathlib import Path

import pytest

from tests.support.command import ROOT
from tmsearch.config import TrainConfig
from tmsearch.errors import InputError
from tmsearch.importers import hand_runs

HAND_RUNS = ROOT.parent / "shared" / "assets" / "hand-runs"
KNOBS = {field.name for field in fields(TrainConfig)}
SEED_LOG = """
metadata: {name: small_001, start_time: '2025-01-01 10:00:00'}
timeline:
- {type: message, elapsed: 00:00:00, content: '  Batch Size: 16'}
- {type: message, elapsed: 00:00:00, content: '  Learning Rate: 5e-06'}
- {type: message, elapsed: 00:00:00, content: '  Max Steps: 100'}
- {type: message, elapsed: 00:00:00, content: 'Base Model: openai/whisper-small'}
- {type: message, elapsed: 00:00:00, content: 'Source: me/throat'}
- {type: message, elapsed: 00:00:00, content: '  Normalization: True'}
- {type: metric, elapsed: 00:00:01, name: wer, value: 1.5}
- {type: message, elapsed: 00:00:02, content: 'Training Metrics - Step 25 (Epoch 0.5):'}
- {type: metric, elapsed: 00:00:02, name: train_loss, value: 3.1}
- {type: metric, elapsed: 00:00:02, name: train_eval_wer, value: 0.8}
- {type: message, elapsed: 00:00:03, content: 'Training Metrics - Step 50 (Epoch 1.0):'}
- {type: metric, elapsed: 00:00:03, name: train_eval_wer, value: 0.5}
"""


def read_text(folder, name, text):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return hand_runs.read(file, KNOBS)


def test_the_seeds_log_and_a_crash_that_looks_like_it(tmp_path):
    crashed = read_text(tmp_path, "a/results.yaml", SEED_LOG)[0]
    assert crashed.ending == "crashed"
    assert crashed.curve == ((25, 0.8), (50, 0.5))
    assert crashed.params == {
        "batch_size": 16,
        "learning_rate": 5e-6,
        "max_steps": 100,
        "model": "openai/whisper-small",
        "normalize_audio": False,  # the script's `normalize` did nothing
    }
    assert (crashed.measure, crashed.data) == ("raw", {"dataset": "me/throat"})
    complete = SEED_LOG + "- {type: message, elapsed: 00:00:04, content: 'Experiment complete!'}\n"
    stopped = read_text(tmp_path, "b/results.yaml", complete)[0]
    assert stopped.ending == "finished"
    assert "50 steps of 100, stopped early" in stopped.reason
    diverged = complete.replace("value: 3.1", "value: .nan")
    assert read_text(tmp_path, "c/results.yaml", diverged)[0].ending == "diverged"


@pytest.mark.skipif(not HAND_RUNS.is_dir(), reason="the recorded hand runs (shared/assets/hand-runs) are not here")
def test_the_recorded_hand_runs():
    runs = {path.name: hand_runs.read(path, KNOBS)[0] for path in sorted(HAND_RUNS.iterdir())}
    small = runs["tiny_004_20250302_222010"]
    assert small.params["model"] == "openai/whisper-small", "the contents are right, not the name"
    assert [run.ending for run in runs.values()] == ["finished"] * 3
    assert [run.last_step for run in runs.values()] == [200, 575, 375]
    assert runs["largev3_003_20241217_064019"].data["train_clips"] == 480


def test_trainer_state(tmp_path):
    history = [{"step": 20, "loss": 2.0, "learning_rate": 9e-6}, {"step": 20, "eval_wer": 41.5}]
    state = {"global_step": 40, "max_steps": 40, "log_history": [*history, {"step": 40, "eval_wer": 30.0}]}
    run = read_text(tmp_path, "trainer_state.json", json.dumps(state))[0]
    assert (run.ending, run.params, run.measure) == ("finished", {"max_steps": 40}, None)
    assert run.curve == ((20, 41.5), (40, 30.0))
    state["global_step"] = 25
    assert read_text(tmp_path, "trainer_state.json", json.dumps(state))[0].ending == "crashed"


def test_csv_with_several_runs_and_a_column_that_is_no_knob(tmp_path):
    text = "run,step,wer_raw,learning_rate,max_steps,room\na,2,0.9,2e-3,6,x\na,6,0.8,2e-3,6,x\nb,2,nan,,6,y\n"
    first, second = read_text(tmp_path, "log.csv", text)
    assert (first.name, first.ending, first.curve, first.measure) == ("a", "finished", ((2, 0.9), (6, 0.8)), "raw")
    assert first.params == {"learning_rate": "2e-3", "max_steps": "6"}
    assert (second.ending, second.curve, second.params) == ("diverged", (), {"max_steps": "6"})


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("x.csv", "a,b\n1,2\n", "columns step and wer"),
        ("x.csv", "step,wer\n1,often\n", "not a number"),
        ("results.yaml", "a: [", "not a training's results.yaml"),
        ("trainer_state.json", "{}", "log_history"),
        ("events.out.tfevents.1", "nothing", "no scalar"),
        ("notes.txt", "hm", "not a log"),
        ("trainer_state.json", "[" * 3000 + "]" * 3000, "hundreds deep"),
        ("trainer_state.json", '{"global_step": ' + "1" * 5000 + "}", "an integer of 5000 digits"),
        ("trainer_state.json", '{"global_step": 1e999, "log_history": []}', "global_step are missing"),
        ("trainer_state.json", '{"global_step": 4, "log_history": {"step": 4}}', "log_history and global_step"),
        ("trainer_state.json", "[]", "log_history and global_step"),
        ("results.yaml", "timeline: " + "[" * 3000 + "]" * 3000, "inside each other"),
        ("results.yaml", "metadata: {name: [x]}\ntimeline: []", "metadata and timeline are missing"),
        ("results.yaml", "metadata: {name: x}\ntimeline: {type: message}", "metadata and timeline are missing"),
        ("x.csv", "step;wer\n1;0.5\n", "separated by semicolons"),
        ("x.csv", "step,wer\n1,0.5,7\n", "x.csv:2: 3 cells under 2 columns"),
        ("x.csv", "step,wer\n" + "1" * 5000 + ",0.5\n", "not a number"),
        ("x.csv", "step,wer\n1.5,0.5\n", "not a number"),
        ("x.csv", "step,wer\n1,-0.5\n", "not a number"),
        ("x.csv", "step,wer\n", "no rows"),
        ("x.csv", "step,wer\n1," + "x" * 200_000, "larger than field limit"),
    ],
)
def test_what_is_not_a_log_is_one_line(tmp_path, name, text, expected):
    with pytest.raises(InputError, match=expected) as error:
        read_text(tmp_path, name, text)
    assert "\n" not in str(error.value)


def test_what_a_log_holds_beside_what_is_known_is_passed_over(tmp_path):
    history = [{"step": None, "eval_wer": 0.9}, {"step": 20, "eval_wer": [1]}, "x", {"step": 40, "eval_wer": 0.3}]
    state = {"global_step": 40.0, "max_steps": "40", "log_history": history, "stateful_callbacks": ["x"]}
    run = read_text(tmp_path, "trainer_state.json", json.dumps(state))[0]
    assert (run.curve, run.ending) == (((40, 0.3),), "finished")
    odd = SEED_LOG + "- 7\n- {type: metric, name: train_eval_wer}\n- {type: metric, name: train_eval_wer, value: [1]}\n"
    assert read_text(tmp_path, "results.yaml", odd)[0].curve == ((25, 0.8), (50, 0.5))
    dated = SEED_LOG.replace("'2025-01-01 10:00:00'", "2025-99-99")
    assert read_text(tmp_path, "results.yaml", dated)[0].curve == ((25, 0.8), (50, 0.5))


@pytest.mark.timeout(30)
def test_a_log_that_is_a_pipe_or_device_is_refused(tmp_path):
    os.mkfifo(tmp_path / "log.csv")
    for path in (tmp_path / "log.csv", Path("/dev/zero")):
        with pytest.raises(InputError, match="not a plain file"):
            hand_runs.read(path, KNOBS)
