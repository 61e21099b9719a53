"""What TensorBoard gets of a trial that has ended: sounds, spectrograms, and whether it failed."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tmsearch.data.audio_file import SAMPLE_RATE
from tmsearch.files import write_atomically
from tmsearch.media.clip_media import ClipMedia

_NAME = "events.out.tfevents.{seconds:.0f}.{suffix}"  # TensorBoard reads a folder's files in the order of their names


@dataclass(frozen=True)
class TensorboardClip:
    """A clip under its rank among the clips (`worst`), with a description in Markdown."""

    rank: str
    description: str
    media: ClipMedia


def write(folder: Path, step: int, clips: Sequence[TensorboardClip], *, failed: bool) -> Path:
    """Add the clips and the trial's end to its events as of `step`, unless they are there; returns the events file.

    The training's own events may be written at the same time, so these are a file of their own.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    suffix = f"ended-{step:06d}"
    earlier = sorted(folder.glob("events.out.tfevents.*"))
    if earlier and earlier[-1].name.endswith(suffix):
        return earlier[-1]
    now = time.time()
    buffer = io.BytesIO()
    records = RecordWriter(buffer)
    values = [value for clip in clips for value in _values(clip)]
    events = [
        Event(wall_time=now, file_version="brain.Event:2"),
        Event(wall_time=now, step=step, summary=Summary(value=values)),
        Event(wall_time=now, summary=Summary(value=[_session_end(failed, now)])),
    ]
    for event in events:
        records.write(event.SerializeToString())
    last_seconds = int(earlier[-1].name.split(".")[3]) if earlier else 0
    file = folder / _NAME.format(seconds=max(now, last_seconds + 1), suffix=suffix)
    write_atomically(file, buffer.getvalue())
    return file


def _values(clip: TensorboardClip) -> list[object]:
    """Sound and spectrogram, named alike in all trials: TensorBoard shows them side by side."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata

    png = clip.media.spectrogram
    sound = Summary.Audio(
        sample_rate=SAMPLE_RATE,
        num_channels=1,
        length_frames=len(clip.media.samples),
        encoded_audio_string=clip.media.wav,
        content_type="audio/wav",  # the only type that TensorBoard serves
    )
    width = int.from_bytes(png[16:20], "big")
    height = int.from_bytes(png[20:24], "big")
    picture = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
    metadata = SummaryMetadata(summary_description=clip.description)
    return [
        Summary.Value(tag=f"clip/{clip.rank}", audio=sound, metadata=metadata),
        Summary.Value(tag=f"spectrogram/{clip.rank}", image=picture),
    ]


def _session_end(failed: bool, now: float) -> object:
    """How the session ended, in the form that the HParams tab reads."""
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
