"""The data section's list of extra speech: checked as any knob, planned, kept in recipes, and refused in one line."""

import dataclasses

import numpy as np
import pytest
import soundfile
import yaml

from search.errors import UserError
from search.space.search_space import Space, differences
from tests.support.audio_files import air_folder
from tests.support.in_process import tmsearch
from tmsearch.cli.services import knobs, recipes
from tmsearch.config import DataConfig, ExtraData, TrainConfig
from tmsearch.recipe import Recipe, recipe_text

SPACE = """
study: beside
data: {dataset: demo, language: en, validation: 8, test: 8, extra: EXTRA, noise: noise}
budget: {max_steps: 8, rungs: [4, 8]}
train: {model: demo/nano, batch_size: 4}
search: {learning_rate: {low: 1e-5, high: 1e-2, log: true}, noise_db: [null, 10], bpe_dropout: [0, 0.1]}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    air_folder(tmp_path / "calm")
    (tmp_path / "noise").mkdir()
    soundfile.write(tmp_path / "noise/hiss.wav", 0.1 * np.random.default_rng(0).standard_normal(48_000), 16_000)
    return tmp_path


def written(folder, extra, **replaced):
    text = SPACE.replace("EXTRA", extra)
    for old, new in replaced.items():
        text = text.replace(old, new)
    (folder / "space.yaml").write_text(text)
    return "space.yaml"


def test_a_list_of_extra_speech_is_read_with_its_paths_and_kept(folder):
    space = knobs.load_space(written(folder, "[{dataset: calm, share: 0.5}, {dataset: me/air, throat: yes}]"), (), None)
    assert space.data["extra"] == [
        {"dataset": str(folder / "calm"), "share": 0.5},
        {"dataset": "me/air", "throat": True},
    ]
    assert space.data["noise"] == str(folder / "noise")
    again = Space.from_json(space.to_json())
    assert differences(space, again) == []
    assert DataConfig(**again.data).extra[1] == ExtraData("me/air", throat=True)
    fewer = knobs.load_space("space.yaml", ["data.extra=[{dataset: calm}]"], None)
    assert differences(space, fewer)[0].startswith("data.extra: was ")


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ("calm", "space.yaml: data.extra: calm where a list of mappings belongs; write [{dataset: ...}]"),
        ("[calm]", "space.yaml: data.extra[0]: calm where a mapping belongs; its keys are dataset, share, throat"),
        ("[{share: 0.2}]", "space.yaml: data.extra[0].dataset: missing; give the dataset, as in data.dataset"),
        ("[{dataset: a}, {dataset: b, shre: 1}]", "data.extra[1].shre: no such key; did you mean share?"),
        ("[{dataset: a, share: 1.5}]", "data.extra[0].share: 1.5 is too high; the most that share takes is 1"),
        ("[{dataset: a, throat: 3}]", "data.extra[0].throat: 3 is a number; give true or false"),
    ],
)
def test_a_mistake_in_it_names_file_key_and_fix(folder, extra, says):
    with pytest.raises(UserError) as error:
        knobs.load_space(written(folder, extra), (), None)
    assert says in str(error.value)


def test_a_dry_run_names_the_rows_and_refuses_copies_of_what_is_scored(folder):
    written(folder, "[{dataset: calm, share: 0.25, throat: true}]")
    planned = tmsearch(folder, "run", "--space", "space.yaml", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "calm: 6 clips, 0.1 min, share 0.25; train only; heard through the filter learnt from" in planned.stdout
    assert "dB at 2000 Hz" in planned.stdout
    assert "noise: 1 recordings, 0.1 min" in planned.stdout
    refused = tmsearch(folder, "run", "--space", "space.yaml", "--dry-run", "--set", "data.extra=[{dataset: demo}]")
    assert refused.returncode == 2
    assert "data.extra[0]: demo: 16 of its clips are in validation or test, such as " in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["calm", "noise", "space.yaml"]


def test_init_writes_what_it_was_given_of_it(folder):
    given = ("--set", "data.extra=[{dataset: me/air, throat: true}]", "--set", "data.noise=noise")
    made = tmsearch(folder, "init", "calm", "--language", "en", "-o", "made.yaml", *given)
    assert made.returncode == 0, made.stderr
    data = DataConfig(**knobs.load_space("made.yaml", (), None).data)
    assert data.extra == (ExtraData("me/air", throat=True),)
    assert data.noise == str(folder / "noise")


def test_a_recipe_keeps_what_is_trained_on_beside_the_data(tmp_path):
    data = DataConfig("demo", extra=(ExtraData("me/air", 0.3, throat=True),), noise="noise", air_channel=1)
    recipe = Recipe(data, TrainConfig(noise_db=10.0), 1, "f" * 64, supplement="e" * 64)
    (tmp_path / "best.yaml").write_text(recipe_text(recipe))
    read, remarks = recipes.read_recipe(str(tmp_path / "best.yaml"))
    assert (read, remarks) == (recipe, [])
    kept = yaml.safe_load(recipe_text(Recipe(DataConfig("demo"), TrainConfig(), 1, "f" * 64)))
    assert not {"extra", "noise", "air_column", "air_channel", "channel", "keep"} & set(kept["data"])
    assert not {"noise_db", "noise_share", "extra_share", "bpe_dropout"} & set(kept["train"])
    assert "supplement" not in kept
    changed = dataclasses.replace(recipe, supplement=None)
    assert changed.hash != recipe.hash
