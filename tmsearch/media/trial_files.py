"""The process that makes a trial's files for the dashboard: worst clips as a table, sounds, pictures, curve, recipe."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tmsearch import job_server
from tmsearch.config import DataConfig
from tmsearch.errors import InputError
from tmsearch.evaluation import bootstrap
from tmsearch.evaluation.scores import ClipScore, read_scores, worst_first
from tmsearch.evaluation.worst_clips import csv_table
from tmsearch.files import write_atomically
from tmsearch.formatting import file_name, markdown
from tmsearch.media import images, tensorboard_media, trial_note
from tmsearch.media.clip_reader import ClipReader
from tmsearch.media.tensorboard_media import TensorboardClip
from tmsearch.media.trial_note import MEDIA_FOLDER, MEDIA_LIST, NoteMedia, TrialNote

MAX_BYTES = 2_000_000  # of all files of a trial together
ROWS = 20  # of the table of the worst clips
_MIME_TYPES = {".yaml": "text/plain; charset=utf-8", ".csv": "text/csv", ".png": "image/png", ".mp3": "audio/mpeg"}


@dataclass(frozen=True)
class PickedClip:
    """A clip to show. `rank`, why it was picked, is worst, middle or best."""

    rank: str
    score: ClipScore

    @property
    def phrases(self) -> tuple[str, str, str]:
        """Markdown: the clip with its errors, its reference, its hypothesis."""
        errors = "1 error" if self.score.edits == 1 else f"{self.score.edits} errors"
        return (
            f"{markdown(self.score.name)}, {errors} in {self.score.words} words",
            f"reference: {markdown(self.score.reference)}",
            f"hypothesis: {markdown(self.score.hypothesis)}",
        )


def pick_clips(scores: Sequence[ClipScore]) -> list[PickedClip]:
    """The clip with the most errors, the middle one and the one with the fewest; fewer where there are fewer clips."""
    ordered = worst_first(scores)
    if not ordered:
        return []
    # With fewer than three clips the later rank of an index counts.
    ranks = {len(ordered) - 1: "best", len(ordered) // 2: "middle", 0: "worst"}
    return [PickedClip(ranks[index], ordered[index]) for index in sorted(ranks)]


class MediaMaker:
    """Makes the note and files of trials, one trial a call."""

    def __init__(self) -> None:
        self._reader = ClipReader()

    def make(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Write the files to MEDIA_FOLDER of the trial's folder, and the returned note and list to MEDIA_LIST there.

        A trial without a folder, which was trained on another machine, gets a note alone.
        """
        trial = _with_intervals(job)
        if not job["folder"]:
            return {"note": trial_note.trial_note(trial, NoteMedia()), "files": []}
        folder = Path(job["folder"])
        scores = read_scores(folder, trial.steps)
        picked = pick_clips(scores)
        clips, problem = self._read(DataConfig(**job["data"]), picked)
        files, left_out = _within_limit(_contents(folder, trial, job["zero_shot"], scores, picked, clips))
        if job["tensorboard"]:
            tensorboard_media.write(Path(job["tensorboard"]), trial.steps, clips, failed=trial.state == "failed")
        for name, content in files.items():
            write_atomically(folder / MEDIA_FOLDER / name, content)
        items = tuple(f"**{clip.rank}:** " + "\n  - ".join(clip.phrases) for clip in picked)
        listing = {
            "note": trial_note.trial_note(trial, NoteMedia(items, tuple(left_out), problem)),
            "files": [{"name": name, "mimetype": _MIME_TYPES[Path(name).suffix]} for name in files],
            "of": [trial.steps, trial.state],
            "basis": job["basis"],
        }
        write_atomically(folder / MEDIA_FOLDER / MEDIA_LIST, json.dumps(listing, ensure_ascii=False))
        return listing

    def _read(self, data: DataConfig, picked: Sequence[PickedClip]) -> tuple[list[TensorboardClip], str | None]:
        """The picked clips up to the first that the dataset no longer has, and what is wrong with that one."""
        clips: list[TensorboardClip] = []
        try:
            for clip in picked:
                media = self._reader.media(data, clip.score)
                clips.append(TensorboardClip(clip.rank, "; ".join(clip.phrases), media))
        except InputError as error:
            return clips, str(error)
        return clips, None


def _with_intervals(job: Mapping[str, Any]) -> TrialNote:
    """The job's trial with intervals: of its WER, and of the difference to each rival on the same clips."""
    rivals = []
    for rival, pair in zip(job["trial"]["rivals"], job["pairs"], strict=True):
        difference = bootstrap.paired_interval(*pair) if pair else None
        rivals.append(trial_note.TrialComparison(**{**rival, "interval": _bounds(difference)}))
    interval = bootstrap.wer_interval(*job["rates"]) if job["rates"] else None
    return TrialNote(**{**job["trial"], "interval": _bounds(interval), "rivals": tuple(rivals)})


def _bounds(interval: bootstrap.Interval | None) -> tuple[float, float] | None:
    return (interval.low, interval.high) if interval else None


def _contents(
    folder: Path,
    trial: TrialNote,
    zero_shot: float | None,
    scores: Sequence[ClipScore],
    picked: Sequence[PickedClip],
    clips: Sequence[TensorboardClip],
) -> dict[str, bytes]:
    """Files by name, the most important first; a dashboard sorts by name, so the names are in that order, too."""
    contents: dict[str, bytes] = {}
    curve = {rung["step"]: rung["wer"] for rung in trial.rungs}
    if curve:
        contents["1-learning-curve.png"] = images.learning_curve(curve, zero_shot, f"trial {trial.number}")
    for number, (pick, clip) in enumerate(zip(picked, clips, strict=False), 2):
        stem = f"{number}-{pick.rank}-{file_name(Path(pick.score.name).stem)}"
        contents[f"{stem}.mp3"] = clip.media.mp3
        contents[f"{stem}.png"] = clip.media.spectrogram
    if scores:
        contents[f"worst-{min(ROWS, len(scores))}-clips.csv"] = csv_table(scores, ROWS).encode()
    if (folder / "config.yaml").is_file():
        contents["config.yaml"] = (folder / "config.yaml").read_bytes()
    return contents


def _within_limit(contents: Mapping[str, bytes]) -> tuple[dict[str, bytes], list[str]]:
    """Files in their order as long as they fit into MAX_BYTES together, and the names of the others."""
    files: dict[str, bytes] = {}
    left_out = []
    room = MAX_BYTES
    for name, content in contents.items():
        if len(content) <= room:
            files[name] = content
            room -= len(content)
        else:
            left_out.append(name)
    return files, left_out


def answer(maker: MediaMaker, job: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was made, or why it could not be made."""
    try:
        return {"event": "made", **maker.make(job)}
    except Exception as error:  # it goes into the note: a search never stops for want of a picture
        traceback.print_exc()
        return {"event": "failure", "reason": f"{type(error).__name__}: {error}"}


def _jobs(stream: BinaryIO, write: job_server.Write, stop: Callable[[], None]) -> Iterator[dict[str, Any]]:
    for line in stream:
        yield json.loads(line)


def main() -> None:
    """Answer jobs from standard input until it closes, at the lowest priority of this machine."""
    job_server.lower_priority(10)  # behind a training, and not so far that a busy machine never comes to it
    maker = MediaMaker()
    job_server.serve(_jobs, lambda job, write, stop: json.dumps(answer(maker, job)).encode() + b"\n")


if __name__ == "__main__":
    main()
