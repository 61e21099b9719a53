"""What a model folder gives where people run it: transformers' pipeline and faster-whisper, as they come.

`python -m tmsearch.export.runtimes JOB` is the process that runs them: what they print is theirs, and their memory is
given back. JOB is a file of JSON beside `audio.npz`; the answer is JSON on standard output.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tmsearch import job_server
from tmsearch.data.audio_file import SAMPLE_RATE, Samples
from tmsearch.errors import InputError
from tmsearch.evaluation import evaluate, long_form
from tmsearch.evaluation.long_form import Stitched
from tmsearch.features.dataset import Speech
from tmsearch.formatting import first_line
from tmsearch.model.sequential import HeardSegment

PIPELINE = "transformers' pipeline"
FASTER_WHISPER = "faster-whisper"
CONVERTED_FILES = ("tokenizer.json", "preprocessor_config.json")  # which faster-whisper reads beside the weights
MOST_CLIPS = 40  # that are heard one by one: enough to tell a broken folder from a whole one
MOST_RECORDINGS = 4  # of two to three minutes
_SEED = 0  # of what faster-whisper draws
_WINDOW_POSITIONS = 1500  # of the encoder, in a window of 30 s
_HEAD = "| runtime, as it comes | audio | WER | untouched | ins. / del. / sub. | times within 0.2 s |"
_CLIPS = "single clips"
_RECORDINGS = "long recordings"

Row = dict[str, Any]


@dataclass(frozen=True)
class Material:
    """What the runtimes hear: clips of the test split, and recordings of validation clips."""

    speech: Speech
    clips: tuple[str, ...]
    validation: tuple[str, ...]
    recordings: tuple[Stitched, ...]


def material(speech: Speech) -> Material:
    """The first test clips, else validation clips, and recordings of validation clips, never of test clips."""
    recordings = long_form.stitch(speech, speech.split.validation)[:MOST_RECORDINGS]
    names = tuple(span.name for recording in recordings for span in recording.spans)
    clips = speech.split.test or speech.split.validation
    return Material(speech, clips[:MOST_CLIPS], names, tuple(recordings))


def measure(folder: Path, untouched: Path, speech: Speech) -> list[Row]:
    """Error rates of a model folder and of the untouched checkpoint's, a row for each runtime and kind of audio.

    A row has `runtime`, `audio`, and either `wer`, `untouched_wer` and what else is known of the first, or `problem`.
    """
    heard = material(speech)
    answers = _run((folder, untouched), heard)
    rows = []
    for runtime in (PIPELINE, FASTER_WHISPER):
        tuned, before = (answer.get(runtime) for answer in answers)
        if tuned is None or before is None:
            continue
        for audio, rate in ((_CLIPS, _clip_rates), (_RECORDINGS, _recording_rates)):
            rows.append({"runtime": runtime, "audio": audio, **_compared(tuned, before, rate, heard)})
    return rows


def _compared(
    tuned: Mapping[str, Any],
    untouched: Mapping[str, Any],
    rate: Callable[[Mapping[str, Any], Material], Row],
    heard: Material,
) -> Row:
    problem = tuned.get("problem") or untouched.get("problem")
    if problem:
        return {"problem": problem}
    return {**rate(tuned, heard), "untouched_wer": rate(untouched, heard)["wer"]}


def _clip_rates(answer: Mapping[str, Any], heard: Material) -> Row:
    speech = heard.speech
    references = [clip.text for clip in speech.clips(heard.clips)]
    language = "en" if speech.task == "translate" else speech.language
    scores = evaluate.score(heard.clips, references, answer["clips"], language, speech.normalizer)
    return {"wer": scores.wer, "count": len(heard.clips)}


def _recording_rates(answer: Mapping[str, Any], heard: Material) -> Row:
    segments = [[HeardSegment(*segment) for segment in recording] for recording in answer["recordings"]]
    scores = long_form.compare(heard.speech, heard.validation, heard.recordings, segments)
    edits = {"insertions": scores.insertions, "deletions": scores.deletions, "substitutions": scores.substitutions}
    times = {"near": scores.near, "time_error": scores.time_error}
    return {"wer": scores.wer, "count": len(heard.recordings), "words": scores.words, **edits, **times}


def regressions(rows: Sequence[Row]) -> list[str]:
    """A sentence for each row in which the tuned model is worse than the untouched checkpoint."""
    sentences = []
    for row in rows:
        if "wer" in row and row["wer"] > row["untouched_wer"]:
            sentences.append(
                f"Worse than the untouched checkpoint on {row['audio']} in {row['runtime']}: WER {row['wer']:.3f} "
                f"against {row['untouched_wer']:.3f}."
            )
    return sentences


def lines(rows: Sequence[Row]) -> list[str]:
    """The rows for a terminal."""
    return [f"{row['runtime']}, {row['audio']}: {_rates(row)}" for row in rows]


def _rates(row: Row) -> str:
    if "problem" in row:
        return f"not measured: {row['problem']}"
    return f"WER {row['wer']:.3f}, untouched {row['untouched_wer']:.3f}"


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown; empty for none."""
    if not rows:
        return ""
    head = [
        "| runtime, as it comes | audio | WER | untouched | ins. / del. / sub. | times within 0.2 s |",
        "|---" * 6 + "|",
    ]
    for row in rows:
        if "problem" in row:
            head.append(f"| {row['runtime']} | {row['audio']} | not measured: {row['problem']} | | | |")
            continue
        edits = near = ""
        if "near" in row:
            edits = f"{row['insertions']} / {row['deletions']} / {row['substitutions']} of {row['words']}"
            near = f"{row['near']:.0%}"
        rates = f"{row['wer']:.3f} | {row['untouched_wer']:.3f}"
        head.append(f"| {row['runtime']} | {row['count']} {row['audio']} | {rates} | {edits} | {near} |")
    return "\n".join(head)


def write_job(folders: Sequence[Path], heard: Material, scratch: Path) -> Path:
    """Writes job.json and audio.npz, which `main` reads, and returns the first."""
    speech = heard.speech
    audio: dict[str, Any] = {f"clip{index}": speech.corpus.decode(name) for index, name in enumerate(heard.clips)}
    audio |= {f"recording{index}": recording.samples for index, recording in enumerate(heard.recordings)}
    np.savez(scratch / "audio.npz", **audio)
    job: Row = {
        "folders": [str(folder.absolute()) for folder in folders],
        "language": speech.language,
        "task": speech.task,
    }
    job |= {"clips": len(heard.clips), "recordings": len(heard.recordings)}
    file = scratch / "job.json"
    file.write_text(json.dumps(job), encoding="utf-8")
    return file


def _run(folders: Sequence[Path], heard: Material) -> list[dict[str, Any]]:
    """What each runtime hears with each folder: its texts and segments, or its problem, by the runtime's name."""
    with tempfile.TemporaryDirectory() as scratch:
        file = write_job(folders, heard, Path(scratch))
        command = job_server.command("tmsearch.export.runtimes", str(file))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
        return answers
    except (IndexError, ValueError):
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return [{PIPELINE: {"problem": reason[0]}} for _ in folders]


def _hear_with_pipeline(job: Mapping[str, Any], audio: Sequence[Samples], *, times: bool) -> list[Any]:
    import torch
    from transformers import pipeline

    device = 0 if torch.cuda.is_available() else -1
    recognize: Any = pipeline("automatic-speech-recognition", model=job["folder"], device=device)
    heard: list[Any] = []
    for samples in audio:
        if not times:
            heard.append(recognize(samples.copy())["text"])
            continue
        chunks = recognize(samples.copy(), return_timestamps=True)["chunks"]
        heard.append(timed_segments(chunks, len(samples) / SAMPLE_RATE))
    return heard


def timed_segments(chunks: Sequence[Mapping[str, Any]], length: float) -> list[tuple[float, float, str]]:
    """A pipeline's chunks as start, end and text, seconds.

    A model that writes no time before a text or behind it leaves None there: the text then starts where the one before
    ends, or ends where the recording of `length` seconds does.
    """
    segments: list[tuple[float, float, str]] = []
    for chunk in chunks:
        start, end = chunk["timestamp"]
        if start is None:
            start = segments[-1][1] if segments else 0.0
        segments.append((start, max(start, length if end is None else end), chunk["text"]))
    return segments


def _check_window(folder: Path) -> None:
    """Raise InputError for a model of another window than the 30 s that faster-whisper hears, as the demo's are."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    seconds = config.get("max_source_positions", _WINDOW_POSITIONS) * 30 / _WINDOW_POSITIONS
    if seconds != 30:
        raise InputError(f"its encoder takes {seconds:g} s, {FASTER_WHISPER} hears windows of 30 s")


def _hear_with_faster_whisper(job: Mapping[str, Any], audio: Sequence[Samples], *, times: bool) -> list[Any]:
    import ctranslate2
    from ctranslate2.converters import TransformersConverter
    from faster_whisper import WhisperModel

    converted = Path(job["converted"])
    if not converted.is_dir():
        _check_window(Path(job["folder"]))
        copied = [name for name in CONVERTED_FILES if (Path(job["folder"]) / name).is_file()]
        TransformersConverter(job["folder"], copy_files=copied).convert(str(converted))
    # Doubtful windows are drawn anew at higher temperatures: alike each time, so that a folder gets the same figure.
    ctranslate2.set_random_seed(_SEED)  # before the threads of a model start
    model = WhisperModel(str(converted), compute_type="float32", local_files_only=True)
    heard: list[Any] = []
    for samples in audio:
        segments, _ = model.transcribe(samples.copy(), language=job["language"], task=job["task"])
        if times:
            heard.append([[segment.start, segment.end, segment.text] for segment in segments])
        else:
            heard.append(" ".join(segment.text.strip() for segment in segments))
    return heard


def _answer(hear: Callable[..., list[Any]], job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    with np.load(folder / "audio.npz") as stored:
        clips = [stored[f"clip{index}"] for index in range(job["clips"])]
        recordings = [stored[f"recording{index}"] for index in range(job["recordings"])]
    try:
        return {"clips": hear(job, clips, times=False), "recordings": hear(job, recordings, times=True)}
    except InputError as error:
        return {"problem": str(error)}
    except Exception as error:  # a runtime's own, of any class: the row says it, and the others are measured
        return {"problem": f"{type(error).__name__}: {first_line(error)}"}


def main(file: str) -> None:
    """Runs every runtime that is installed, and prints what they hear."""
    scratch = Path(file).parent
    job = json.loads(Path(file).read_text(encoding="utf-8"))
    answers = []
    for number, folder in enumerate(job["folders"]):
        of_folder = {**job, "folder": folder, "converted": str(scratch / f"ctranslate2-{number}")}
        answer = {PIPELINE: _answer(_hear_with_pipeline, of_folder, scratch)}
        if importlib.util.find_spec("faster_whisper") is not None:
            answer[FASTER_WHISPER] = _answer(_hear_with_faster_whisper, of_folder, scratch)
        answers.append(answer)
    print(json.dumps(answers))


if __name__ == "__main__":
    main(sys.argv[1])
