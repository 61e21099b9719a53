"""The final run scores the speech that is kept beside, with the model that it hands over and the untouched one."""

import dataclasses
import json

import pytest

from tests.support import toy_whisper
from tmsearch.config import DataConfig
from tmsearch.data import corpus
from tmsearch.evaluation import kept
from tmsearch.export import final_run
from tmsearch.export.final_run import FinalRunOptions
from tmsearch.model import whisper as model
from tmsearch.recipe import Recipe

OPTIONS = FinalRunOptions(dtype="float16", in_runtimes=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(recipe, folder of the model, cache, what was said) of a final run that keeps three clips of other speech."""
    here = tmp_path_factory.mktemp("final")
    toy = toy_whisper.whisper_folder(here / "toy")
    toy_whisper.corpus_folder(here / "throat")
    toy_whisper.corpus_folder(here / "clean", texts=("over", "stand by", "all clear"), seconds=1.0)
    data = DataConfig(dataset=str(here / "throat"), validation=3, test=2, keep=str(here / "clean"))
    recipe = Recipe(data, toy_whisper.config(toy, max_steps=3), 1)
    said = []
    outcome = final_run.train(
        recipe, OPTIONS, here / "best", here / "cache", lambda: False, lambda line, passing=False: said.append(line)
    )
    assert outcome == "done"
    return recipe, here / "best", here / "cache", said


def test_kept_speech_is_scored_with_the_folder_and_with_the_untouched_checkpoint(finished):
    recipe, folder, cache, said = finished
    metrics = json.loads((folder / "metrics.json").read_text())
    speech = kept.speech(corpus.load(kept.dataset(recipe.data)), recipe.data, cache)
    rates = {}
    for name, source in (("wer", folder), ("untouched_wer", recipe.train.model)):
        rates[name] = kept.wer(model.load(toy_whisper.config(source)), speech, recipe.train)
    assert metrics["keep"] == {"dataset": "clean", "clips": 3, **rates}
    assert rates["wer"] != rates["untouched_wer"], "two models, or the test says nothing"
    line = f"data.keep: WER {rates['wer']:.3f}, untouched {rates['untouched_wer']:.3f}"
    assert line in said
    card = (folder / "README.md").read_text()
    assert "3 clips of `clean` that were not trained on: WER" in card
    assert str(folder.parent) not in card, "where a folder lies is nobody else's business"


def test_kept_speech_changes_nothing_of_the_training(finished, tmp_path):
    recipe, folder, cache, _ = finished
    without = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, keep=None))
    final_run.train(without, OPTIONS, tmp_path / "best", cache, lambda: False, lambda line, passing=False: None)
    assert (tmp_path / "best" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    metrics = json.loads((tmp_path / "best" / "metrics.json").read_text())
    assert "keep" not in metrics
    assert metrics["test"] == json.loads((folder / "metrics.json").read_text())["test"]
