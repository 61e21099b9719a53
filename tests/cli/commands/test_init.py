"""`init`: a space file for whatever dataset, which loads, says why, and is never written half or over another."""

import math

import numpy as np
import pytest
import yaml
from datasets import Dataset

from search.errors import UserError
from tests.support.audio_files import RecordedClip, struct_table, tone, tone_folder, write_recordings
from tests.support.command import tmsearch
from tests.support.hub_server import Hub
from tmsearch.cli.commands.init import study_name
from tmsearch.cli.services.knobs import load_space
from tmsearch.config import DataConfig
from tmsearch.data.audio_file import Recording
from tmsearch.data.corpus import Clip, Corpus
from tmsearch.data.splits import split
from tmsearch.data_quality import suggest_space


def corpus_of(count, seconds=4.0, spread_db=0.0, median_db=-20.0):
    """So many clips that nobody recorded; levels spread evenly."""
    clips = []
    for index in range(count):
        level = 10 ** ((median_db + spread_db * (index / max(1, count - 1) - 0.5)) / 20)
        recording = Recording(sample_rate=16_000, channels=1, peak=2 * level, rms=level, clipped=0.0)
        clips.append(Clip(f"{index:05d}.wav", f"Sentence {index}.", seconds, (f"sentence {index}",), recording))
    return Corpus(tuple(clips), (), "f")


def proposed(corpus, tmp_path, **more):
    share = suggest_space.parts(len(corpus.clips))[0]
    given = {"dataset": "me/throat", "validation": share, "test": share}
    config = DataConfig(**{**given, **more.pop("data", {})})
    options = {"gpu_gb": 80.0, "gpu_why": "for a GPU of 80 GB", **more}
    proposal = suggest_space.propose(
        corpus, config, split(corpus, config), study="throat", language_why="as asked", **options
    )
    file = tmp_path / "space.yaml"
    file.write_text(proposal.text(), encoding="utf-8")
    return load_space(str(file), (), None), proposal


@pytest.mark.parametrize(
    ("count", "batch", "steps"), [(20, 4, (64, 72)), (60, 8, (80, 100)), (180, 16, (120, 160)), (1000, 16, (800, 900)),
                                  (20_000, 32, (2000, 2000))]
)  # fmt: skip
def test_size_says_steps_batch_and_rungs(tmp_path, count, batch, steps):
    space, proposal = proposed(corpus_of(count), tmp_path)
    train = len(split(corpus_of(count), DataConfig(**space.data)).train)
    assert space.train["batch_size"] == batch
    assert steps[0] <= space.budget.max_steps <= steps[1]
    passes = space.budget.max_steps * batch / train
    assert 3 <= passes <= 24
    assert len(space.budget.rungs) >= 3
    assert all(later == 2 * rung for rung, later in zip(space.budget.rungs, space.budget.rungs[1:], strict=False))
    warmup = space.search["warmup_steps"]
    assert warmup.high <= 0.15 * space.budget.max_steps
    assert all(len(line) <= 200 for line in proposal.assumptions())


@pytest.mark.parametrize(("seconds", "context"), [(0.2, 1.0), (4.0, 4.5), (11.3, 11.5), (29.9, 30.0)])
def test_durations_say_the_context(tmp_path, seconds, context):
    space, _ = proposed(corpus_of(100, seconds), tmp_path)
    assert space.train["context_seconds"] == context


@pytest.mark.parametrize(
    ("gpu", "models"),
    [(0.0, ["tiny.en", "base.en"]), (4.0, ["tiny.en", "base.en"]), (8.0, ["base.en", "small"]),
     (24.0, ["small", "medium"]), (80.0, ["small", "large-v3"])],
)  # fmt: skip
def test_memory_says_the_models(tmp_path, gpu, models):
    space, _ = proposed(corpus_of(100), tmp_path, gpu_gb=gpu)
    assert list(space.search["model"].values) == [f"openai/whisper-{name}" for name in models]
    german, _ = proposed(corpus_of(100), tmp_path, gpu_gb=gpu, data={"language": "de"})
    assert not any(name.endswith(".en") for name in german.search["model"].values)


def test_one_model_is_fixed_with_its_own_range_and_an_unknown_one_gets_a_wide_one(tmp_path):
    space, _ = proposed(corpus_of(100), tmp_path, models=["openai/whisper-large-v3"])
    assert space.train["model"] == "openai/whisper-large-v3"
    assert (space.search["learning_rate"].low, space.search["learning_rate"].high) == (1.5e-6, 3e-5)
    assert space.start[0]["learning_rate"] == 5e-6
    for models in (["me/finetuned"], ["me/finetuned", "openai/whisper-small"]):
        wide, _ = proposed(corpus_of(100), tmp_path, models=models)
        assert wide.search["learning_rate"].high == 1e-3
        assert "learning_rate" not in wide.start[0]


@pytest.mark.parametrize(("spread", "searched"), [(2.0, False), (20.0, True)])
def test_levels_say_whether_normalisation_is_searched(tmp_path, spread, searched):
    space, _ = proposed(corpus_of(300, spread_db=spread), tmp_path)
    assert ("normalize_audio" in space.search) is searched
    assert ("normalize_audio" in space.train) is not searched


HOSTILE = [
    "it's: a \"test\" #1", "- {x: y}", "наушник 목 🎙", "שלום/a", "yes", "1e-5", "%TAG", " lead", "back\\slash",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_names_read_back_as_they_were(tmp_path, name):
    space, proposal = proposed(corpus_of(50), tmp_path, data={"dataset": name, "text_column": name})
    assert space.data["dataset"] == space.data["text_column"] == name
    comments = [line for line in proposal.text().splitlines() if line.lstrip().startswith("#")]
    assert not any(name in line for line in comments)


def test_a_name_that_a_space_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    for name in ("bell\x07", "line\u2028end", "tab\t"):
        with pytest.raises(UserError, match="cannot be shown"):
            proposed(corpus_of(50), tmp_path, data={"dataset": name})


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
    done = tmsearch(folder, "init", dataset, "--gpu", "24")
    assert done.returncode == 0, done.stderr
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


def test_a_hub_dataset_is_pinned_and_its_card_tells_the_language(tmp_path):
    repo = tone_folder(tmp_path / "repo", *"abcdefghij")
    (repo / "README.md").write_text("---\nlanguage:\n- de-DE\n---\n# Kehlkopf\n")
    with Hub({("dataset", "me/throat"): {"main": repo}}, private={"me/throat"}, token="hf_right") as hub:
        token = hub.environment(tmp_path / "home", token="hf_right")
        done = tmsearch(tmp_path, "init", "me/throat", **token)
        refused = tmsearch(tmp_path, "init", "me/throat", "-o", "x.yaml", **hub.environment(tmp_path / "none"))
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "spaces" / "throat.yaml").read_text()
    data = yaml.safe_load(text)["data"]
    assert data["revision"] == hub.commit("dataset", "me/throat", "main")
    assert data["language"] == "de"
    assert "language de: the dataset says so" in done.stdout
    assert "hf_right" not in text + done.stdout + done.stderr
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert not (tmp_path / "x.yaml").exists()
