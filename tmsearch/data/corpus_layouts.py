"""Layouts of published corpora other than Hugging Face's audiofolder: Common Voice, LJSpeech and Kaldi."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tmsearch.data.audiofolder import MetadataRow, MetadataTable
from tmsearch.errors import InputError
from tmsearch.foreign import plain_files
from tmsearch.foreign.plain_files import ForeignFileError

# Common Voice: the clips that listeners agreed on; else those of its split, which are a part of them.
_COMMON_VOICE = (("validated.tsv",), ("train.tsv", "dev.tsv", "test.tsv"))


def read(root: Path, metadata: Sequence[Path], dataset: str) -> list[MetadataTable]:
    """The tables of a corpus in one of the layouts; empty where `root` is laid out otherwise.

    Args:
        root: The dataset's folder.
        metadata: The metadata files in it.
        dataset: Its name in errors.

    Raises:
        InputError: A file of the layout cannot be read.
    """
    try:
        if metadata == [root / "metadata.csv"] and (root / "wavs").is_dir():
            return _lj_speech(root, dataset)
        if metadata:
            return []
        if (root / "clips").is_dir():
            return _common_voice(root, dataset)
        if (root / "wav.scp").is_file() and (root / "text").is_file():
            return [_kaldi(root, dataset)]
    except ForeignFileError as error:
        raise InputError(error.at(dataset)) from None
    return []


def _lines(root: Path, name: str, separator: str | None, fields: int) -> Iterator[tuple[int, list[str]]]:
    """The numbers and fields of the lines that are not blank; a missing file has none."""
    if not (root / name).exists():
        return
    try:
        text = plain_files.read_text(root / name)
    except ForeignFileError as error:
        raise ForeignFileError(f"{name}: {error}", error.line) from None
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.rstrip("\r").split(separator, fields - 1)


def _lj_speech(root: Path, dataset: str) -> list[MetadataTable]:
    """`LJ001-0001|text as printed|text in words` without a header, and wavs/LJ001-0001.wav."""
    rows = []
    for number, fields in _lines(root, "metadata.csv", "|", 3):
        if number == 1 and (len(fields) == 1 or "," in fields[0] or "text" in fields):
            return []  # an audiofolder that keeps its files in wavs
        name = fields[0] if Path(fields[0]).suffix else f"{fields[0]}.wav"
        texts = [*fields[1:], "", ""]
        cells = {"file_name": f"wavs/{name}", "text": texts[0], "normalized_text": texts[1]}
        rows.append(MetadataRow(number, cells))
    header = ("file_name", "text", "normalized_text")
    return [MetadataTable("metadata.csv", f"{dataset}/metadata.csv", root, header, rows)] if rows else []


def _common_voice(root: Path, dataset: str) -> list[MetadataTable]:
    """Tables of tab-separated columns, `path` and `sentence` among them, whose clips are in clips/."""
    names = next((names for names in _COMMON_VOICE if any((root / name).is_file() for name in names)), ())
    tables = []
    for name in names:
        lines = list(_lines(root, name, "\t", 1000))
        header = lines[0][1] if lines else []
        if "path" not in header or "sentence" not in header:
            continue
        rows = []
        for number, fields in lines[1:]:
            cells = dict(zip(header, fields, strict=False))
            clip = cells.pop("path", "")
            if clip:
                cells["file_name"] = f"clips/{clip if Path(clip).suffix else f'{clip}.mp3'}"
            rows.append(MetadataRow(number, cells))
        columns = ("file_name", "sentence", *(column for column in ("client_id", "locale") if column in header))
        tables.append(MetadataTable(name, f"{dataset}/{name}", root, columns, rows))
    return tables


def _kaldi(root: Path, dataset: str) -> MetadataTable:
    """wav.scp (recordings), text and, where they are there, segments (in seconds) and utt2spk, by utterance."""
    recordings = {fields[0]: fields[-1].strip() for _, fields in _lines(root, "wav.scp", None, 2)}
    speakers = {fields[0]: fields[-1].strip() for _, fields in _lines(root, "utt2spk", None, 2)}
    segments = {fields[0]: fields[1:] for _, fields in _lines(root, "segments", None, 4)}
    rows = []
    for number, fields in _lines(root, "text", None, 2):
        utterance = fields[0]
        recording, *times = segments.get(utterance, [utterance])
        file_name = recordings.get(recording, "")
        problem = "" if file_name else f"{utterance} has no recording in wav.scp"
        if file_name.endswith("|"):
            problem = f"wav.scp has a command for {utterance}; write its output to a file and name that"
            file_name = ""
        cells = {"file_name": file_name, "text": "".join(fields[1:]), "speaker": speakers.get(utterance)}
        cells.update(zip(("start", "end"), times, strict=False))
        rows.append(MetadataRow(number, cells, problem))
    header = ("file_name", "text", "speaker", *(("start", "end") if segments else ()))
    return MetadataTable("text", f"{dataset}/text", root, header, rows)
