"""Clips whose text nobody could have said in their time are named, in every script; ordinary speech is not."""

import numpy as np
import pytest

from tests.support.audio_files import RecordedClip, tone, write_recordings
from tmsearch.config import DataConfig
from tmsearch.data.corpus import Clip, load
from tmsearch.data.splits import split
from tmsearch.data_quality import pace
from tmsearch.data_quality.summary import describe


def clip(text, seconds):
    return Clip(f"{seconds}.wav", text, seconds, (text,))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("one two three four", 0.06),
        ("one two three four five six seven eight nine ten eleven twelve", 1.0),
        ("no", 0.04),
        ("今日はとても天気がいいですね", 0.5),
        ("안녕하세요 반갑습니다", 0.3),
        ("हिन्दी में किताब पढ़ता हूँ", 0.2),
    ],
)
def test_what_nobody_can_say_in_the_time(text, seconds):
    assert [found.name for found in pace.impossible([clip(text, seconds)])] == [f"{seconds}.wav"]
    assert pace.impossible([clip(text, 20 * seconds)]) == ()


def test_fast_speech_and_marks_alone_are_possible():
    assert pace.impossible([clip("I don't know what it was", 0.9), clip("go on", 0.25), clip("...", 0.01)]) == ()
    assert pace.impossible(load(DataConfig(dataset="demo")).clips) == ()


def test_data_names_the_shortest_and_the_impossible_clips(tmp_path):
    clips = [RecordedClip(f"{index}.wav", f"report number {index}", tone(1.0 + index / 10)) for index in range(10)]
    clips.append(RecordedClip("short.wav", "one two three four", tone(0.06)))
    config = DataConfig(dataset=str(write_recordings(tmp_path, clips)), validation=2, test=2)
    corpus = load(config)
    description = describe(corpus, split(corpus, config))
    assert description.shortest[0] == pace.PacedClip("short.wav", 0.06, 4)
    assert [found.name for found in description.impossible] == ["short.wav"]
    text = description.text()
    assert "shortest        0.06 s, 4 words  short.wav" in text
    assert "impossible     1 with more words than their time can hold" in text
    lines = pace.remarks(corpus.clips)
    assert lines[0] == "shortest: short.wav (0.06 s, 4 words)"
    assert lines[1].startswith("impossible: 1 of 11 clips, with more words than their time can hold: short.wav (0.06 s")
    assert np.isfinite(pace.least_seconds(""))
