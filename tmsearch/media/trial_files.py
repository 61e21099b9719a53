"""A trial's exhibits: the worst clips as a table, some to hear and to look at, its curve, its recipe; a process."""

from __future__ import annotations

import csv
import io
import json
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tmsearch import job_server
from tmsearch.config import DataConfig
from tmsearch.data.audio_file import Samples, UnusableAudioError, decode, mono
from tmsearch.data.sources import Source, open_source
from tmsearch.errors import InputError
from tmsearch.evaluation import bootstrap
from tmsearch.evaluation.scores import ClipScore, read_scores, worst_first
from tmsearch.files import write_atomically
from tmsearch.media import images, sounds, tensorboard_media, trial_note
from tmsearch.media.trial_note import MEDIA_FOLDER, MEDIA_LIST, NoteMedia, TrialNote
from tmsearch.quoting import cell, file_name, markdown

MAX_BYTES = 2_000_000  # bytes of a trial's exhibits, all together
ROWS = 20  # worst clips in the table
_KINDS = {".yaml": "text/plain; charset=utf-8", ".csv": "text/csv", ".png": "image/png", ".mp3": "audio/mpeg"}


@dataclass(frozen=True)
class PickedClip:
    """A clip to show, and why that one."""

    place: str  # worst, middle or best
    score: ClipScore


def chosen(scores: Sequence[ClipScore]) -> list[PickedClip]:
    """The worst clip, one in the middle, and the best; fewer where there are fewer."""
    ordered = worst_first(scores)
    places = {"worst": 0, "middle": len(ordered) // 2, "best": len(ordered) - 1}
    found = {at: PickedClip(place, ordered[at]) for place, at in reversed(places.items()) if ordered}
    return [found[at] for at in sorted(found)]


def table(scores: Sequence[ClipScore]) -> str:
    """The worst clips as CSV that a spreadsheet takes for text and numbers alone."""
    held = io.StringIO()
    writer = csv.writer(held)
    writer.writerow(["clip", "errors", "words", "said", "heard"])
    for one in worst_first(scores)[:ROWS]:
        texts = (cell(one.reference), cell(one.hypothesis))
        writer.writerow([cell(one.name), one.edits, one.words, *texts])
    return held.getvalue()


class ClipReader:
    """The samples of a few clips, without listening to the whole dataset; each is read once."""

    def __init__(self) -> None:
        self._sources: dict[DataConfig, Source] = {}
        self._samples: dict[tuple[DataConfig, str], Samples] = {}

    def samples(self, data: DataConfig, score: ClipScore) -> Samples:
        """Samples [n], 16 kHz mono; raises InputError where the clip is gone or another one than was scored."""
        if (data, score.name) not in self._samples:
            if data not in self._sources:
                self._sources[data] = open_source(data)
            row = next((row for row in self._sources[data].rows if row.name == score.name), None)
            if row is None or " ".join((row.text or "").split()) != score.reference:
                raise InputError(f"{score.name}: the dataset changed since")
            try:
                self._samples[data, score.name] = mono(*decode(row.read()))
            except (OSError, UnusableAudioError) as error:
                raise InputError(f"{score.name}: no longer readable: {error}") from None
        return self._samples[data, score.name]


class MediaMaker:
    """Makes the exhibits of one trial after the other; clips that several show are read and drawn once."""

    def __init__(self) -> None:
        self._clips = ClipReader()
        self._pictures: dict[tuple[DataConfig, str], bytes] = {}

    def make(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """The trial's note and its files, which are in FOLDER of the trial's then; LIST keeps the answer.

        Without a folder (it was trained on another machine) there is the note alone.
        """
        trial = _told(job)
        if not job["folder"]:
            return {"note": trial_note.trial_note(trial, NoteMedia()), "files": []}
        folder = Path(job["folder"])
        picked = chosen(read_scores(folder, trial.steps))
        heard, problem = self._heard(DataConfig(**job["data"]), picked)
        files, left_out = _within(_contents(folder, trial, job["zero_shot"], picked, heard))
        if job["tensorboard"]:
            tensorboard_media.write(Path(job["tensorboard"]), trial.steps, heard, failed=trial.state == "failed")
        for name, content in files.items():
            write_atomically(folder / MEDIA_FOLDER / name, content)
        lines = tuple(f"**{one.place}:** " + "\n  - ".join(about(one)) for one in picked)
        found = {
            "note": trial_note.trial_note(trial, NoteMedia(lines, tuple(left_out), problem)),
            "files": [{"name": name, "mimetype": _KINDS[Path(name).suffix]} for name in files],
            "of": [trial.steps, trial.state],
        }
        write_atomically(folder / MEDIA_FOLDER / MEDIA_LIST, json.dumps(found, ensure_ascii=False))
        return found

    def _heard(
        self, data: DataConfig, picked: Sequence[PickedClip]
    ) -> tuple[list[tensorboard_media.TensorboardClip], str | None]:
        """The clips as far as the dataset still has them, and what is wrong with it."""
        found = []
        try:
            for one in picked:
                samples, key = self._clips.samples(data, one.score), (data, one.score.name)
                if key not in self._pictures:
                    self._pictures[key] = images.spectrogram(samples)
                found.append(
                    tensorboard_media.TensorboardClip(one.place, "; ".join(about(one)), samples, self._pictures[key])
                )
        except InputError as error:
            return found, str(error)
        return found, None


def _told(job: Mapping[str, Any]) -> TrialNote:
    """The trial with its intervals: of its WER, and of the difference to each rival on the same clips."""
    own, rivals = job["rates"], []
    for one, pair in zip(job["trial"]["rivals"], job["pairs"], strict=True):
        interval = bootstrap.paired_interval(*pair) if pair else None
        rivals.append(trial_note.TrialComparison(**{**one, "interval": _plain(interval)}))
    interval = bootstrap.wer_interval(*own) if own else None
    return TrialNote(**{**job["trial"], "interval": _plain(interval), "rivals": tuple(rivals)})


def _plain(one: bootstrap.Interval | None) -> tuple[float, float] | None:
    return (one.low, one.high) if one else None


def _contents(
    folder: Path,
    trial: TrialNote,
    zero_shot: float | None,
    picked: Sequence[PickedClip],
    heard: Sequence[tensorboard_media.TensorboardClip],
) -> dict[str, bytes]:
    """Files by name; those that matter most come first, here and by their names, which a dashboard sorts them by."""
    made: dict[str, bytes] = {}
    scores = read_scores(folder, trial.steps)
    curve = {rung["step"]: rung["wer"] for rung in trial.rungs}
    if curve:
        made["1-learning-curve.png"] = images.learning_curve(curve, zero_shot, f"trial {trial.number}")
    for number, (one, clip) in enumerate(zip(picked, heard, strict=False), 2):
        name = f"{number}-{one.place}-{file_name(Path(one.score.name).stem)}"
        made |= {f"{name}.mp3": sounds.mp3(clip.samples), f"{name}.png": clip.picture}
    if scores:
        made[f"worst-{min(ROWS, len(scores))}-clips.csv"] = table(scores).encode()
    if (folder / "config.yaml").is_file():
        made["config.yaml"] = (folder / "config.yaml").read_bytes()
    return made


def about(one: PickedClip) -> tuple[str, str, str]:
    """A clip in three phrases of Markdown: which, what was said, what was heard."""
    score = one.score
    errors = "1 error" if score.edits == 1 else f"{score.edits} errors"
    which = f"{markdown(score.name)}, {errors} in {score.words} words"
    return which, f"said: {markdown(score.reference)}", f"heard: {markdown(score.hypothesis)}"


def _within(made: Mapping[str, bytes]) -> tuple[dict[str, bytes], list[str]]:
    """The first of `made` that fit into LARGEST, and the names of the others."""
    kept: dict[str, bytes] = {}
    for name, content in made.items():
        if sum(map(len, kept.values())) + len(content) <= MAX_BYTES:
            kept[name] = content
    return kept, [name for name in made if name not in kept]


def answer(maker: MediaMaker, job: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was made, or why it could not be."""
    try:
        return {"event": "made", **maker.make(job)}
    except Exception as error:  # told in the note: a search never stops for it
        traceback.print_exc()
        return {"event": "failure", "reason": f"{type(error).__name__}: {error}"}


def _jobs(stream: BinaryIO, write: job_server.Write, stop: Callable[[], None]) -> Iterator[dict[str, Any]]:
    for line in stream:
        yield json.loads(line)


def main() -> None:
    """Answer jobs from standard input until it closes, behind all else that this machine does."""
    os.nice(19)
    maker = MediaMaker()
    job_server.serve(_jobs, lambda job, write, stop: json.dumps(answer(maker, job)).encode() + b"\n")


if __name__ == "__main__":
    main()
