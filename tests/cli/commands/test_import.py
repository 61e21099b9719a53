"""Logs of hand-run trainings: what each format tells, what is asked for, and that nothing is entered twice."""

import json
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from search import imported
from search.imported import COMPARES, MEASURE
from search.records import Configuration, Rung
from tests.support.command import SPACE, status, tmsearch
from tmsearch.errors import InputError
from tmsearch.importers import hand_runs

SAMPLES = Path(__file__).parents[3].parent / "shared" / "assets" / "hand-runs"
SEEDS_LOG = """
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


@pytest.fixture
def folder(tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    (here / "space.yaml").write_text(SPACE)
    return here


def written(folder, name, text):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_the_seeds_log_and_a_crash_that_looks_like_it(tmp_path):
    crashed = hand_runs.read(written(tmp_path, "a/results.yaml", SEEDS_LOG))[0]
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
    whole = SEEDS_LOG + "- {type: message, elapsed: 00:00:04, content: 'Experiment complete!'}\n"
    stopped = hand_runs.read(written(tmp_path, "b/results.yaml", whole))[0]
    assert stopped.ending == "finished"
    assert "50 steps of 100, stopped early" in stopped.reason
    nan = whole.replace("value: 3.1", "value: .nan")
    assert hand_runs.read(written(tmp_path, "c/results.yaml", nan))[0].ending == "diverged"


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the recorded hand runs (shared/assets/hand-runs) are not here")
def test_the_recorded_hand_runs():
    found = {path.name: hand_runs.read(path)[0] for path in sorted(SAMPLES.iterdir())}
    small = found["tiny_004_20250302_222010"]
    assert small.params["model"] == "openai/whisper-small", "the contents are right, not the name"
    assert [one.ending for one in found.values()] == ["finished"] * 3
    assert [one.last_step for one in found.values()] == [200, 575, 375]
    assert found["largev3_003_20241217_064019"].data["train_clips"] == 480


def test_trainer_state(tmp_path):
    told = [{"step": 20, "loss": 2.0, "learning_rate": 9e-6}, {"step": 20, "eval_wer": 41.5}]
    state = {"global_step": 40, "max_steps": 40, "log_history": [*told, {"step": 40, "eval_wer": 30.0}]}
    file = written(tmp_path, "trainer_state.json", json.dumps(state))
    run = hand_runs.read(file)[0]
    assert (run.ending, run.params, run.measure) == ("finished", {"max_steps": 40}, None)
    with pytest.raises(InputError, match=r"--percent: WERs up to 41\.5"):
        hand_runs.in_fractions(run, file, None)
    assert hand_runs.in_fractions(run, file, True).curve == ((20, 0.415), (40, 0.30))
    state["global_step"] = 25
    assert hand_runs.read(written(tmp_path, "trainer_state.json", json.dumps(state)))[0].ending == "crashed"


def test_tensorboard_events(tmp_path):
    told = {
        "learning_rate": 1e-5,
        "max_steps": 40,
        "warmup_steps": 4,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "lr_scheduler_type": "cosine",
        "seed": 7,
    }
    with SummaryWriter(str(tmp_path / "run")) as writer:
        writer.add_text("args", json.dumps(told))
        for step, wer in ((20, 0.5), (40, 0.25)):
            writer.add_scalar("train/loss", 1.0, step)
            writer.add_scalar("eval/wer", wer, step)
    run = hand_runs.read(tmp_path / "run")[0]
    assert run.curve == ((20, 0.5), (40, 0.25))
    assert run.ending == "finished"
    assert run.params == {
        "learning_rate": 1e-5,
        "max_steps": 40,
        "warmup_steps": 4,
        "batch_size": 8,
        "schedule": "cosine",
        "seed": 7,
    }


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.csv", "a,b\n1,2\n", "columns step and wer"),
        ("x.csv", "step,wer\n1,often\n", "no number"),
        ("results.yaml", "a: [", "no results.yaml"),
        ("trainer_state.json", "{}", "log_history"),
        ("events.out.tfevents.1", "nothing", "no scalar"),
        ("notes.txt", "hm", "no log"),
    ],
)
def test_what_is_no_log_is_one_line(tmp_path, name, text, said):
    with pytest.raises(InputError, match=said) as refused:
        hand_runs.read(written(tmp_path, name, text))
    assert "\n" not in str(refused.value)


CSV = """run,step,wer_normalised,learning_rate,normalize_audio,max_steps,batch_size,model
a,2,0.90,2e-3,true,6,4,demo/nano
a,6,0.80,2e-3,true,6,4,demo/nano
b,2,0.92,2e-3,true,6,4,demo/nano
b,6,0.84,2e-3,true,6,4,demo/nano
c,2,0.95,1e-4,false,6,4,demo/nano
"""


def test_hand_runs_become_trials_once_and_the_study_goes_on_beside_them(folder):
    written(folder, "log.csv", CSV)
    first = tmsearch(folder, "import", "small", "log.csv", "--space", "space.yaml")
    assert first.returncode == 0, first.stderr
    assert "differ by 0.0283 in WER (standard deviation of 2 trainings" in first.stdout
    again = tmsearch(folder, "import", "small", "log.csv")
    assert again.stdout.count("already imported") == 3
    states = [(one["state"], one["steps"], one["wer"]) for one in status(folder)["configurations"]]
    assert states == [("finished", 6, 0.80), ("finished", 6, 0.84), ("failed", 2, 0.95)]
    assert tmsearch(folder, "best", "small").returncode == 2, "what was trained elsewhere is not the study's best"
    ran = tmsearch(folder, "run", "--space", "space.yaml", "--trials", "2")
    assert ran.returncode == 0, ran.stderr + ran.stdout
    assert "trial 3: starts; learning_rate=0.001" in ran.stdout, "the start entry is still the first"
    assert "2 configurations:" in ran.stdout
    assert len(status(folder)["configurations"]) == 5
    plain = tmsearch(folder, "status", "small").stdout
    assert "2 of 2 configurations and 3 imported" in plain
    assert max(map(len, plain.splitlines())) <= 80


def test_what_a_log_does_not_tell_is_asked_for_and_nothing_is_written(folder):
    written(folder, "log.csv", CSV.replace("wer_normalised", "wer"))
    refused = tmsearch(folder, "import", "small", "log.csv", "--space", "space.yaml")
    assert refused.returncode == 2
    assert "--wer raw or --wer normalised" in refused.stderr
    assert not (folder / "studies").exists()
    written(folder, "part.csv", "step,wer_raw,max_steps\n2,0.9,6\n6,0.8,6\n")
    told = tmsearch(folder, "import", "small", "part.csv", "--space", "space.yaml")
    assert "the log does not say learning_rate, normalize_audio; --set learning_rate=VALUE does" in told.stdout


def configuration(number, origin, *rungs):
    return Configuration(number, origin, {"x": 1.0}, {"x": 1.0}, "finished", rungs=tuple(rungs))


def test_another_measure_is_read_once_the_study_relates_the_two():
    hand = configuration(0, "imported", Rung(6, 0.40, {MEASURE: "wer_raw", COMPARES: True}))
    assert imported.rescale_imported([hand])[0].rungs == (), "nothing relates them yet"
    mine = configuration(1, "sampled", Rung(6, 0.30, {"wer_raw": 0.60}))
    assert imported.rescale_imported([hand, mine])[0].value == pytest.approx(0.20)
    unlike = configuration(2, "imported", Rung(6, 0.40, {MEASURE: "value", COMPARES: False}))
    assert imported.rescale_imported([unlike])[0].rungs == ()
    assert imported.without_imported([hand, mine]) == [mine]
