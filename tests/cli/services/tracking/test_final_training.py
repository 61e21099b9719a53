"""The final training as one run: nothing before it began, its model at its end, the same run all along."""

import json

from tmsearch.cli.services.tracking.final_training import FinalTraining
from tmsearch.config import DataConfig, TrainConfig
from tmsearch.recipe import Recipe
from tmsearch.tracking import choice


def test_a_final_training_is_one_run_and_its_model_an_artifact_at_its_end(tmp_path):
    recipe = Recipe(DataConfig(dataset="demo"), TrainConfig(), 1, evidence={"study": "demo"})
    training = FinalTraining(recipe, tmp_path, ("trackio",))
    assert training() == [], "a folder that is refused stays as it is"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "options.json").write_text("{}")
    (tmp_path / "runs").mkdir()
    (running,) = training()
    assert (running.ended, running.artifact, running.project) == (False, {}, "demo")
    assert choice.choose(["none"], tmp_path) == ()
    assert json.loads((tmp_path / "trackers" / "trackers.json").read_text()) == ["trackio"]
    (tmp_path / "metrics.json").write_text(json.dumps({"test": {"wer": 0.25, "loops": 1}, "kept": "the last weights"}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "README.md").write_text("card")
    (ended,) = FinalTraining(recipe, tmp_path, ("trackio",))()
    assert ended.id == running.id
    assert ended.facts == {"state": "finished", "test.wer": 0.25, "test.loops": 1}
    assert sorted(ended.artifact) == ["README.md", "metrics.json", "model.safetensors"]
    assert ended.signature != running.signature
