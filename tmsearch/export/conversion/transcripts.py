"""What clips are heard as with a converted folder, in its own runtime, greedily as our own decoding hears them.

`python -m tmsearch.export.conversion.transcripts JOB` is the process that runs it: what a runtime prints is its own,
and where it crashes nothing else does. JOB is a file of JSON beside `audio.npz`; the answer is JSON on standard output.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tmsearch import job_server
from tmsearch.data.audio_file import Samples
from tmsearch.errors import TmsearchError
from tmsearch.export.conversion.targets import TARGETS
from tmsearch.formatting import first_line

_MOST_TOKENS = 440  # that faster-whisper takes beside a prompt


class RuntimeFailedError(TmsearchError):
    """A runtime that could not hear the clips, in one line."""


@dataclass(frozen=True)
class Job:
    """How a converted folder hears clips; all but `folder` as our own decoding does."""

    target: str  # key of TARGETS
    folder: str
    language: str  # code
    task: str
    prompt: list[int]  # token ids that the decoder starts from
    end: int  # token id
    suppressed: list[int]  # token ids that are never written
    suppressed_first: list[int]  # nor as the first token
    most_tokens: int  # of a transcript


def hear(job: Job, clips: Sequence[Samples]) -> list[str]:
    """The transcripts of clips [samples], heard in a process of its own.

    Raises:
        RuntimeFailedError: The runtime refuses the folder, or crashes.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = write_job(job, clips, Path(scratch))
        command = job_server.command("tmsearch.export.conversion.transcripts", str(file))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise RuntimeFailedError(_reason(done)) from None
    if "problem" in answer:
        raise RuntimeFailedError(answer["problem"])
    texts: list[str] = answer["texts"]
    return texts


def _reason(crashed: subprocess.CompletedProcess[str]) -> str:
    """The line that says most: a failed assertion stands before a trace, an exception's message behind one."""
    lines = crashed.stderr.strip().splitlines() or [f"exit code {crashed.returncode}"]
    assertions = [line for line in lines if "ASSERT" in line]
    return [*assertions, lines[-1]][0]


def write_job(job: Job, clips: Sequence[Samples], scratch: Path) -> Path:
    """Writes job.json and audio.npz, which `main` reads, and returns the first."""
    np.savez(scratch / "audio.npz", *clips)
    file = scratch / "job.json"
    file.write_text(json.dumps(dataclasses.asdict(job)), encoding="utf-8")
    return file


def version(target: str) -> str:
    """The package that runs a target here, with its version."""
    package = TARGETS[target].package
    return f"{package} {metadata.version(package)}"


def _hear_with_faster_whisper(job: Job, clips: Sequence[Samples]) -> list[str]:
    from faster_whisper import WhisperModel

    model = WhisperModel(job.folder, compute_type="float32", local_files_only=True)
    texts = []
    for samples in clips:
        # What is shorter faster-whisper fills up with log-mels of 0, which is no silence.
        window = np.pad(samples, (0, max(0, model.feature_extractor.n_samples - len(samples))))
        segments, _ = model.transcribe(
            window,
            language=job.language,
            task=job.task,
            beam_size=1,
            temperature=0.0,
            without_timestamps=True,
            no_speech_threshold=None,  # nothing is skipped, and nothing heard twice
            max_new_tokens=min(2 * job.most_tokens, _MOST_TOKENS),  # of which CTranslate2 writes half
        )
        texts.append(" ".join(segment.text.strip() for segment in segments))
    return texts


def _hear_with_whisper_cpp(job: Job, clips: Sequence[Samples]) -> list[str]:
    from pywhispercpp.model import Model

    from tmsearch.export.conversion.ggml import FILE

    model = Model(
        str(Path(job.folder) / FILE),
        context_params={"flash_attn": False},  # which rounds keys and values: here the conversion is looked at
        language=job.language,
        translate=job.task == "translate",
        print_progress=False,
        no_timestamps=True,
        single_segment=True,
        temperature=0.0,
        temperature_inc=0.0,  # nothing is heard twice
        no_speech_thold=1.0,  # nothing is skipped
        suppress_nst=bool(job.suppressed),  # a list of its own, made as Whisper's
        max_tokens=job.most_tokens,
    )
    return ["".join(segment.text for segment in model.transcribe(samples)).strip() for samples in clips]


def _hear_with_onnxruntime(job: Job, clips: Sequence[Samples]) -> list[str]:
    from transformers import WhisperFeatureExtractor, WhisperTokenizer

    from tmsearch.export.conversion.onnx_decoding import OnnxWhisper

    extractor = WhisperFeatureExtractor.from_pretrained(job.folder)
    tokenizer = WhisperTokenizer.from_pretrained(job.folder)
    model = OnnxWhisper(Path(job.folder))
    texts = []
    for samples in clips:
        mel = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="np")["input_features"]
        ids = model.greedy(mel, job.prompt, job.end, job.suppressed, job.suppressed_first, job.most_tokens)
        texts.append(str(tokenizer.decode(ids, skip_special_tokens=True)).strip())
    return texts


_HEAR = {"ctranslate2": _hear_with_faster_whisper, "ggml": _hear_with_whisper_cpp, "onnx": _hear_with_onnxruntime}


def main(file: str) -> None:
    """Hears the clips of a job, and prints their texts."""
    job = Job(**json.loads(Path(file).read_text(encoding="utf-8")))
    with np.load(Path(file).parent / "audio.npz") as stored:
        clips = [stored[f"arr_{index}"] for index in range(len(stored.files))]
    answer: dict[str, Any]
    try:
        answer = {"texts": _HEAR[job.target](job, clips)}
    except Exception as error:  # a runtime's own, of any class: the folder is whole, and the command says why
        answer = {"problem": f"{type(error).__name__}: {first_line(error, 200)}"}
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1])
