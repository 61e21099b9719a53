import dataclasses
import socket

import jiwer
import pytest

from tests.support import toy_whisper
from tmsearch.errors import InputError
from tmsearch.evaluation import evaluate
from tmsearch.evaluation.error_rates import WordErrors, score
from tmsearch.features import log_mel
from tmsearch.model import whisper as model


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy"), seed=4)


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    return toy_whisper.speech(toy_whisper.corpus_folder(folder / "corpus"), folder / "cache")


def test_rates_are_micro_averages_of_jiwer():
    reference, hypothesis = ["one two three", "Four, five!", "six"], ["one too three", "four five six", ""]
    scores = score(["a", "b", "c"], reference, hypothesis, "de")
    plain = jiwer.process_words(["one two three", "four five", "six"], ["one too three", "four five six", ""])
    assert scores.wer == pytest.approx(plain.wer) == pytest.approx(3 / 6)
    assert scores.wer_raw == pytest.approx(jiwer.wer(reference, hypothesis)) == pytest.approx(5 / 6)
    letters = jiwer.process_characters(["one two three", "four five", "six"], ["one too three", "four five six", ""])
    assert scores.cer == pytest.approx(letters.cer)
    assert [(clip.substitutions, clip.deletions, clip.insertions, clip.words) for clip in scores.clips] == [
        (1, 0, 0, 3),
        (0, 0, 1, 2),
        (0, 1, 0, 1),
    ]
    assert [(clip.name, clip.reference, clip.hypothesis) for clip in scores.clips] == list(
        zip("abc", reference, hypothesis, strict=True)
    )


def test_an_empty_reference_counts_what_was_heard_as_insertions():
    scores = score(["a", "b"], ["...", "one two"], ["well well", "one two"], "de")
    assert scores.wer == 2 / 2
    assert scores.clips[0].insertions == 2
    assert scores.clips[0].words == 0
    assert scores.wer_raw == 1 / 3 + 1 / 3  # as written, the dots are a word


@pytest.mark.parametrize(("hypothesis", "rate"), [("", 0.0), ("!", 0.0), ("hm hm hm", 1.0)])
def test_without_any_reference_word_the_rate_is_defined(hypothesis, rate):
    scores = score(["a"], ["?"], [hypothesis], "de")
    assert (scores.wer, scores.cer) == (rate, rate)


def test_unspaced_languages_are_compared_by_character():
    assert score(["a"], ["你好世界"], ["你好世"], "zh").wer == 0.25


def test_the_metric_asks_no_network_and_leaves_no_file(monkeypatch, tmp_path):
    def refuse(*_):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)
    metric = WordErrors(keep_in_memory=True)
    assert metric.compute(predictions=["a b", "c"], references=["a x", "c"])["wer"] == pytest.approx(1 / 3)
    assert list(tmp_path.iterdir()) == []


def test_a_models_scores_keep_the_callers_order(toy, speech):
    config = toy_whisper.config(toy, eval_batch_size=3)
    whisper = model.load(config)
    names = ["005.flac", "000.flac", "011.flac", "003.flac"]
    scores, seconds = evaluate.evaluate(whisper, speech, names, config)
    assert [clip.name for clip in scores.clips] == names
    assert [clip.reference for clip in scores.clips] == [toy_whisper.TEXTS[int(name[:3])] for name in names]
    assert seconds > 0
    alone = [evaluate.evaluate(whisper, speech, [name], config)[0].clips[0].hypothesis for name in names]
    longest = max(len(clip.hypothesis) for clip in scores.clips)
    for clip, hypothesis in zip(scores.clips, alone, strict=True):
        assert clip.hypothesis.startswith(hypothesis[:10])  # the cap on its length comes from the clips scored together
    assert longest > 0


def test_study_hears_each_clip_as_long_as_it_is_and_full_hears_all(toy, speech):
    config = toy_whisper.config(toy)
    whisper = model.load(config)
    whisper.model.train()
    study, _ = evaluate.evaluate(whisper, speech, speech.split.validation, config)
    full, _ = evaluate.evaluate(whisper, speech, speech.split.validation, config, context="full")
    assert [clip.hypothesis for clip in study.clips] != [clip.hypothesis for clip in full.clips]
    assert whisper.model.training
    assert full == evaluate.zero_shot(config, speech) == evaluate.zero_shot(config, speech, whisper)


def test_stopping_between_batches_leaves_the_model_as_it_was(toy, speech):
    config = toy_whisper.config(toy)
    whisper = model.load(config)
    whisper.model.train()
    with pytest.raises(evaluate.EvaluationInterruptedError):
        evaluate.evaluate(whisper, speech, speech.split.validation, config, stop=lambda: True)
    assert whisper.model.training


def test_no_clips_to_score_is_said(toy, speech):
    with pytest.raises(InputError, match=r"no clips to score; raise data\.validation"):
        evaluate.evaluate(model.load(toy_whisper.config(toy)), speech, [], toy_whisper.config(toy))


def test_a_translation_is_compared_as_english(toy, tmp_path):
    corpus = toy_whisper.corpus_folder(tmp_path / "corpus", ("It is twenty-one.",))
    german = toy_whisper.speech(corpus, tmp_path / "cache", language="de", validation=1)
    config = toy_whisper.config(toy)
    whisper = model.load(config)
    words = []
    for speech in (german, dataclasses.replace(german, task="translate")):
        scores, _ = evaluate.evaluate(whisper, speech, german.split.validation, config)
        words.append(scores.clips[0].words)
    assert words == [4, 3]  # "it is twenty one", "it is 21"


def test_log_mels_are_kept_from_one_evaluation_to_the_next(toy, speech, monkeypatch):
    config = toy_whisper.config(toy)
    whisper = model.load(config)
    names = speech.split.validation
    reads = []
    read = log_mel.log_mels
    monkeypatch.setattr(log_mel, "log_mels", lambda *arguments: reads.append(arguments[1]) or read(*arguments))
    speech.kept.clear()
    first, _ = evaluate.evaluate(whisper, speech, names, config)
    again, _ = evaluate.evaluate(whisper, speech, tuple(reversed(names)), config)
    assert len(reads) == 1
    assert {clip.name: clip.hypothesis for clip in first.clips} == {clip.name: clip.hypothesis for clip in again.clips}
    # Others take their place: four sets are kept.
    for normalization in ("peak", "rms", "loudness"):
        speech.kept_mels(
            names, whisper, dataclasses.replace(config, normalize_audio=normalization), whisper.model.device
        )
    speech.kept_mels(names[:1], whisper, config, whisper.model.device)
    assert len(speech.kept) == 4
    reads.clear()
    evaluate.evaluate(whisper, speech, names, config)
    assert len(reads) == 1
