"""Hand-run trainings in a study: what the command asks for, and that no training is entered twice."""

import pytest

from search import imported
from search.imported import COMPARES, MEASURE
from search.records import Configuration, Rung
from tests.support.command import SPACE
from tests.support.in_process import status, tmsearch


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
    states = [(trial["state"], trial["steps"], trial["wer"]) for trial in status(folder)["configurations"]]
    assert states == [("finished", 6, 0.80), ("finished", 6, 0.84), ("failed", 2, 0.95)]
    assert tmsearch(folder, "best", "small").returncode == 2, "what was trained elsewhere is not the study's best"
    ran = tmsearch(folder, "run", "--space", "space.yaml", "--trials", "2")
    assert ran.returncode == 0, ran.stderr + ran.stdout
    assert "trial 3: starts; learning_rate=0.001" in ran.stdout, "the start entry is still the first"
    assert "2 configurations:" in ran.stdout
    assert len(status(folder)["configurations"]) == 5
    plain = tmsearch(folder, "status", "small").stdout
    assert "2 of 2 configurations have a result" in plain
    assert "3 imported beside them" in plain
    assert max(map(len, plain.splitlines())) <= 80


def test_what_a_log_does_not_tell_is_asked_for_and_nothing_is_written(folder):
    written(folder, "log.csv", CSV.replace("wer_normalised", "wer"))
    refused = tmsearch(folder, "import", "small", "log.csv", "--space", "space.yaml")
    assert refused.returncode == 2
    assert "--wer raw or --wer normalised" in refused.stderr
    assert not (folder / "studies").exists()
    written(folder, "part.csv", "step,wer_raw,max_steps\n2,0.9,6\n6,0.8,6\n")
    incomplete = tmsearch(folder, "import", "small", "part.csv", "--space", "space.yaml")
    assert "the log does not say learning_rate, normalize_audio; --set learning_rate=VALUE does" in incomplete.stdout


def configuration(number, origin, *rungs):
    return Configuration(number, origin, {"x": 1.0}, {"x": 1.0}, "finished", rungs=tuple(rungs))


def test_another_measure_is_read_once_the_study_relates_the_two():
    hand = configuration(0, "imported", Rung(6, 0.40, {MEASURE: "wer_raw", COMPARES: True}))
    assert imported.rescale_imported([hand])[0].rungs == (), "nothing relates them yet"
    own = configuration(1, "sampled", Rung(6, 0.30, {"wer_raw": 0.60}))
    assert imported.rescale_imported([hand, own])[0].value == pytest.approx(0.20)
    unlike = configuration(2, "imported", Rung(6, 0.40, {MEASURE: "value", COMPARES: False}))
    assert imported.rescale_imported([unlike])[0].rungs == ()
    assert imported.without_imported([hand, own]) == [own]


def test_the_advice_that_import_prints_can_be_followed(folder):
    written(folder, "part.csv", "step,wer_raw,learning_rate\n2,0.9,1e-3\n6,0.8,5e-4\n")
    first = tmsearch(folder, "import", "small", "part.csv", "--space", "space.yaml")
    assert first.returncode == 0, first.stderr
    assert "learning_rate varies within the run: its highest, 1e-3, is taken for the peak" in first.stdout
    assert "the log does not say max_steps, which the schedule depends on; --set max_steps=N does" in first.stdout
    followed = tmsearch(folder, "import", "small", "part.csv", "--set", "max_steps=6", "--set", "normalize_audio=true")
    assert followed.returncode == 0, followed.stderr
    assert "trial 0: finished, WER 0.800 at step 6" in followed.stdout
    assert "does not say" not in followed.stdout
    again = tmsearch(folder, "import", "small", "part.csv")
    assert again.stdout == "trial 0: already imported\n", "what a person said is not lost"
    (trial,) = status(folder)["configurations"]
    assert (trial["state"], trial["params"]["learning_rate"], trial["wer"]) == ("finished", 1e-3, 0.8)
    refused = tmsearch(folder, "import", "small", "part.csv", "--set", "max_steps=0")
    assert refused.returncode == 2
    assert "max_steps: 0 is too low" in refused.stderr


def test_noise_is_of_trainings_that_compare_alone():
    values = (0.30, 0.40)
    alike, unlike = [], []
    for number, value in enumerate(values):
        alike.append(configuration(number, "imported", Rung(6, value, {MEASURE: "value", COMPARES: True})))
        unlike.append(configuration(number, "imported", Rung(6, value, {MEASURE: "value", COMPARES: False})))
    assert imported.repeat_noise(alike).runs == 2
    assert imported.repeat_noise(unlike) is None, "trained on other terms, they say nothing of this study"
    raw = [configuration(n, "imported", Rung(6, v, {MEASURE: "wer_raw", COMPARES: True})) for n, v in enumerate(values)]
    assert imported.repeat_noise(raw) is None, "in another measure"
    own = configuration(2, "sampled", Rung(6, 0.30, {"wer_raw": 0.60}))
    assert imported.repeat_noise([*raw, own]).deviation == pytest.approx(0.5 * imported.repeat_noise(alike).deviation)
