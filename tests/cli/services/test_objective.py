"""What a study minimises is named wherever it is shown, and the other rates stand beside it."""

import dataclasses
from importlib import resources

import pytest
import torch

from search.records import measure_name as engine_name
from search.space.budget import OBJECTIVES
from tests.support.study_builder import Plan, random_study
from tmsearch.cli.services.report.study_report import page
from tmsearch.cli.view.format import rates_beside
from tmsearch.config import DataConfig, TrainConfig
from tmsearch.evaluation.comparison import Contender, Training, compare
from tmsearch.evaluation.scores import Scores, clip_objective, measure_name
from tmsearch.export import model_card, soups
from tmsearch.export.soups import Ingredient, SoupCandidate
from tmsearch.media.trial_note import NoteMedia, TrialNote, trial_note
from tmsearch.recipe import Recipe
from tmsearch.report import charts
from tmsearch.report.records import SpentResult, TrialRow

METRICS = {
    "wer": 0.2,
    "wer_raw": 0.4,
    "cer": 0.1,
    "wer_long": 0.3,
    "mean": 0.25,
    "long_insertions": 1,
    "long_deletions": 2,
    "long_substitutions": 3,
    "long_words": 20,
    "long_near": 0.75,
}


def test_engine_and_application_call_an_objective_alike():
    names = {objective: measure_name(objective) for objective in OBJECTIVES}
    assert names == {objective: engine_name(objective) for objective in OBJECTIVES}
    assert names == {"wer": "WER", "cer": "CER", "wer_long": "long WER", "mean": "mean WER"}


def test_the_rates_that_are_not_minimised_stand_beside():
    long = "(long: 1 ins., 2 del., 3 sub. of 20 words; 75% of times within 0.2 s)"
    assert rates_beside("wer", METRICS) == f"CER 0.100  long WER 0.300  mean WER 0.250  {long}"
    assert rates_beside("wer_long", METRICS) == f"WER 0.200  CER 0.100  mean WER 0.250  {long}"
    assert rates_beside("wer", {"wer": 0.2, "cer": 0.1}) == "CER 0.100"
    assert rates_beside("cer", {}) == "WER -"


def test_the_report_calls_what_is_minimised_by_its_name_in_every_chart_and_table(tmp_path):
    row = TrialRow(0, "finished", {}, "", ((2, 0.5),), 1.0, None, "", True)
    assert "step 2: CER 0.500" in charts.hover_text(row, 2, 0.5, "CER")
    drawn = charts.spending([SpentResult(1.0, 0.5, 0, 2)], (), "mean WER")
    assert drawn["layout"]["yaxis"]["title"]["text"] == "mean WER"
    assert "mean WER 0.500" in drawn["data"][0]["text"][0]
    template = (resources.files("tmsearch.report") / "files" / "study.html.j2").read_text(encoding="utf-8")
    assert [
        line for line in template.splitlines() if "WER" in line and "Words as the WER counts them" not in line
    ] == []


@pytest.mark.parametrize("objective", ["cer", "mean"])
def test_averages_and_soups_are_chosen_by_what_the_search_minimised(objective):
    """The mean of a and b is best by WER, a alone by CER and where long recordings count."""

    def score(weights):
        value = float(weights["w"][0])
        rates = {1.0: (0.3, 0.1, 0.1), 3.0: (0.4, 0.3, 0.5), 2.0: (0.2, 0.2, 0.4)}
        wer, cer, wer_long = rates[value]
        return Scores(wer, 0.0, cer, (), wer_long=wer_long)

    mixed = [Ingredient(name, {"w": torch.full((1,), value)}) for name, value in (("a", 1.0), ("b", 3.0))]
    assert soups.greedy(mixed, score).name == "greedy soup of 2 in 2"
    assert soups.greedy(mixed, score, objective).name == "greedy soup of 1 in 2"
    candidates = [SoupCandidate(str(value), {}, score({"w": torch.tensor([value])})) for value in (2.0, 1.0)]
    assert soups.best(candidates).name == "2.0"
    assert soups.best(candidates, objective).name == "1.0"


def test_a_verdict_on_the_test_split_is_of_single_clips():
    assert [clip_objective(objective) for objective in OBJECTIVES] == ["wer", "cer", "wer", "wer"]
    training = Training(1, 0, (1, 2, 0), (4, 4, 4))
    arms = [Contender(name, (training, dataclasses.replace(training, seed=2)), "") for name in ("default", "a")]
    assert "long WER 0.250 against" in compare(arms[0], arms[1:], 0.05, objective="wer_long").sentence()


def test_a_note_has_the_value_by_its_name_and_the_long_rates_of_the_rungs_that_have_them():
    rungs = [
        {
            "step": 2,
            "value": 0.5,
            "wer": 0.5,
            "wer_raw": 0.6,
            "cer": 0.4,
            "wer_long": None,
            "mean": None,
            "seconds": 1.0,
        },
        {"step": 4, "value": 0.25, **METRICS, "seconds": 1.0},
    ]
    fields = {"number": 0, "state": "finished", "origin": "sampled", "reason": None, "failure": None}
    fields |= {"steps": 4, "max_steps": 4, "searched": {}, "differs": {}, "rungs": rungs}
    note = TrialNote(**fields, train_seconds=1.0, eval_seconds=1.0, folder="", measure="mean WER")
    text = trial_note(note, NoteMedia())
    assert "**mean WER 0.250** at step 4" in text
    assert "| step | WER | raw WER | CER | long WER | mean WER | time |" in text
    assert "| 2 | 0.500 | 0.600 | 0.400 |  |  | 0:01 |" in text


def test_the_card_says_what_was_minimised_and_the_rates_beside():
    evidence = {
        "validation_wer": 0.2,
        "validation_cer": 0.1,
        "validation_wer_long": 0.3,
        "objective": "mean",
        "trial": 3,
    }
    recipe = Recipe(DataConfig(dataset="demo"), TrainConfig(), 1, evidence=evidence)
    assert "validation WER 0.200, CER 0.100, 0.300 on long recordings; the search minimised mean WER." in (
        model_card._search(recipe)
    )


def test_the_page_of_a_study_names_its_measure(tmp_path, monkeypatch):
    monkeypatch.setattr("search.records.StudyRecord.objective", property(lambda record: "mean"))
    plan = Plan(configurations=3, validation=4, clips=10, seconds=0.3)
    html = page(random_study(tmp_path, plan).storage, plan.study).decode()
    assert '<span class="unit">mean WER' in html
    assert "Beside its mean WER: WER " in html
