"""Validation clips as long recordings: how they are stitched, what is counted, never the test split."""

import dataclasses

import numpy as np
import pytest

from tests.support import toy_whisper
from tmsearch.data.splits import Split
from tmsearch.evaluation import evaluate, long_form
from tmsearch.evaluation.evaluate import EvaluationInterruptedError
from tmsearch.model import whisper as model
from tmsearch.model.sequential import HeardSegment


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    return toy_whisper.speech(toy_whisper.corpus_folder(folder / "corpus"), folder / "cache")


@pytest.fixture(scope="module")
def nano():
    return model.load(toy_whisper.config("demo/nano"))


def test_recordings_hold_every_clip_once_where_their_times_say(speech, monkeypatch):
    names = [clip.name for clip in speech.corpus.clips]
    [single] = long_form.stitch(speech, names)
    assert sorted(span.name for span in single.spans) == names
    monkeypatch.setattr(long_form, "RECORDING_SECONDS", 4.0)
    several = long_form.stitch(speech, names)
    assert len(several) == 3  # of 12 s
    assert sorted(span.name for recording in several for span in recording.spans) == names
    for recording in [single, *several]:
        end = 0.0
        for span in recording.spans:
            assert end == 0.0 or 0.19 <= span.start - end <= 1.21
            first = round(span.start * 16_000)
            samples = speech.corpus.decode(span.name)
            assert np.array_equal(recording.samples[first : first + len(samples)], samples)
            end = span.end
        assert len(recording.samples) == round(end * 16_000)
    again = long_form.stitch(speech, list(reversed(names)))
    assert [recording.spans for recording in again] == [recording.spans for recording in several]


def test_parts_of_a_recording_stand_in_their_order_with_their_own_pauses(speech):
    clips = [
        dataclasses.replace(clip, source="r", start=100.0 - 2 * index) for index, clip in enumerate(speech.corpus.clips)
    ]
    parts = dataclasses.replace(speech, corpus=dataclasses.replace(speech.corpus, clips=tuple(clips)))
    names = [clip.name for clip in clips]
    [recording] = long_form.stitch(parts, names)
    assert [span.name for span in recording.spans] == list(reversed(names))
    starts = [span.start for span in recording.spans]
    assert np.allclose(np.diff(starts), 2.0, atol=1e-3)


def heard_as(recording, texts, shift=0.0):
    return [HeardSegment(span.start + shift, span.end + shift, texts[span.name]) for span in recording.spans]


def test_what_is_heard_right_has_no_errors_and_right_times(speech):
    names = speech.split.validation
    texts = {clip.name: clip.text for clip in speech.clips(names)}
    recordings = long_form.stitch(speech, names)
    right = long_form.compare(speech, names, recordings, [heard_as(recording, texts) for recording in recordings])
    assert (right.wer, right.near, right.time_error) == (0.0, 1.0, 0.0)
    single = evaluate.score(names, list(texts.values()), list(texts.values()), "en")
    assert right.clip_words == tuple(clip.words for clip in single.clips)
    late = long_form.compare(speech, names, recordings, [heard_as(recording, texts, 0.3) for recording in recordings])
    assert late.wer == 0.0
    assert late.near < 0.5
    assert late.time_error == pytest.approx(0.3)


def test_errors_count_for_the_clip_that_they_are_in(speech):
    names = speech.split.validation
    texts = {clip.name: clip.text for clip in speech.clips(names)}
    recordings = long_form.stitch(speech, names)
    order = [span.name for recording in recordings for span in recording.spans]
    wrong = {**texts, order[0]: f"{texts[order[0]]} quickly quickly", order[1]: ""}
    wrong[order[2]] = " ".join(["wrong", *texts[order[2]].split()[1:]])
    scores = long_form.compare(speech, names, recordings, [heard_as(recording, wrong) for recording in recordings])
    words = dict(zip(names, scores.clip_words, strict=True))
    errors = dict(zip(names, scores.errors, strict=True))
    assert scores.substitutions + scores.insertions + scores.deletions == sum(errors.values())
    assert sum(errors.values()) == sum(scores.errors) > 0
    # The cheapest alignment may take an inserted word for one that is missing behind it.
    assert errors[order[0]] + errors[order[1]] == max(2, words[order[1]])
    assert errors[order[2]] == 1
    assert errors[order[3]] == 0
    assert scores.wer == sum(scores.errors) / sum(scores.clip_words)


def test_nothing_heard_is_all_deleted_and_no_time_is_near(speech):
    names = speech.split.validation
    recordings = long_form.stitch(speech, names)
    scores = long_form.compare(speech, names, recordings, [[] for _ in recordings])
    assert (scores.wer, scores.deletions, scores.near, scores.time_error) == (1.0, scores.words, 0.0, None)


def test_a_model_is_heard_over_validation_clips_alone_and_left_as_it_was(nano, speech, monkeypatch):
    locked = speech.split.train[-3:]
    tested = dataclasses.replace(speech, split=Split(speech.split.train[:-3], speech.split.validation, locked))
    decoded = []
    original = type(speech.corpus).decode
    monkeypatch.setattr(type(speech.corpus), "decode", lambda self, name: decoded.append(name) or original(self, name))
    nano.model.train(True)
    config = toy_whisper.config("demo/nano", normalize_audio="peak")
    scores, seconds = long_form.score(nano, tested, tested.split.validation, config)
    assert nano.model.training
    assert set(decoded) == set(tested.split.validation)
    assert seconds > 0
    assert scores.words == sum(scores.clip_words) > 0
    assert long_form.score(nano, tested, tested.split.validation, config)[0] == scores  # no chance in it


def test_products_in_bfloat16_are_heard_too(nano, speech):
    """As on a CPU with AMX, where tiny.en's products have that format by themselves."""
    config = toy_whisper.config("demo/nano", precision="bf16")
    scores, _ = long_form.score(nano, speech, speech.split.validation, config)
    assert scores.words > 0


def test_a_request_to_stop_ends_it(nano, speech):
    with pytest.raises(EvaluationInterruptedError):
        long_form.score(nano, speech, speech.split.validation, toy_whisper.config("demo/nano"), stop=lambda: True)


def test_a_model_without_times_has_no_long_scores(speech, tmp_path):
    toy = model.load(toy_whisper.config(toy_whisper.whisper_folder(tmp_path / "toy")))
    assert long_form.score(toy, speech, speech.split.validation, toy_whisper.config("x"))[0] is None
