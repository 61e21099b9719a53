"""File names of a table: found however they are spelt, and read only where they name a plain file of limited size."""

import os
import threading
import unicodedata
from pathlib import Path

import pytest
import soundfile

from tests.support.audio_files import RecordedClip, tone, wav, write_recordings
from tmsearch.config import DataConfig
from tmsearch.data.audio_paths import AudioPaths
from tmsearch.data.corpus import load


def dataset(folder, *names):
    """Rows of these names beside one good clip; no file is made for them."""
    clips = [RecordedClip("good.wav", "good", tone())]
    clips += [RecordedClip(name, f"text of {index}", None) for index, name in enumerate(names)]
    return write_recordings(folder, clips)


def opened(folder):
    corpus = load(DataConfig(dataset=str(folder), max_dropped=1.0))
    return [clip.name for clip in corpus.clips], {row.name: row.reason for row in corpus.dropped}, corpus.notes


@pytest.mark.parametrize(("in_table", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_is_found_in_the_other_unicode_form(tmp_path, in_table, on_disk):
    name = "été/café.wav"
    dataset(tmp_path, unicodedata.normalize(in_table, name))
    file = tmp_path / unicodedata.normalize(on_disk, name)
    file.parent.mkdir()
    soundfile.write(file, tone(), 16_000)
    clips, dropped, notes = opened(tmp_path)
    assert dropped == {}
    assert len(clips) == 2
    assert len(notes) == 1, "no file is without a line"


def test_a_name_with_backslashes_is_found(tmp_path):
    dataset(tmp_path, "wavs\\a.wav")
    (tmp_path / "wavs").mkdir()
    soundfile.write(tmp_path / "wavs/a.wav", tone(), 16_000)
    assert opened(tmp_path)[0] == ["good.wav", "wavs/a.wav"]


@pytest.mark.timeout(30)
def test_devices_pipes_and_huge_files_are_refused_without_being_read(tmp_path):
    dataset(
        tmp_path, "/dev/zero", "pipe.wav", "sparse.wav", "link.wav", "folder.wav", "zero\0byte.wav", "/proc/version"
    )
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "link.wav").symlink_to("/dev/zero")
    with (tmp_path / "sparse.wav").open("wb") as file:
        file.write(wav())
        file.truncate(4 * 2**30)
    clips, dropped, _ = opened(tmp_path)
    assert clips == ["good.wav"]
    assert dropped["/dev/zero"] == "a device, not a plain file"
    assert dropped["link.wav"] == "a device, not a plain file"
    assert dropped["pipe.wav"] == "a pipe, not a plain file"
    assert dropped["folder.wav"] == "a folder, not a plain file"
    assert dropped["zero\0byte.wav"] == "its path holds a zero byte"
    assert dropped["/proc/version"].startswith("empty")
    assert dropped["sparse.wav"].startswith("too large: 4295 MB")
    assert threading.active_count() < 20


def test_files_outside_the_folder_are_said_for_a_persons_own_data_and_refused_for_a_strangers(tmp_path):
    outside = tmp_path / "outside.wav"
    soundfile.write(outside, tone(), 16_000)
    folder = dataset(tmp_path / "data", str(outside), "../outside.wav", "link.wav")
    (folder / "link.wav").symlink_to(outside)
    _, _, notes = opened(folder)
    assert notes[1].startswith("3 audio files lie outside the dataset's folder, such as ")
    hub = AudioPaths(folder, boundary=folder)
    for name in (str(outside), "../outside.wav", "link.wav"):
        assert "leads out of the dataset" in hub.find(folder, name)[1]
    assert hub.find(folder, "good.wav") == (Path(folder / "good.wav"), "")


def test_a_snapshot_of_the_hubs_cache_is_links_within_its_repository(tmp_path):
    snapshot = tmp_path / "datasets--me--throat/snapshots/0123"
    snapshot.mkdir(parents=True)
    blobs = tmp_path / "datasets--me--throat/blobs"
    blobs.mkdir()
    (blobs / "ab").write_bytes(wav())
    (snapshot / "a.wav").symlink_to("../../blobs/ab")
    assert AudioPaths(snapshot, boundary=snapshot.parents[1]).find(snapshot, "a.wav")[1] == ""
