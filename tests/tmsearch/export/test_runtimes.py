"""What the folder gives in its runtimes is measured, compared with the untouched checkpoint and said."""

import dataclasses
import importlib.util
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.support import toy_whisper, whisper_sizes
from tmsearch.config import DataConfig, TrainConfig
from tmsearch.data import corpus as clips
from tmsearch.data.splits import Split
from tmsearch.export import finalize, model_card, model_folder, runtimes
from tmsearch.features.dataset import Speech
from tmsearch.model import whisper as model
from tmsearch.recipe import Recipe, recipe_text

LONG = {"insertions": 1, "deletions": 2, "substitutions": 3, "words": 60, "near": 0.8, "time_error": 0.1}
METRICS = {"dtype": "float32", "validation": {"wer": 0.2, "wer_raw": 0.3, "cer": 0.1, "clips": 3}}
ROWS = [
    {"runtime": "p", "audio": "single clips", "wer": 0.2, "count": 40, "untouched_wer": 0.5},
    {"runtime": "p", "audio": "long recordings", "wer": 0.4, "count": 2, "untouched_wer": 0.3, **LONG},
    {"runtime": "f", "audio": "single clips", "problem": "RuntimeError: no such layer"},
]


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    corpus = clips.load(DataConfig(dataset="demo"))
    names = [clip.name for clip in corpus.clips]
    split = Split(tuple(names[5:]), tuple(names[:3]), tuple(names[3:5]))
    return Speech(corpus, split, "en", "transcribe", tmp_path_factory.mktemp("cache"))


def test_a_regression_in_any_row_is_said_in_the_first_lines_of_the_card(speech):
    recipe = Recipe(DataConfig(dataset="demo"), TrainConfig(model="demo/nano"), 1)
    card = model_card.text(recipe, {**METRICS, "runtimes": ROWS}, (), speech, "best")
    first = card.partition("# best\n\n")[2].splitlines()[0]
    assert first.strip() == (
        "**Worse than the untouched checkpoint on long recordings in p: WER 0.400 against 0.300.**"
    )
    assert "| p | 2 long recordings | 0.400 | 0.300 | 1 / 2 / 3 of 60 | 80% |" in card
    assert "| f | single clips | not measured: RuntimeError: no such layer | | | |" in card
    assert runtimes.lines(ROWS)[0] == "p, single clips: WER 0.200, untouched 0.500"
    without = model_card.text(recipe, {**METRICS, "runtimes": ROWS[:1]}, (), speech, "best")
    assert "Worse than" not in without


def test_recordings_are_of_validation_clips_and_single_clips_of_the_test_split(speech):
    heard = runtimes.material(speech)
    assert heard.clips == speech.split.test
    assert {span.name for recording in heard.recordings for span in recording.spans} == set(speech.split.validation)
    untested = dataclasses.replace(speech, split=dataclasses.replace(speech.split, test=()))
    assert runtimes.material(untested).clips == speech.split.validation


def short_spoken():
    """A random Whisper with a window of 30 s, which runtimes ask for, that ends each text soon."""
    toy = whisper_sizes.whisper("tiny.en")
    decoder = toy.model.model.decoder
    with torch.no_grad():
        decoder.embed_tokens.weight[toy.model.generation_config.eos_token_id] = 0.2
        decoder.layer_norm.bias.fill_(4)
    return toy


def test_both_runtimes_hear_clips_and_recordings_of_an_exported_folder(speech, tmp_path, capsys):
    model_folder.export(short_spoken(), tmp_path / "best", language="en", task="transcribe")
    heard = runtimes.material(speech)
    capsys.readouterr()
    runtimes.main(str(runtimes.write_job([tmp_path / "best"], heard, tmp_path)))  # as the process does
    [answer] = json.loads(capsys.readouterr().out.splitlines()[-1])
    expected = [runtimes.PIPELINE]
    if importlib.util.find_spec("faster_whisper") is not None:
        expected.append(runtimes.FASTER_WHISPER)
    assert list(answer) == expected
    for runtime in expected:
        assert "problem" not in answer[runtime], answer
        assert len(answer[runtime]["clips"]) == 2
        assert len(answer[runtime]["recordings"]) == 1
        row = runtimes._compared(answer[runtime], answer[runtime], runtimes._recording_rates, heard)
        assert row["wer"] == row["untouched_wer"] > 0


def test_what_faster_whisper_draws_at_higher_temperatures_is_drawn_alike_each_time(tmp_path, monkeypatch):
    pytest.importorskip("faster_whisper", reason="faster-whisper is not installed: the extra faster-whisper has it")
    import ctranslate2
    import faster_whisper

    seed = None

    def set_seed(value):
        nonlocal seed
        seed = value

    class Random:
        """Hears what the seed is that it was made under, as CTranslate2's threads take theirs when they start."""

        def __init__(self, *_, **__):
            self.text = str(seed)

        def transcribe(self, samples, **_):
            return [SimpleNamespace(start=0.0, end=1.0, text=self.text)], None

    monkeypatch.setattr(ctranslate2, "set_random_seed", set_seed)
    monkeypatch.setattr(faster_whisper, "WhisperModel", Random)
    job = {"folder": str(tmp_path), "converted": str(tmp_path), "language": "en", "task": "transcribe"}
    heard = []
    for drawn_before in (1, 2):
        seed = drawn_before
        heard += runtimes._hear_with_faster_whisper(job, [np.zeros(160, np.float32)], times=False)
    assert heard[0] == heard[1] not in ("1", "2", "None")


def test_a_shorter_window_than_faster_whisper_hears_is_said_in_words(tmp_path):
    (tmp_path / "config.json").write_text('{"max_source_positions": 200}')
    np.savez(tmp_path / "audio.npz", clip0=np.zeros(160, np.float32))
    answer = runtimes._answer(
        lambda *_, **__: runtimes._check_window(tmp_path), {"clips": 1, "recordings": 0}, tmp_path
    )
    assert answer == {"problem": "its encoder takes 4 s, faster-whisper hears windows of 30 s"}
    (tmp_path / "config.json").write_text('{"max_source_positions": 1500}')
    runtimes._check_window(tmp_path)


def test_a_text_without_a_time_before_or_behind_it_has_those_of_its_neighbours():
    chunks = [
        {"timestamp": (None, 1.5), "text": "a"},
        {"timestamp": (2.0, 3.0), "text": "b"},
        {"timestamp": (None, None), "text": "c"},
    ]
    assert runtimes.timed_segments(chunks, 9.0) == [(0.0, 1.5, "a"), (2.0, 3.0, "b"), (3.0, 9.0, "c")]
    assert runtimes.timed_segments([], 9.0) == []


def test_the_card_says_what_was_forgotten_and_recipes_without_it_keep_their_text(speech):
    recipe = Recipe(DataConfig(dataset="demo"), TrainConfig(model="demo/nano"), 1)
    keep = {"dataset": "clean", "clips": 9, "wer": 0.034, "untouched_wer": 0.037}
    card = model_card.text(recipe, {**METRICS, "keep": keep}, (), speech, "best")
    assert "9 clips of `clean` that were not trained on: WER 0.034, untouched 0.037." in card
    assert "keep" not in recipe_text(recipe)
    assert "keep: clean" in recipe_text(dataclasses.replace(recipe, data=DataConfig(dataset="demo", keep="clean")))


def test_the_final_run_keeps_and_says_the_rows_of_both_folders(speech, tmp_path, monkeypatch):
    heard = runtimes.material(speech)
    texts = [clip.text for clip in speech.clips(heard.clips)]
    right = [[[span.start, span.end, "x"] for span in recording.spans] for recording in heard.recordings]
    answers = [
        {runtimes.PIPELINE: {"clips": ["", ""], "recordings": right}},
        {runtimes.PIPELINE: {"clips": texts, "recordings": right}},
    ]
    folders = []

    def run(models, material):
        folders.extend(models)
        assert all((folder / "model.safetensors").is_file() for folder in models)
        return answers

    monkeypatch.setattr(runtimes, "_run", run)
    nano = model.load(toy_whisper.config("demo/nano"))
    model_folder.export(nano, tmp_path / "best", language="en", task="transcribe")
    said = []
    recipe = Recipe(DataConfig(dataset="demo"), TrainConfig(model="demo/nano"), 1)
    rows = finalize._in_runtimes(
        recipe, speech, tmp_path / "best", "float32", lambda line, passing=False: passing or said.append(line)
    )
    assert folders[0] == tmp_path / "best" != folders[1]
    assert [(row["wer"], row["untouched_wer"]) for row in rows[:1]] == [(1.0, 0.0)]
    assert rows[1]["near"] == 1.0
    assert said[0].startswith(
        "Worse than the untouched checkpoint on single clips in transformers' pipeline: WER 1.000"
    )
    assert said[1] == "transformers' pipeline, single clips: WER 1.000, untouched 0.000"
