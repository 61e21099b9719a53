"""Long recordings, heard as Whisper hears them: against transformers' own implementation, and rule by rule."""

import numpy as np
import pytest
import torch

from tests.support import toy_whisper
from tmsearch.config import DataConfig
from tmsearch.data import corpus as clips
from tmsearch.model import sequential
from tmsearch.model import whisper as model
from tmsearch.model.sequential import HeardSegment, SequentialTranscriber, _Progress
from tmsearch.model.tokens import first_time_id, special_id, text_ids


@pytest.fixture(scope="module")
def nano():
    whisper = model.load(toy_whisper.config("demo/nano"))
    whisper.model.train(False)
    return whisper


@pytest.fixture(scope="module")
def recordings():
    """Two recordings of some clips each, [samples]."""
    corpus = clips.load(DataConfig(dataset="demo"))
    names = [clip.name for clip in corpus.clips[:7]]
    return [np.concatenate([corpus.decode(name) for name in part]) for part in (names[:4], names[4:])]


def log_mels(whisper, recordings):
    features = whisper.extractor(
        recordings,
        sampling_rate=16_000,
        return_tensors="pt",
        truncation=False,
        padding="longest",
        return_attention_mask=True,
    )
    lengths = features.attention_mask.sum(1).tolist()
    return features, [mel[:, :length] for mel, length in zip(features.input_features, lengths, strict=True)]


def test_the_segments_are_those_of_transformers_with_prompts_and_in_a_batch(nano, recordings, monkeypatch):
    monkeypatch.setattr(sequential, "LEAST_LOG_PROBABILITY", -1e9)  # transformers is not asked to doubt, either
    for recording in recordings:
        features, [mel] = log_mels(nano, [recording])
        expected = nano.model.generate(
            features.input_features,
            attention_mask=features.attention_mask,
            return_timestamps=True,
            condition_on_prev_tokens=True,
            temperature=(0.0,),
            compression_ratio_threshold=None,
            logprob_threshold=-1e9,
            return_segments=True,
            language="en",
            task="transcribe",
        )["segments"][0]
        [heard] = SequentialTranscriber(nano, "en", "transcribe").transcribe([mel])
        texts = [nano.tokenizer.decode(segment["tokens"], skip_special_tokens=True).strip() for segment in expected]
        assert [segment.text for segment in heard] == [text for text in texts if text]


def test_recordings_of_one_batch_are_heard_as_alone(nano, recordings):
    _, mels = log_mels(nano, recordings)
    transcriber = SequentialTranscriber(nano, "en", "transcribe")
    together = transcriber.transcribe(mels)
    assert together == [transcriber.transcribe([mel])[0] for mel in mels]
    for segments in together:
        assert segments
        assert all(segment.end > segment.start for segment in segments)


def advanced(nano, times, seek=0, frames=1000):
    """What a window's ids lead to: `times` holds numbers of times and texts."""
    first = first_time_id(nano)
    transcriber = SequentialTranscriber(nano, "en", "transcribe")
    progress = _Progress(frames=frames, seek=seek)
    ids = []
    for item in times:
        ids += text_ids(nano, item) if isinstance(item, str) else [first + item]
    kept = transcriber._advance(progress, ids)
    return progress, len(ids) - len(kept)


def test_a_window_moves_to_the_last_end_where_another_start_follows(nano):
    progress, dropped = advanced(nano, [0, "move", 50, 60, "hold", 100, 110], seek=200)
    assert [(round(segment.start, 2), round(segment.end, 2), segment.text) for segment in progress.segments] == [
        (2.0, 3.0, "move"),
        (3.2, 4.0, "hold"),
    ]
    assert (progress.seek, dropped) == (400, 1)


def test_a_text_without_an_end_is_heard_again_behind_whole_segments(nano):
    progress, _ = advanced(nano, [0, "move", 50, 60, "hold"])
    assert [segment.text for segment in progress.segments] == ["move"]
    assert progress.seek == 100


def test_a_window_that_ends_in_an_end_is_over(nano):
    progress, dropped = advanced(nano, [0, "move", 50, 60, "hold", 100])
    assert [segment.text for segment in progress.segments] == ["move", "hold"]
    assert (progress.seek, dropped) == (400, 0)
    progress, _ = advanced(nano, [5, "move"])
    assert progress.segments == [HeardSegment(0.1, 4.0, "move")]
    assert advanced(nano, [])[0].seek == 400
    assert advanced(nano, [10])[0].segments == []


def ruled(nano, ids, favourite):
    """The next token where the model favours `favourite` above all, and everything else alike."""
    logits = torch.zeros(nano.model.config.vocab_size)
    logits[favourite] = 20.0
    return int(SequentialTranscriber(nano, "en", "transcribe")._ruled(logits, ids).argmax())


def test_times_come_in_pairs_rise_and_begin_a_window(nano):
    first, end = first_time_id(nano), special_id(nano, "<|endoftext|>")
    [word] = text_ids(nano, " two")[:1]
    assert first <= ruled(nano, [], word) <= first + 50  # a window begins with a time of its first second
    assert ruled(nano, [first], first + 3) < first  # a text follows a start
    assert ruled(nano, [first, word, first + 9], word) >= end  # a start or the end follows an end
    assert ruled(nano, [first, word, first + 9], first + 9) == first + 9  # the next may begin where one ends
    assert ruled(nano, [first, word, first + 9, first + 12, word], first + 12) != first + 12  # a segment has a length
    assert ruled(nano, [first, word], special_id(nano, "<|notimestamps|>")) != special_id(nano, "<|notimestamps|>")
    assert ruled(nano, [first, word], end) == end


def test_every_segment_ends_after_its_start_and_within_its_recording_whatever_times_are_written(nano):
    transcriber = SequentialTranscriber(nano, "en", "transcribe")
    first, last = transcriber._first_time, transcriber._first_time + transcriber._times
    words = text_ids(nano, "move")
    rng = np.random.default_rng(0)
    heard = 0
    for _ in range(200):
        progress = _Progress(frames=int(rng.integers(1, 1200)))
        while not progress.is_done:
            ids = []
            time = first + int(rng.integers(51))
            # As the rules for times let a model write: a segment has a length, the next one may begin where it ends,
            # and behind a start, a text or an end it may be over.
            while len(ids) < 40 and time < last and rng.random() < 0.8:
                end = int(rng.integers(time + 1, last + 1))
                ids += [time, *words, end][: int(rng.choice([1, 1 + len(words), 2 + len(words)], p=[0.1, 0.2, 0.7]))]
                if ids[-1] != end:
                    break
                time = int(rng.integers(end, last + 1))
            transcriber._advance(progress, ids)
        heard += len(progress.segments)
        for segment in progress.segments:
            assert 0 <= segment.start < segment.end <= progress.frames / 100
    assert heard > 200
