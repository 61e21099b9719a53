"""What a space becomes before a study exists, and when an existing study may change it."""

import dataclasses
from types import SimpleNamespace

import pytest

from search import study
from search.errors import UserError
from search.execution.messages import Checked
from search.space.search_space import Space
from search.storage.database import open_storage
from tests.support import in_process, toy_whisper
from tests.support.study_builder import claimed_study
from tmsearch.cli.services import create, knobs
from tmsearch.cli.services.plan import candidates, measure_line
from tmsearch.cli.services.runs import search
from tmsearch.config import NEW_STUDIES, TrainConfig
from tmsearch.trial.facts import DataFacts, ModelNeeds

SPACE = """
study: d
data: {dataset: demo, language: LANGUAGE, validation: 8, test: 8}
budget: {max_steps: 4, rungs: [2, 4]OBJECTIVE}
train: {model: demo/nano, batch_size: 4TRAIN}
search: {learning_rate: {low: 1e-5, high: 1e-2, log: true}}
"""
FACTS = DataFacts("f", 200, 550.0, ("a",), ("b",), ("c",))


def space_file(folder, train="", language="en", objective=""):
    text = SPACE.replace("TRAIN", train).replace("LANGUAGE", language).replace("OBJECTIVE", objective)
    file = folder / "d.yaml"
    file.write_text(text)
    return str(file)


def forms_of(written):
    """Every form of a space, and the remarks on the last."""
    space = search.forms_of(written)
    return space.forms, space.remarks


def created(folder, **how):
    """A study of the space as a person's first command would make it, that has trained nothing."""
    space, _ = knobs.with_fitting_defaults(knobs.load_space(space_file(folder, **how), (), None))
    storage = open_storage(f"sqlite:///{folder}/db.sqlite")
    facts = {"data": FACTS.to_json(), "threads": 1}
    return study.create(storage, space, seed=0, trials=2, version="test", facts=facts)


def test_a_small_disk_and_what_is_needed_of_it_are_said_in_units_that_fit(tmp_path, monkeypatch):
    needs = {"demo/nano": dict.fromkeys(ModelNeeds.__annotations__, 1) | {"checkpoint_bytes": 2_600_000}}
    monkeypatch.setattr(create.shutil, "disk_usage", lambda folder: SimpleNamespace(free=3_100_000))
    with pytest.raises(UserError) as refused:
        create.check_disk(tmp_path, Checked(FACTS.to_json(), needs, None))
    sizes = "3.1 MB free, a trial's checkpoints need 5.2 MB"
    assert str(refused.value) == f"{tmp_path}: {sizes}; make room, or set TMSEARCH_STUDIES to another disk"


def test_a_default_that_no_training_reaches_shrinks_and_is_said(tmp_path):
    space, lines = knobs.with_fitting_defaults(knobs.load_space(space_file(tmp_path), (), None))
    assert space.train["warmup_steps"] == 0
    assert lines == ["warmup_steps: 0, as its default, 50, is past budget.max_steps, 4"]
    said, lines = knobs.with_fitting_defaults(knobs.load_space(space_file(tmp_path, ", warmup_steps: 2"), (), None))
    assert (said.train["warmup_steps"], lines) == (2, [])


def test_a_language_is_kept_by_one_name_whatever_the_file_calls_it(tmp_path):
    assert knobs.load_space(space_file(tmp_path, language="Japanese"), (), None).data["language"] == "ja"
    with pytest.raises(UserError, match=r"d\.yaml: data\.language: .*japanes.*did you mean ja"):
        knobs.load_space(space_file(tmp_path, language="japanes"), (), None)


def test_a_study_of_before_is_the_same_space_by_another_name_of_its_language(tmp_path):
    record = created(tmp_path).record()
    old = {**record.space, "data": {**record.space["data"], "language": "English"}}
    old["train"] = {name: value for name, value in old["train"].items() if name != "warmup_steps"}
    kept = dataclasses.replace(record, space=old, fingerprint=Space.from_json(old).fingerprint())
    written = knobs.load_space(space_file(tmp_path), (), None)
    fitting, _ = knobs.with_fitting_defaults(written)
    assert search.changes(kept, (written, fitting), None) == []
    assert "objective" not in fitting.to_json()["budget"]


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_an_objective_that_a_model_cannot_be_judged_by_is_refused_before_anything_is_written(tmp_path, more):
    toy_whisper.whisper_folder(tmp_path / "toy")
    toy_whisper.corpus_folder(tmp_path / "corpus")
    space_file(tmp_path, objective=", objective: mean")
    before = sorted(tmp_path.rglob("*"))
    values = ("model=./toy", "data.dataset=./corpus", "data.validation=4", "data.test=0")
    with_toy = [f"--set={value}" for value in values]
    done = in_process.tmsearch(tmp_path, "run", "--space", "d.yaml", *with_toy, *more)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("tmsearch: d.yaml: budget.objective: mean: ")
    assert "toy knows no times" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_another_space_names_the_command_that_continues_without_it(tmp_path):
    record = created(tmp_path, train=", lora_r: 4").record()
    written = knobs.load_space(space_file(tmp_path), (), None)
    fitting, _ = knobs.with_fitting_defaults(written)
    changes = search.changes(record, (written, fitting), None)
    assert changes == ["train.lora_r: was 4, is not given"]
    assert "`tmsearch resume d`" in search.changed_text(record, "d.yaml", changes)


def test_a_study_may_change_its_space_until_it_has_a_result(tmp_path):
    assert search.is_untried(created(tmp_path))
    folder = tmp_path / "claimed"
    folder.mkdir()
    assert not search.is_untried(claimed_study(folder, 2)[0])


def test_adapters_that_trials_may_have_are_candidates_of_the_check(tmp_path):
    file = space_file(tmp_path, ", lora_targets: q_porj")
    space = knobs.load_space(file, ("search.lora_r=[0, 8]",), None)
    plain, adapted = candidates(space)
    assert "lora_r" not in plain
    assert (adapted["lora_r"], adapted["lora_targets"]) == (8, "q_porj")


def test_import_looks_at_the_data_and_at_no_model(tmp_path, monkeypatch):
    jobs = []

    def answer(child, job):
        jobs.append(job)
        return Checked(FACTS.to_json(), {}, None)

    monkeypatch.setattr(create, "run_job", answer)
    space = knobs.load_space(space_file(tmp_path), (), None)
    ledger = create.check_and_create(open_storage(f"sqlite:///{tmp_path}/i.sqlite"), space)
    assert [job.candidates for job in jobs] == [()]
    assert not search.has_trained(ledger)  # so that its first run checks the models


def test_results_of_a_language_that_was_counted_by_sentences_are_not_added_to(tmp_path, monkeypatch):
    ledger = created(tmp_path, language="ja")
    monkeypatch.setattr(search, "has_trained", lambda ledger: True)
    search.check_measure(ledger)
    record = ledger.record()
    space = {**record.space, "data": {**record.space["data"], "language": "Japanese"}}
    monkeypatch.setattr(type(ledger), "record", lambda self: dataclasses.replace(record, space=space))
    with pytest.raises(UserError, match="count each sentence of Japanese as one word"):
        search.check_measure(ledger)


def test_the_plan_says_what_is_minimised_and_after_which_normalizer(tmp_path):
    hindi = knobs.load_space(space_file(tmp_path, language="hi"), (), None)
    facts = dataclasses.replace(FACTS, normalizer="marks")
    assert measure_line(hindi, facts).endswith("combining marks kept within words")
    assert measure_line(hindi, FACTS) == "minimised: WER, after Whisper's basic normalizer"  # a study of before
    japanese = knobs.load_space(space_file(tmp_path, language="ja"), (), None)
    assert "budget.objective: cer minimises CER" in measure_line(japanese, FACTS)
    by_cer = knobs.load_space(space_file(tmp_path, objective=", objective: cer"), (), None)
    assert measure_line(by_cer, FACTS).startswith("minimised: CER")
    assert by_cer.fingerprint() != knobs.load_space(space_file(tmp_path), (), None).fingerprint()


def test_a_new_study_keeps_the_knobs_that_came_later_by_value_and_says_so(tmp_path):
    written = knobs.load_space(space_file(tmp_path), (), None)
    (*_, fitting, space), remarks = forms_of(written)
    assert {name: space.train[name] for name in NEW_STUDIES} == dict(NEW_STUDIES)
    assert not set(NEW_STUDIES) & set(fitting.train)
    assert "so that the model hears long recordings, too" in remarks[-1]
    given = knobs.load_space(space_file(tmp_path, ", window_share: 0, clip_times: 0"), (), None)
    (*_, kept), remarks = forms_of(given)
    assert (kept.train["window_share"], kept.train["clip_times"]) == (0.0, 0.0)
    assert "window_prompts" not in kept.train, "there are no windows"
    assert not any("long recordings" in remark for remark in remarks)
    searched = knobs.load_space(space_file(tmp_path), ("search.window_share=[0, 0.5]", "train.clip_times=0"), None)
    assert "window_share" not in forms_of(searched)[0][-1].train
    assert forms_of(searched)[0][-1].train["window_prompts"] == NEW_STUDIES["window_prompts"]


def test_a_study_of_the_first_windows_goes_on_with_their_prompts(tmp_path):
    written = knobs.load_space(space_file(tmp_path), (), None)
    forms = forms_of(written)[0]
    first_windows = [form for form in forms if "window_share" in form.train and "window_prompts" not in form.train]
    assert first_windows
    record = SimpleNamespace(space=first_windows[-1].to_json(), seed=0, name="first")
    assert search.changes(record, forms, None) == []
    told = knobs.load_space(space_file(tmp_path, ", window_prompts: 0.4"), (), None)
    assert all(form.train["window_prompts"] == 0.4 for form in forms_of(told)[0][-2:])


def test_a_study_of_before_there_were_windows_is_the_same_space_and_resumes_without_them(tmp_path):
    record = created(tmp_path).record()  # by with_fitting_defaults alone, as versions before did
    forms, _ = forms_of(knobs.load_space(space_file(tmp_path), (), None))
    assert search.changes(record, forms, None) == []
    assert TrainConfig(**{**record.space["train"], "max_steps": 4}).window_share == 0.0
    other, _ = forms_of(knobs.load_space(space_file(tmp_path, ", lora_r: 4"), (), None))
    assert search.changes(record, other, None) == ["train.lora_r: was not given, is 4"]
    off, _ = forms_of(knobs.load_space(space_file(tmp_path, ", window_share: 0, clip_times: 0"), (), None))
    assert search.changes(record, off, None) == []
    on, _ = forms_of(knobs.load_space(space_file(tmp_path, ", window_share: 0.3"), (), None))
    assert any("window_share: was not given, is 0.3" in change for change in search.changes(record, on, None))
    new = dataclasses.replace(record, space=forms[-1].to_json(), fingerprint=forms[-1].fingerprint())
    assert search.changes(new, forms, None) == []
    assert search.changes(new, other, None) == ["train.lora_r: was not given, is 4"]
