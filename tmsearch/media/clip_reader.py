"""Single clips of datasets, read again to be shown."""

from __future__ import annotations

from tmsearch.config import DataConfig
from tmsearch.data.audio_file import UnusableAudioError, decode, mono
from tmsearch.data.sources import Source, open_source
from tmsearch.errors import InputError
from tmsearch.evaluation.scores import ClipScore
from tmsearch.media.clip_media import ClipMedia


class ClipReader:
    """Reads single clips of datasets; each is read and encoded once, whichever trials show it."""

    def __init__(self) -> None:
        self._sources: dict[DataConfig, Source] = {}
        self._media: dict[tuple[DataConfig, str], ClipMedia] = {}

    def media(self, data: DataConfig, score: ClipScore) -> ClipMedia:
        """The clip's media; raises InputError where the clip is gone or its text is not the one that was scored."""
        key = (data, score.name)
        if key not in self._media:
            if data not in self._sources:
                self._sources[data] = open_source(data)
            row = next((row for row in self._sources[data].rows if row.name == score.name), None)
            if row is None or " ".join((row.text or "").split()) != score.reference:
                raise InputError(f"{score.name}: the dataset changed since")
            try:
                self._media[key] = ClipMedia(mono(*decode(row.read())))
            except (OSError, UnusableAudioError) as error:
                raise InputError(f"{score.name}: no longer readable: {error}") from None
        return self._media[key]
