"""What a dataset's name opens: a metadata file, the demo, a folder here before the hub."""

import os

import pytest

from tests.support.audio_files import tone_folder
from tmsearch.config import DataConfig
from tmsearch.data import sources
from tmsearch.data.corpus import load
from tmsearch.errors import InputError


def test_metadata_named_itself_and_the_demo(tmp_path, monkeypatch):
    tone_folder(tmp_path / "corpus", "a")
    assert len(load(DataConfig(dataset=str(tmp_path / "corpus/metadata.csv"))).clips) == 1
    monkeypatch.setattr(sources, "CORPUS", tmp_path / "corpus")
    assert len(load(DataConfig(dataset="demo")).clips) == 1


def test_a_revision_of_a_local_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"data\.revision"):
        load(DataConfig(dataset=str(tone_folder(tmp_path / "here", "a", "b")), revision="v1"))


def test_a_folder_here_comes_before_the_hub(tmp_path, monkeypatch):
    tone_folder(tmp_path / "me/throat", "a", "b")
    monkeypatch.chdir(tmp_path)
    assert len(load(DataConfig(dataset="me/throat")).clips) == 2


def test_a_folder_without_metadata_is_refused_whatever_its_path(tmp_path):
    folder = tmp_path / "github" / "clips"
    folder.mkdir(parents=True)
    with pytest.raises(InputError, match=r"holds no metadata\.csv, no parquet and no save_to_disk dataset"):
        load(DataConfig(dataset=str(folder)))


@pytest.mark.parametrize(
    ("card", "languages"),
    [
        ("language: en\ndate: 2024-99-99", ("en",)),
        ("language: [en, de]\nversion: " + "1" * 5000, ("en", "de")),
        ("language: en\ntags: " + "[" * 3000 + "]" * 3000, ()),
        ("language: " + "- " * 3000, ()),
        ("language: {a: b", ()),
        ("- language", ()),
    ],
)
def test_no_card_ends_in_a_traceback(tmp_path, card, languages):
    tone_folder(tmp_path, "a")
    (tmp_path / "README.md").write_text(f"---\n{card}\n---\n")
    assert load(DataConfig(dataset=str(tmp_path))).languages == languages


@pytest.mark.timeout(30)
def test_a_card_or_table_that_is_a_pipe_is_not_waited_for(tmp_path):
    tone_folder(tmp_path, "a")
    os.mkfifo(tmp_path / "README.md")
    assert load(DataConfig(dataset=str(tmp_path))).languages == ()
    (tmp_path / "metadata.csv").unlink()
    os.mkfifo(tmp_path / "metadata.csv")
    for dataset in (tmp_path, tmp_path / "metadata.csv"):
        with pytest.raises(InputError, match=r"a pipe, not a plain file|neither a folder nor a plain file"):
            load(DataConfig(dataset=str(dataset)))
