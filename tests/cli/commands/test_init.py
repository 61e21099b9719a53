"""`init`: a space file for whatever dataset, which loads, says why, and is never written half or over another."""

import json
import math
import re

import numpy as np
import pytest
import yaml
from datasets import Dataset

from tests.support import command
from tests.support.audio_files import RecordedClip, struct_table, tone, tone_folder, write_recordings
from tests.support.hub_server import Hub
from tests.support.in_process import tmsearch
from tmsearch.cli.commands.init import study_name
from tmsearch.cli.services.knobs import load_space


@pytest.mark.parametrize(
    ("dataset", "name"),
    [("pauljunsukhan/throatmic_codered", "throatmic_codered"), ("recordings/", "recordings"), ("demo", "demo"),
     ("a/b c:d.parquet", "b-c-d"), ("목소리", "mine"), ("Größe!", "Groe"), ("x" * 300, "x" * 40), ("../..//", None)],
)  # fmt: skip
def test_a_study_is_named_after_its_dataset(dataset, name):
    from search.space.search_space import check_study_name

    chosen = study_name(dataset)
    assert check_study_name(chosen) == chosen
    assert name is None or chosen.lower() in (name.lower(), "grosse", "groe")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Datasets of several kinds; 24 clips each."""
    folder = tmp_path_factory.mktemp("init")
    rows = [(f"{index}.wav", f"sentence number {index}", f"s{index % 6}") for index in range(24)]
    clips = []
    for index, (name, text, speaker) in enumerate(rows):
        columns = {"raw: text": text.upper(), "speaker": speaker, "language": "de-AT"}
        clips.append(RecordedClip(name, text, tone(1.0 + 0.05 * index, 200.0 + 10 * index), columns=columns))
    write_recordings(folder / "said: \"so\" '& so'", clips)
    table = struct_table([row[0] for row in rows])
    dataset = Dataset(table)
    dataset.to_parquet(str(folder / "speech.parquet"))
    dataset.save_to_disk(str(folder / "saved"))
    samples = np.full(16_000 * 31, 0.1, dtype=np.float32)
    write_recordings(folder / "long", [RecordedClip("a.wav", "far too long", samples)])
    write_recordings(folder / "foreign", [RecordedClip("a.wav", "안녕하세요 여러분", tone())])
    return folder


def files(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def test_a_folder_that_a_dry_run_accepts(folder):
    name = "said: \"so\" '& so'"
    words = ["init", f"{name}/", "--model", "demo/nano", "-o", "out/x y.yaml"]
    done = tmsearch(folder, *words, "--set", "data.text_column='raw: text'")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("out/x y.yaml: study said-so-so")
    assert "  language de: the dataset says so" in lines
    assert lines[-2].strip() == "tmsearch run --space 'out/x y.yaml' --dry-run"
    space = yaml.safe_load((folder / "out" / "x y.yaml").read_text())
    assert "context_seconds" not in space["train"]  # the embedded models' own is short
    assert space["data"]["dataset"] == f"{name}/"
    assert space["data"]["text_column"] == "raw: text"
    assert space["data"]["language"] == "de"
    # The embedded model hears 8 s and knows English only; the rest of the file is as it was written.
    run = tmsearch(folder, "run", "--space", "out/x y.yaml", "--dry-run", "--trials", "3", "--set", "data.language=en")
    assert run.returncode == 0, run.stderr
    assert "24 clips" in run.stdout
    before = files(folder)
    again = tmsearch(folder, "init", name, "-o", "out/x y.yaml")
    assert again.returncode == 2
    assert "--force" in again.stderr
    assert files(folder) == before
    assert tmsearch(folder, "init", name, "-o", "out/x y.yaml", "--force").returncode == 0


@pytest.mark.parametrize("dataset", ["speech.parquet", "saved"])
def test_tables(folder, dataset):
    done = tmsearch(folder, "init", dataset, "--gpu", "24", "--price", "0.80")
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"cost: 20 trials, about [\d:]+, about [\d.]+ dollars at 0\.8 dollars an hour, predicted", done.stdout
    )
    assert "predicted for an RTX 4090" in done.stdout
    name = dataset.removesuffix(".parquet")
    space = load_space(str(folder / "spaces" / f"{name}.yaml"), (), None)
    assert space.study == name
    assert "language en: ASSUMED" in done.stdout
    assert math.prod(space.budget.rungs) > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere/"], "nowhere"),
        (["long"], "longer than 30 s"),
        (["foreign"], "--language CODE"),
        (["foreign", "--language", "xx"], "not a language that Whisper knows"),
        (["demo", "--language", "germn"], "did you mean de"),
        (["demo", "--set", "batch_size=4"], "init takes data.KEY=VALUE"),
        (["demo", "--set", "data.text_colum=x"], "did you mean text_column?"),
        (["demo", "--set", "data.validation=400"], "data.validation"),
        (["demo", "--study", "a/b"], "--study"),
        (["demo", "-o", "saved"], "a folder"),
        (["demo", "--gpu", "much"], "not a memory size in GB"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(folder, words, message):
    before = files(folder)
    done = tmsearch(folder, "init", *words, HF_HUB_OFFLINE="1")
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert files(folder) == before


def test_data_divides_the_clips_as_the_space_that_init_writes(folder):
    """Of 24 clips a fifth each is validation and test, where a space that says nothing takes .15."""
    described = json.loads(tmsearch(folder, "data", "speech.parquet", "--json").stdout)
    assert tmsearch(folder, "init", "speech.parquet", "-o", "same.yaml").returncode == 0
    of_space = json.loads(tmsearch(folder, "data", "same.yaml", "--json").stdout)
    assert described["parts"] == of_space["parts"]
    assert dict(described["parts"])["validation"]["clips"] == 5
    given = json.loads(tmsearch(folder, "data", "speech.parquet", "--json", "--set", "data.validation=3").stdout)
    assert dict(given["parts"])["validation"]["clips"] == 3
    assert dict(given["parts"])["test"] == dict(described["parts"])["test"]


def test_a_hub_dataset_is_pinned_and_its_card_tells_the_language(tmp_path):
    repo = tone_folder(tmp_path / "repo", *"abcdefghij")
    (repo / "README.md").write_text("---\nlanguage:\n- de-DE\n---\n# Kehlkopf\n")
    with Hub({("dataset", "me/throat"): {"main": repo}}, private={"me/throat"}, token="hf_right") as hub:
        token = hub.environment(tmp_path / "home", token="hf_right")
        done = command.tmsearch(tmp_path, "init", "me/throat", **token)
        refused = command.tmsearch(tmp_path, "init", "me/throat", "-o", "x.yaml", **hub.environment(tmp_path / "none"))
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "spaces" / "throat.yaml").read_text()
    data = yaml.safe_load(text)["data"]
    assert data["revision"] == hub.commit("dataset", "me/throat", "main")
    assert data["language"] == "de"
    assert "language de: the dataset says so" in done.stdout
    assert "hf_right" not in text + done.stdout + done.stderr
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert not (tmp_path / "x.yaml").exists()


def test_init_and_the_dry_run_name_the_shortest_and_the_impossible_clips(tmp_path):
    clips = [RecordedClip(f"{index:02d}.wav", f"report number {index}", tone(1.0)) for index in range(20)]
    clips.append(RecordedClip("short.wav", "one two three four", tone(0.06)))
    write_recordings(tmp_path / "here/recordings", clips)
    folder = tmp_path / "here"
    made = tmsearch(folder, "init", "recordings", "--language", "en", "--model", "demo/nano", "-o", "space.yaml")
    dry = tmsearch(folder, "run", "--space", "space.yaml", "--trials", "2", "--dry-run")
    for done in (made, dry):
        assert done.returncode == 0, done.stderr
        assert "  shortest: short.wav (0.06 s, 4 words)" in done.stdout
        assert "  impossible: 1 of 21 clips, with more words than their time can hold: short.wav (0.06 s" in done.stdout
