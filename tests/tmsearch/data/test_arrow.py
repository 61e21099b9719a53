"""Parquet and save_to_disk: what opens, how rows are named, and the one line that says what is wrong."""

import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.audio_files import struct_table, wav
from tmsearch.config import DataConfig
from tmsearch.data.corpus import load
from tmsearch.errors import InputError


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets_cache")


@pytest.mark.usefixtures("own_cache")
class TestTables:
    def test_parquet_file_and_folder(self, tmp_path, capfd):
        (tmp_path / "folder").mkdir()
        file = tmp_path / "folder/train-00000-of-00001.parquet"
        pq.write_table(struct_table(["a.wav", "b.wav"], speaker_id=["x", None]), file)
        for path in (file, file.parent):
            corpus = load(DataConfig(dataset=str(path)))
            assert [clip.name for clip in corpus.clips] == ["a.wav", "b.wav"]
            assert [clip.group[1:] for clip in corpus.clips] == [("speaker_id=x",), ()]
            assert len(corpus.samples("b.wav")) == 3_200
        assert capfd.readouterr() == ("", "")

    def test_rows_without_names_of_their_own_are_numbered(self, tmp_path):
        pq.write_table(struct_table(["a.wav", "a.wav", None]), tmp_path / "x.parquet")
        names = [clip.name for clip in load(DataConfig(dataset=str(tmp_path / "x.parquet"))).clips]
        assert names == ["row-000000", "row-000001", "row-000002"]

    def test_audio_as_bytes_paths_and_samples(self, tmp_path):
        (tmp_path / "wavs").mkdir()
        (tmp_path / "wavs/a.wav").write_bytes(wav())
        samples = [0.1, -0.2, 0.3, 0.1] * 100
        audio = {
            "bytes": [wav()],
            "path": ["wavs/a.wav"],
            "array": [{"array": samples, "sampling_rate": 8_000}],
        }
        for kind, cells in audio.items():
            file = tmp_path / f"{kind}.parquet"
            pq.write_table(pa.table({"audio": cells, "sentence": ["hello"]}), file)
            corpus = load(DataConfig(dataset=str(file)))
            expected = 800 if kind == "array" else 3_200
            assert [len(corpus.samples(clip.name)) for clip in corpus.clips] == [expected], kind

    def test_save_to_disk(self, tmp_path, capfd):
        import datasets

        single = datasets.Dataset(struct_table(["a.wav", "b.wav"])).cast_column("audio", datasets.Audio(decode=False))
        single.save_to_disk(str(tmp_path / "single"))
        datasets.DatasetDict(train=single, extra=single).save_to_disk(str(tmp_path / "several"))
        capfd.readouterr()
        single = load(DataConfig(dataset=str(tmp_path / "single")))
        several = load(DataConfig(dataset=str(tmp_path / "several")))
        assert [clip.name for clip in single.clips] == ["a.wav", "b.wav"]
        assert [clip.name for clip in several.clips] == ["extra/a.wav", "extra/b.wav", "train/a.wav", "train/b.wav"]
        assert capfd.readouterr() == ("", "")

    def test_one_of_several_microphones_is_named(self, tmp_path):
        import datasets

        table = struct_table(["a.wav"]).rename_columns(["throat", "text"])
        both = datasets.Dataset(table.append_column("headset", table["throat"]))
        for column in ("throat", "headset"):
            both = both.cast_column(column, datasets.Audio(decode=False))
        both.save_to_disk(str(tmp_path / "saved"))
        with pytest.raises(InputError, match=r"several columns of audio \(throat, headset\)"):
            load(DataConfig(dataset=str(tmp_path / "saved")))
        assert len(load(DataConfig(dataset=str(tmp_path / "saved"), audio_column="throat")).clips) == 1

    def test_broken_files_are_one_line(self, tmp_path, capfd):
        (tmp_path / "cut.parquet").write_bytes(b"PAR1" + bytes(100))
        (tmp_path / "saved").mkdir()
        (tmp_path / "saved/state.json").write_text("{}")
        (tmp_path / "empty").mkdir()
        (tmp_path / "notes.txt").write_text("hello")
        for name in ("cut.parquet", "saved", "empty", "notes.txt"):
            with pytest.raises(InputError) as error:
                load(DataConfig(dataset=str(tmp_path / name)))
            assert name in str(error.value)
            assert "\n" not in str(error.value)
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize(
        ("audio", "text", "reason"),
        [
            (7, "x", "its audio is a number (7); it must be a path, bytes or samples with a rate"),
            ([1, 2], "x", "its audio is a list"),
            ([0.5], "x", "its audio is a list"),
            ({"array": [0.1], "sampling_rate": None}, "x", "its sampling_rate is NoneType, not a rate in Hz"),
            ({"array": ["a"], "sampling_rate": 8000}, "x", "its array holds something other than numbers"),
            ({"path": 3, "bytes": None}, "x", "of other types"),
            ("absent.wav", "x", "its audio file is missing"),
            ("/dev/zero", "x", "a device, not a plain file"),
            (wav(), ["I", "see"], "its text is a list, not text"),
            (wav(), 7, "its text is a number (7), not text"),
        ],
    )
    def test_a_cell_of_another_type_is_refused_by_its_type(self, tmp_path, audio, text, reason):
        pq.write_table(pa.table({"audio": [audio], "text": [text]}), tmp_path / "x.parquet")
        with pytest.raises(InputError) as error:
            load(DataConfig(dataset=str(tmp_path / "x.parquet")))
        assert reason in str(error.value)

    def test_samples_have_the_same_fingerprint_whenever_they_are_read(self, tmp_path, monkeypatch):
        audio = [{"array": [[0.1, -0.2, 0.3] * 100, [0.1, 0.2, 0.3] * 100], "sampling_rate": 8_000}]
        pq.write_table(pa.table({"audio": audio, "text": ["x"]}), tmp_path / "x.parquet")
        before = load(DataConfig(dataset=str(tmp_path / "x.parquet")))
        assert before.clips[0].recording.channels == 2
        time.sleep(1.1)  # libsndfile writes the second into a WAV of floats
        assert load(DataConfig(dataset=str(tmp_path / "x.parquet"))).fingerprint == before.fingerprint

    def test_paths_are_found_beside_the_parquet_file_that_names_them(self, tmp_path):
        for part in ("train", "test"):
            (tmp_path / part).mkdir()
            (tmp_path / part / f"{part}.wav").write_bytes(wav())
            pq.write_table(pa.table({"audio": [f"{part}.wav"], "text": [part]}), tmp_path / part / "0.parquet")
        assert len(load(DataConfig(dataset=str(tmp_path), max_dropped=0.0)).clips) == 2
