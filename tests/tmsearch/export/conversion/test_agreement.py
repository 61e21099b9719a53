"""A converted folder is compared with our own decoding on clips that the model takes whole."""

import json
import subprocess
from pathlib import Path

import pytest

from tmsearch.config import DataConfig
from tmsearch.errors import InputError
from tmsearch.export.conversion import agreement, transcripts
from tmsearch.export.conversion.agreement import Agreement

NANO = Path(__file__).parents[4] / "tmsearch" / "demo" / "nano"
DATA = DataConfig(dataset="demo", validation=5, test=5)


def test_the_sentence_says_when_the_two_differ():
    same = Agreement("whisper.cpp 1", 40, 0.21, 0.2125, 38)
    assert (
        same.sentence()
        == "40 clips: WER 0.210 in whisper.cpp 1, 0.212 by our own decoding; 38 transcripts are the same"
    )
    other = Agreement("whisper.cpp 1", 40, 0.23, 0.21, 30)
    assert other.sentence().startswith("differs by more than 0.01: 40 clips: WER 0.230")


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    return agreement.validation_clips(DATA, tmp_path_factory.mktemp("cache"))


def test_validation_clips_of_the_models_own_data_are_heard_and_all_of_other_data(speech, tmp_path):
    assert len(speech.split.validation) == 5
    assert not set(speech.split.validation) & set(speech.split.test)
    other = agreement.all_clips(DATA, tmp_path)
    assert len(other.split.validation) == len(other.corpus.clips)


def test_what_a_runtime_hears_is_scored_as_our_own_decoding_is(speech, tmp_path, monkeypatch):
    clips = speech.clips(speech.split.validation)[:2]
    jobs = []

    def hear(job, samples):
        jobs.append(job)
        assert [len(waveform) for waveform in samples] == [len(speech.corpus.decode(clip.name)) for clip in clips]
        return [clip.text for clip in clips]

    monkeypatch.setattr(transcripts, "hear", hear)
    monkeypatch.setattr(transcripts, "version", lambda target: "whisper.cpp 1")
    result = agreement.measure(NANO, "ggml", tmp_path, speech, most=2)
    assert (result.clips, result.wer) == (2, 0.0)
    assert result.own_wer > 0, "the untrained model does not hear throat speech"
    [job] = jobs
    assert (job.language, job.task, len(job.prompt)) == ("en", "transcribe", 4)
    assert job.end not in job.suppressed
    assert job.end in job.suppressed_first
    monkeypatch.setattr(agreement, "_fitting_clips", lambda *arguments: [])
    with pytest.raises(InputError, match="no clip is as short as the 4 s"):
        agreement.measure(NANO, "ggml", tmp_path, speech)


@pytest.mark.parametrize(
    ("output", "errors", "code", "reason"),
    [
        ("", "whisper.cpp: abort\n", -6, "whisper.cpp: abort"),
        ("", "ops.cpp:1: GGML_ASSERT(a) failed\n#0 trace\n", -6, r"ops.cpp:1: GGML_ASSERT\(a\) failed"),
        ("", "", -11, "exit code -11"),
        ("noise\n" + json.dumps({"problem": "ValueError: no"}), "", 0, "ValueError: no"),
    ],
)
def test_a_runtime_that_crashes_is_said_in_one_line(monkeypatch, output, errors, code, reason):
    done = subprocess.CompletedProcess([], code, output, errors)
    monkeypatch.setattr(transcripts.subprocess, "run", lambda command, **options: done)
    job = transcripts.Job("ggml", "out", "en", "transcribe", [1], 2, [], [], 5)
    with pytest.raises(transcripts.RuntimeFailedError, match=f"^{reason}$"):
        transcripts.hear(job, [])
