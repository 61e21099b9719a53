"""Which trackers are mirrored to, and that nothing leaves the machine unless a person says so."""

import pytest

from tmsearch.errors import InputError
from tmsearch.tracking import choice


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    monkeypatch.delenv(choice.VARIABLE, raising=False)
    monkeypatch.setattr(choice, "is_installed", lambda name: name != "wandb")


def test_names_are_given_singly_or_with_commas():
    assert choice.parse(["trackio, mlflow", "trackio"]) == ("trackio", "mlflow")
    assert choice.parse(["none"]) == ()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["tensorbord"], "no such tracker: 'tensorbord'; there are trackio, wandb, mlflow, or none"),
        (["none,trackio"], "none beside trackio"),
        (["wandb"], r"install the extra \[wandb\]"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(given, words, tmp_path):
    with pytest.raises(InputError, match=words) as error:
        choice.choose(given, tmp_path)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_the_choice_is_remembered_and_none_ends_it(tmp_path, monkeypatch):
    assert choice.choose(None, tmp_path) == ()
    monkeypatch.setenv(choice.VARIABLE, "mlflow")
    assert choice.choose(None, tmp_path) == ("mlflow",)
    choice.remember(("trackio",), tmp_path)
    assert choice.choose(None, tmp_path) == ("trackio",), "the study's own comes before the environment's"
    monkeypatch.setenv(choice.VARIABLE, "none")
    assert choice.choose(None, tmp_path) == (), "a pool's workers leave it to the pool"
    assert choice.choose(["mlflow"], tmp_path) == ("mlflow",)
    monkeypatch.setenv(choice.VARIABLE, "mlflow")
    choice.remember((), tmp_path)
    assert choice.choose(None, tmp_path) == ()


def test_everything_stays_on_this_machine_by_default(tmp_path):
    own = tmp_path.resolve() / "trackers"
    assert choice.environment("trackio", tmp_path, {})["TRACKIO_DIR"] == str(own / "trackio")
    assert choice.environment("mlflow", tmp_path, {})["MLFLOW_TRACKING_URI"] == f"sqlite:///{own}/mlflow/mlflow.db"
    offline = choice.environment("wandb", tmp_path, {})
    assert offline["WANDB_MODE"] == "offline"
    assert {offline[f"WANDB_{place}_DIR"] for place in ("CACHE", "DATA")} == {offline["WANDB_DIR"], str(own / "wandb")}
    assert choice.environment("wandb", tmp_path, {"WANDB_API_KEY": "k"})["WANDB_MODE"] == "online"
    assert "offline, as WANDB_API_KEY is not set" in choice.where("wandb", tmp_path, "p", {})
    assert "trackio show --project p" in choice.where("trackio", tmp_path, "p", {})
    line = choice.where("mlflow", tmp_path, "p", {"MLFLOW_TRACKING_URI": "https://me:secret@host/ml"})
    assert line == "mlflow: host/ml", "no password is printed"
