"""A real search on the demo, from `run` to a model that a pipeline transcribes with."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.support.command import SPACE, environment, outcomes, start
from tests.support.command import tmsearch as tmsearch_process
from tests.support.in_process import status, tmsearch
from tests.support.webhook_server import SECRET, Webhook


def new_folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    (folder / "space.yaml").write_text(SPACE)
    return folder


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def done(parent):
    """(folder, first run, second run) of a finished search."""
    folder = new_folder(parent, "unbroken")
    first = tmsearch_process(folder, "run", "--space", "space.yaml", "--trials", "4")
    assert first.returncode == 0, first.stderr + first.stdout
    return folder, first


def test_a_run_is_quiet_and_ends_with_the_answer(done):
    folder, first = done
    assert first.stderr == ""
    lines = first.stdout.splitlines()
    assert lines[0].startswith("warmup_steps: 0, as its default, 50, is past budget.max_steps"), "said before it starts"
    assert lines[1].startswith("study small: 4 configurations")
    assert any("untrained (zero-shot): WER" in line for line in lines)
    answer = lines[lines.index("next:") - 2 :]
    assert answer[0].startswith("best: trial")
    assert max(map(len, answer)) <= 80
    assert [line.split("  #")[0].strip() for line in answer[3:]] == [
        "tmsearch report small",
        "tmsearch confirm small",
        "tmsearch export small -o best.yaml",
        "tmsearch train best.yaml",
        "tmsearch dashboard",
    ]
    assert "\x1b" not in first.stdout
    log = folder / "studies" / "small" / "worker.log"
    assert not log.exists() or log.read_text() == "", "a library said something in the child"


def test_status_is_a_stable_interface(done):
    folder, _ = done
    answer = status(folder)
    keys = {"study", "storage", "stopped", "code", "workers", "seconds_spent", "seconds_left", "configurations"}
    assert set(answer) == keys
    assert answer["seconds_left"] is None, "it has ended"
    assert answer["stopped"] is None
    assert answer["workers"] == []
    assert len(answer["code"]) == 1
    keys = {"number", "state", "params", "steps", "wer", "wer_raw", "cer", "train_seconds", "eval_seconds"}
    assert [set(configuration) for configuration in answer["configurations"]] == [
        keys | {"reason", "worker", "wer_interval", "wer_long", "mean", "wer_keep"}
    ] * 4
    for configuration in answer["configurations"]:
        assert configuration["wer_interval"][0] <= configuration["wer"] <= configuration["wer_interval"][1]
    assert [configuration["number"] for configuration in answer["configurations"]] == [0, 1, 2, 3]
    assert answer["configurations"][0]["params"]["learning_rate"] == 1e-3
    assert all(configuration["state"] in ("finished", "pruned") for configuration in answer["configurations"])
    assert all(
        0 < configuration["wer"] < 5 and configuration["train_seconds"] > 0
        for configuration in answer["configurations"]
    )
    plain = tmsearch(folder, "status", "small")
    assert max(map(len, plain.stdout.splitlines())) <= 80


def test_again_does_nothing_and_more_trials_start_only_the_missing(done, parent):
    folder, _ = done
    before = outcomes(folder)
    with Webhook() as hook:
        again = tmsearch_process(folder, "run", "--space", "space.yaml", "--trials", "4", "--notify", f"{hook.url}/200")
    assert again.returncode == 0
    (text,) = hook.texts
    assert text.splitlines()[:2] == ["study small: has ended", "4 configurations: " + counted(folder)]
    assert SECRET not in again.stdout + again.stderr
    assert "trial" not in "".join(line for line in again.stdout.splitlines() if line.startswith("trial"))
    assert outcomes(folder) == before


def counted(folder):
    """The states of a study as a person reads them."""
    states = [configuration["state"] for configuration in status(folder)["configurations"]]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def test_the_files_of_a_trial(done):
    folder, _ = done
    trial = folder / "studies" / "small" / "trials" / "0000"
    config = yaml.safe_load((trial / "config.yaml").read_text())
    assert config["train"]["learning_rate"] == 1e-3
    assert config["train"]["max_steps"] == 6
    steps = status(folder)["configurations"][0]["steps"]
    clips = [json.loads(line) for line in (trial / f"clips-{steps:06d}.jsonl").read_text().splitlines()]
    assert len(clips) == 8
    edits = sum(clip["substitutions"] + clip["deletions"] + clip["insertions"] for clip in clips)
    assert edits / sum(clip["words"] for clip in clips) == pytest.approx(status(folder)["configurations"][0]["wer"])


def test_tensorboard_events(done):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, _ = done
    configuration = status(folder)["configurations"][0]
    events = EventAccumulator(str(folder / "studies" / "small" / "tensorboard" / "0000"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"loss", "learning_rate", "gradient_norm", "wer", "wer_raw", "cer"} <= tags
    assert [event.step for event in events.Scalars("loss")] == list(range(1, configuration["steps"] + 1))
    assert events.Scalars("wer")[-1].value == pytest.approx(configuration["wer"])
    assert any("hparams" in tag for tag in events.PluginTagToContent("hparams"))


def test_optuna_reads_the_study(done):
    import optuna

    folder, _ = done
    study = optuna.load_study(study_name="small", storage=f"sqlite:///{folder}/studies/tmsearch.db")
    assert len(study.trials) == 4
    assert study.trials[0].user_attrs["model"] == "demo/nano"
    assert {"steps", "train_seconds", "eval_seconds", "reason", "wer_raw", "cer"} <= set(study.trials[0].user_attrs)
    optuna.visualization.plot_intermediate_values(study)


def test_a_changed_space_is_refused_by_key(done):
    folder, _ = done
    changed = tmsearch(folder, "run", "--space", "space.yaml", "--set", "train.batch_size=2")
    assert changed.returncode == 2
    assert "train.batch_size: was 4, is 2" in changed.stderr
    assert "--study NEW" in changed.stderr
    seeded = tmsearch(folder, "run", "--space", "space.yaml", "--seed", "7")
    assert seeded.returncode == 2
    assert "--seed: was 0, is 7" in seeded.stderr


def check_runtimes(rows, card, said):
    """The rows of the two kinds of audio in each runtime: nano's window is too short for faster-whisper."""
    measured = [row for row in rows if "problem" not in row]
    assert [(row["runtime"], row["audio"]) for row in measured] == [
        ("transformers' pipeline", "single clips"),
        ("transformers' pipeline", "long recordings"),
    ]
    assert [row["count"] for row in measured] == [6, 1], "all test clips, and validation clips in one recording"
    problems = [row for row in rows if "problem" in row]
    installed = importlib.util.find_spec("faster_whisper") is not None
    assert [row["runtime"] for row in problems] == ["faster-whisper"] * (2 * installed)
    for row in measured:
        assert f"WER {row['wer']:.3f}, untouched {row['untouched_wer']:.3f}" in said
        assert f"| {row['wer']:.3f} | {row['untouched_wer']:.3f} |" in card.read_text()
    assert all("faster-whisper hears windows of 30 s" in row["problem"] for row in problems)


def test_export_and_train_reproduce_the_trial_and_a_pipeline_loads_it(done):
    folder, _ = done
    exported = tmsearch(folder, "export", "small", "-o", "best.yaml")
    assert exported.returncode == 0, exported.stderr
    best = json.loads(tmsearch(folder, "best", "small", "--json").stdout)
    trained = tmsearch_process(folder, "train", "best.yaml")
    assert trained.returncode == 0, trained.stderr
    assert trained.stderr == ""
    metrics = json.loads((folder / "best" / "metrics.json").read_text())
    assert metrics["validation"]["wer"] == best["wer"], "the recipe trains to its trial's WER, bit for bit"
    assert metrics["test"]["clips"] == 6
    check_runtimes(metrics["runtimes"], folder / "best" / "README.md", trained.stdout)
    assert "already trained" in tmsearch(folder, "train", "best.yaml").stdout
    program = (
        "import sys; import numpy as np; from transformers import pipeline\n"
        "for model in sys.argv[1:]:\n"
        "    hear = pipeline('automatic-speech-recognition', model=model)\n"
        "    print('heard:', hear(np.zeros(16000, dtype=np.float32))['text'])\n"
        "    print('that was', model, file=sys.stderr)"
    )
    # The untouched one first: what is printed once a process is printed for it.
    models = (str(Path(__file__).parents[3] / "tmsearch/demo/nano"), str(folder / "best"))
    run = subprocess.run(
        [sys.executable, "-c", program, *models], capture_output=True, text=True, env=environment(folder)
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("heard:") == 2
    printed, warnings = run.stderr, []
    for model in models:
        of_model, _, printed = printed.partition(f"that was {model}\n")
        # Only the beginning: transformers prints a set of names, in an order that changes from run to run.
        warnings.append({line[:60] for line in of_model.splitlines() if "Loading weights" not in line})
    untouched, new = warnings
    assert new <= untouched, "no warning that the untouched checkpoint does not print"


def test_a_run_without_any_result_fails(parent):
    folder = new_folder(parent, "diverged")
    changes = "learning_rate=10", "warmup_steps=0", "budget.max_steps=30", "budget.rungs=[30]"
    words = [word for change in changes for word in ("--set", change)]
    with Webhook() as hook:
        run = ("run", "--space", "space.yaml", "--trials", "1", *words)
        failed = tmsearch(folder, *run, TMSEARCH_NOTIFY=f"{hook.url}/200", NO_PROXY="127.0.0.1")
    assert hook.texts[0].startswith("study small: failed: no trial has a result\n1 configuration: 1 failed")
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "failed (diverged)" in failed.stdout
    assert "no configuration has a result" in failed.stdout
    (configuration,) = status(folder)["configurations"]
    assert configuration["state"] == "failed"
    assert "step" in configuration["reason"]


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finding a process's children needs Linux's /proc")
def test_kill_9_anywhere_then_the_same_command(done, parent):
    unbroken, _ = done
    folder = new_folder(parent, "killed")
    command = ("run", "--space", "space.yaml", "--trials", "4")
    trials = folder / "studies" / "small" / "trials"
    moments = [
        # the first result (training continues), a checkpoint being written or left out, a report
        lambda: (trials / "0000" / "clips-000002.jsonl").exists(),
        lambda: any(trials.glob("0001/checkpoints/.pending*")) or (trials / "0001" / "clips-000002.jsonl").exists(),
        lambda: (trials / "0002" / "clips-000002.jsonl").exists(),
    ]
    for moment, victims in zip(moments, ("supervisor", "child", "both"), strict=True):
        process = start(folder, *command)
        wait_for(lambda moment=moment, process=process: moment() or process.poll() is not None)
        if process.poll() is None:
            child = children(process.pid)
            if victims != "supervisor" and child:
                os.kill(child[0], signal.SIGKILL)
            if victims != "child":
                process.kill()
        process.communicate(timeout=200)
        assert process.returncode in (0, -9)
    last = tmsearch_process(folder, *command)
    assert last.returncode == 0, last.stderr
    assert outcomes(folder) == outcomes(unbroken)


def test_ctrl_c_keeps_everything_and_the_storage_alone_goes_on(done, parent):
    unbroken, _ = done
    folder = new_folder(parent, "interrupted")
    with Webhook() as hook:
        process = start(folder, "run", "--space", "space.yaml", "--trials", "4", "--notify", f"{hook.url}/404")
        wait_for(lambda: (folder / "studies/small/trials/0000/clips-000002.jsonl").exists())
        shown = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True).stdout
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert hook.texts[0].startswith("study small: interrupted, everything is kept\n")
    assert "no notice was sent: it was answered with 404" in output, "and the exit code is still that of the run"
    assert SECRET not in output + shown, "nobody reads the address on the screen or in the list of processes"
    assert not [file for file in folder.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]
    assert "interrupted, everything is kept" in output
    (folder / "space.yaml").unlink()
    elsewhere = parent / "elsewhere"
    elsewhere.mkdir()
    storage = f"sqlite:///{folder}/studies/tmsearch.db"
    resumed = tmsearch_process(elsewhere, "resume", "small", "--storage", storage)
    assert resumed.returncode == 0, resumed.stderr
    assert outcomes(folder) == outcomes(unbroken)
    assert list(elsewhere.iterdir()) == []


def test_add_retry_stop_delete(done):
    folder, _ = done
    added = tmsearch(folder, "add", "small", "learning_rate=5e-3")
    assert added.returncode == 0, added.stderr
    assert "trial 4 is queued" in added.stdout
    queued = status(folder)["configurations"][4]
    assert (queued["state"], queued["params"]["learning_rate"]) == ("queued", 5e-3)
    wrong = tmsearch(folder, "add", "small", "learning_rate=5")
    assert wrong.returncode == 2
    assert "learning_rate" in wrong.stderr
    for unknown in ("x=1", "batch_size=2"):
        refused = tmsearch(folder, "add", "small", unknown)
        assert refused.returncode == 2
        assert refused.stderr.endswith("; searched: learning_rate, normalize_audio\n")
    assert "nothing has failed" in tmsearch(folder, "retry", "small").stdout
    assert tmsearch(folder, "retry", "small", "0").returncode == 2
    assert "no worker is on it" in tmsearch(folder, "stop", "small").stdout
    assert tmsearch(folder, "delete", "small").returncode == 2, "asks, and nobody is there to answer"
    assert json.loads(tmsearch(folder, "list", "--json").stdout)[0]["study"] == "small"
    assert tmsearch(folder, "delete", "small", "--yes").returncode == 0
    assert json.loads(tmsearch(folder, "list", "--json").stdout) == []
    assert not (folder / "studies" / "small").exists()
