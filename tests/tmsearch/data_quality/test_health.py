"""What is odd about a clip, and what an owner of recordings is told about all of them."""

import numpy as np

from tests.support.audio_files import RATE, RecordedClip, voice, write_recordings
from tmsearch.config import DataConfig
from tmsearch.data.corpus import load
from tmsearch.data_quality import health


def test_odd_clips_and_findings(tmp_path):
    noise = np.random.default_rng(0)
    clips = []
    for index in range(12):
        samples = voice(2.0 + 0.02 * index, pitch=150.0 + 3 * index, noise=noise)
        text = "hold the line" if index < 2 else f"report number {index} from the north gate"
        if index == 5:
            samples = np.clip(40 * samples, -1.0, 1.0)
        if index == 7:
            samples = np.concatenate([1e-4 * noise.standard_normal(3 * RATE), samples])
        if index == 9:
            text = " ".join(["word"] * 60)
        clips.append(RecordedClip(f"{index:02d}.wav", text, samples, subtype="FLOAT"))
    corpus = load(DataConfig(dataset=str(write_recordings(tmp_path, clips))))
    examined = health.examine(corpus)
    assert [clip.name for clip in examined.clips] == [clip.name for clip in corpus.clips]
    assert examined.spectrum.shape == (513,)
    assert "clipped" in examined.reasons["05.wav"][0]
    assert any("of silence before the words" in reason for reason in examined.reasons["07.wav"])
    assert any("words a second: does the text fit?" in reason for reason in examined.reasons["09.wav"])
    findings = " ".join(examined.findings)
    assert "1 of 12 clips are clipped audibly" in findings
    assert "99 % of the energy lies below" in findings
    assert "1 sentences occur more than once, in 2 clips" in findings
