"""What TensorBoard gets of a trial once it has ended: sounds, spectrograms, and how it ended."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tmsearch.data.audio_file import SAMPLE_RATE, Samples
from tmsearch.files import write_atomically
from tmsearch.media.sounds import wav

_NAME = "events.out.tfevents.{at:.0f}.{end}"  # TensorBoard reads a folder's files in the order of their names


@dataclass(frozen=True)
class TensorboardClip:
    """A clip to be heard and looked at: its place among the clips (`worst`), Markdown about it, PNG."""

    place: str
    said: str
    samples: Samples
    picture: bytes


def write(folder: Path, step: int, clips: Sequence[TensorboardClip], *, failed: bool) -> Path:
    """Add to the trial's events, as of `step`, unless that was done before; the file of events.

    The events are a file of their own, whole or not there, as the training's may be written at the same time.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    end = f"ended-{step:06d}"
    there = sorted(folder.glob("events.out.tfevents.*"))
    if there and there[-1].name.endswith(end):
        return there[-1]
    now, held = time.time(), io.BytesIO()
    records = RecordWriter(held)
    values = [value for clip in clips for value in _values(clip)]
    events = [
        Event(wall_time=now, file_version="brain.Event:2"),
        Event(wall_time=now, step=step, summary=Summary(value=values)),
        Event(wall_time=now, summary=Summary(value=[_ending(failed, now)])),
    ]
    for event in events:
        records.write(event.SerializeToString())
    last = int(there[-1].name.split(".")[3]) if there else 0
    file = folder / _NAME.format(at=max(now, last + 1), end=end)
    write_atomically(file, held.getvalue())
    return file


def _values(clip: TensorboardClip) -> list[object]:
    """Sound and spectrogram under one name for all trials: TensorBoard shows them side by side."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata

    height, width = int.from_bytes(clip.picture[20:24], "big"), int.from_bytes(clip.picture[16:20], "big")
    sound = Summary.Audio(
        sample_rate=SAMPLE_RATE,
        num_channels=1,
        length_frames=len(clip.samples),
        encoded_audio_string=wav(clip.samples),
        content_type="audio/wav",  # the only one that TensorBoard serves
    )
    picture = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=clip.picture)
    about = SummaryMetadata(summary_description=clip.said)
    return [
        Summary.Value(tag=f"clip/{clip.place}", audio=sound, metadata=about),
        Summary.Value(tag=f"spectrogram/{clip.place}", image=picture),
    ]


def _ending(failed: bool, now: float) -> object:
    """How the session ended, as the HParams tab has it."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

    status = api_pb2.STATUS_FAILURE if failed else api_pb2.STATUS_SUCCESS
    info = HParamsPluginData(session_end_info=SessionEndInfo(status=status, end_time_secs=now))
    return Summary.Value(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(info),
        tensor=metadata.NULL_TENSOR,
    )
