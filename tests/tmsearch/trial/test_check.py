"""What the check of data and models refuses, before a study exists."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from search.execution.messages import CheckJob
from tests.support import toy_whisper
from tests.support.audio_files import air_folder
from tmsearch.config import DataConfig, TrainConfig
from tmsearch.demo.paths import DEMO
from tmsearch.errors import InputError
from tmsearch.evaluation.error_rates import score
from tmsearch.model import whisper
from tmsearch.model.context import context_rule
from tmsearch.trial import jobs
from tmsearch.trial.check import check, mean_example
from tmsearch.trial.facts import DataFacts
from tmsearch.trial.workbench import Workbench

DATA = {"dataset": "demo", "validation": 8, "test": 8}


@pytest.fixture(scope="module")
def workbench():
    return Workbench()


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A model that knows no times, and clips that it can hear."""
    folder = tmp_path_factory.mktemp("toy")
    return toy_whisper.whisper_folder(folder / "model"), toy_whisper.corpus_folder(folder / "corpus")


@pytest.fixture
def nano(tmp_path):
    return shutil.copytree(DEMO / "nano", tmp_path / "nano")


def checked(workbench, data=DATA, objective="wer", **params):
    return check(workbench, CheckJob(data, ({"model": "demo/nano", "max_steps": 4, **params},), False, objective))


def test_a_device_that_is_not_there_is_refused_before_a_study_exists(workbench, monkeypatch):
    monkeypatch.setenv("TMSEARCH_DEVICE", "tpu")
    with pytest.raises(InputError, match="TMSEARCH_DEVICE=tpu: no such device; give one of cuda, mps, cpu"):
        checked(workbench)


def test_graphs_are_on_or_off(workbench, monkeypatch):
    monkeypatch.setenv("TMSEARCH_CUDA_GRAPHS", "no")
    with pytest.raises(InputError, match="TMSEARCH_CUDA_GRAPHS=no: give on or off, or unset it"):
        checked(workbench)


def test_a_study_that_can_train_passes_and_says_its_normalizer(workbench):
    answer = checked(workbench, lora_r=4, lora_targets="q_proj,fc1")
    assert answer.data["normalizer"] == "whisper"
    assert answer.models["demo/nano"]["parameters"] == 390400


def test_lora_targets_that_the_model_does_not_have_are_refused(workbench):
    with pytest.raises(InputError, match=r"^lora_targets: q_porj: no such module; there are fc1, "):
        checked(workbench, lora_r=4, lora_targets="q_porj")


def test_a_language_that_the_tokenizer_does_not_have_is_refused(workbench):
    with pytest.raises(InputError, match=r"^demo/nano: knows no <\|jw\|>; check data.language"):
        checked(workbench, {**DATA, "language": "jv"})


def test_a_text_longer_than_the_decoder_is_refused(workbench, monkeypatch):
    limit = 5
    monkeypatch.setattr("tmsearch.model.whisper._outline", _with_few_positions(limit))
    with pytest.raises(InputError, match=f"text longer than {limit} tokens; shorten or drop"):
        checked(workbench)


def _with_few_positions(limit):
    original = whisper._outline

    def outline(folder, settings):
        model = original(folder, settings)
        model.config.max_target_positions = limit
        return model

    return outline


def test_weights_that_are_no_safetensors_are_refused(workbench, nano):
    (nano / "model.safetensors").rename(nano / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no model\.safetensors in it; weights are read from safetensors only"):
        checked(workbench, model=str(nano))


def test_weights_of_another_shape_than_config_json_says_are_refused(workbench, nano):
    settings = json.loads((nano / "config.json").read_text())
    settings["decoder_ffn_dim"] *= 2
    (nano / "config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"weight .* is .*, config\.json says"):
        checked(workbench, model=str(nano))


def test_a_missing_tokenizer_is_refused(workbench, nano):
    for file in nano.glob("*"):
        if "token" in file.name or file.name in ("vocab.json", "merges.txt", "normalizer.json"):
            file.unlink()
    with pytest.raises(InputError, match="tokenizer"):
        checked(workbench, model=str(nano))


@pytest.mark.parametrize("objective", ["wer_long", "mean"])
def test_long_recordings_are_not_minimised_with_a_model_that_knows_no_times(workbench, toy, objective):
    model, corpus = map(str, toy)
    data = {"dataset": corpus, "validation": 4, "test": 0}
    assert checked(workbench, objective=objective).models["demo/nano"]
    assert checked(workbench, data, "cer", model=model).models
    expected = rf"^budget\.objective: {objective}: {model} knows no times, .*; take wer or cer, or another model$"
    with pytest.raises(InputError, match=expected):
        checked(workbench, data, objective, model=model)


def test_no_model_is_looked_at_where_none_is_asked_for(workbench):
    answer = check(workbench, CheckJob(DATA, (), False, "wer"))
    assert answer.models == {}
    assert answer.data["clips"] == 200


def test_cer_is_what_a_segment_reports_where_it_is_minimised():
    clips = score(["a"], ["over and out"], ["over and oud"], "en").clips
    assert (jobs._errors(clips, None, "wer"), jobs._lengths(clips, None, "wer")) == ((1,), (3,))
    assert (jobs._errors(clips, None, "cer"), jobs._lengths(clips, None, "cer")) == ((1,), (12,))


def test_windows_cost_what_they_take_in_the_plan():
    seconds = [3.0] * 4
    single = TrainConfig()
    rule = context_rule(single, 30.0, max(seconds))
    clip_seconds, clip_tokens = mean_example(single, 30.0, rule, seconds)
    half = TrainConfig(window_share=0.5)
    mean_seconds, tokens = mean_example(half, 30.0, rule, seconds)
    # Half of the windows last 30 s, the others 12 to 30: 25.5 s on average, with 6.9 clips of 3 s and a pause of .7 s.
    assert 2 * mean_seconds - clip_seconds == pytest.approx(26.0, abs=0.8)  # by steps of .5 s, with some silence
    assert 2 * tokens - clip_tokens == pytest.approx(clip_tokens * 25.5 / 3.7)
    short = TrainConfig(window_share=0.5, window_seconds=6.0)
    assert clip_seconds < mean_example(short, 30.0, rule, seconds)[0] < mean_seconds


def test_extra_speech_and_split_texts_cost_what_they_take_in_the_plan(tmp_path):
    extra = toy_whisper.corpus_folder(tmp_path / "long", seconds=3.5)
    beside = {**DATA, "extra": [{"dataset": str(extra), "share": 0.5}]}
    workbench = Workbench()
    plain = checked(workbench).models["demo/nano"]
    mixed = checked(workbench, beside).models["demo/nano"]
    assert plain["heard_seconds"] + 0.2 < mixed["heard_seconds"]
    assert plain["flops_per_step"] < mixed["flops_per_step"]
    none_drawn = checked(workbench, beside, extra_share=0.0).models["demo/nano"]
    assert none_drawn["flops_per_step"] == plain["flops_per_step"]
    split = checked(workbench, bpe_dropout=0.3).models["demo/nano"]
    assert plain["flops_per_step"] < split["flops_per_step"]


@pytest.mark.parametrize(
    ("data", "params", "problem"),
    [
        ({}, {"noise_db": 10.0}, r"^train\.noise_db: 10: there is no noise; give data\.noise a folder"),
        ({}, {"extra_share": 0.5}, r"^train\.extra_share: 0\.5: there is no extra speech; name some in data\.extra$"),
        (
            {},
            {"bpe_dropout": 0.1, "model": "TOY"},
            r"^bpe_dropout: .*: its tokenizer has no merges to be skipped",
        ),
        (
            {"noise": "FOLDER"},
            {},
            r"^data\.noise: .*: is never heard; give train\.noise_db, such as 10",
        ),
        ({"noise": "nowhere"}, {"noise_db": 10.0}, r"^data\.noise: nowhere: no such folder"),
    ],
)
def test_what_cannot_be_trained_with_is_refused_in_one_line(workbench, tmp_path, data, params, problem):
    soundfile.write(tmp_path / "hiss.wav", np.random.default_rng(0).standard_normal(8000) / 10, 16_000)
    data = {key: str(tmp_path) if value == "FOLDER" else value for key, value in data.items()}
    if params.get("model") == "TOY":
        params = {**params, "model": str(toy_whisper.whisper_folder(tmp_path)), "context_seconds": 2.0}
        data = {**data, "dataset": str(toy_whisper.corpus_folder(tmp_path / "corpus")), "validation": 2, "test": 2}
    with pytest.raises(InputError, match=problem):
        checked(workbench, {**DATA, **data}, **params)


def test_a_study_keeps_what_was_beside_its_data(tmp_path):
    extra = air_folder(tmp_path / "extra")
    beside = {**DATA, "extra": [{"dataset": str(extra), "throat": True}]}
    workbench = Workbench()
    facts = DataFacts.from_json(checked(workbench, beside).data)
    assert [row["clips"] for row in facts.beside] == [6]
    assert facts.training_fingerprint != facts.fingerprint
    assert facts.supplement == workbench.speech(DataConfig(**beside), facts, tmp_path).supplement.fingerprint
    plain = DataFacts.from_json(checked(workbench).data)
    assert plain.training_fingerprint == plain.fingerprint == facts.fingerprint
    assert "beside" not in plain.to_json()
    with pytest.raises(InputError, match=r"^data.extra: what is trained on beside the dataset changed since the study"):
        workbench.speech(DataConfig(**beside), plain, tmp_path)


def test_kept_speech_that_is_not_there_is_refused_by_its_key(workbench):
    with pytest.raises(InputError, match=r"^data\.keep: .*no-such-folder"):
        checked(workbench, {**DATA, "keep": "no-such-folder/"})


def test_what_is_wrong_with_kept_speech_names_its_own_key(tmp_path):
    with pytest.raises(InputError, match=r"^data\.keep: \./nowhere/: .*; check data\.keep$"):
        Workbench().kept_speech(DataConfig(dataset="demo", keep="./nowhere/"), tmp_path)
