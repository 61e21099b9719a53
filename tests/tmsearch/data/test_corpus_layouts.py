"""Common Voice, LJSpeech and Kaldi open as they are published."""

import numpy as np
import pytest
import soundfile

from tests.support.audio_files import tone
from tmsearch.config import DataConfig
from tmsearch.data.corpus import load
from tmsearch.errors import InputError


def sound(file, seconds=0.5):
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(
        file, tone(seconds) + 1e-3 * np.random.default_rng(0).standard_normal(int(16_000 * seconds)), 16_000
    )


def clips(folder):
    corpus = load(DataConfig(dataset=str(folder), max_dropped=0.5))
    return [(clip.name, clip.text, clip.group[1:]) for clip in corpus.clips], corpus


def test_common_voice(tmp_path):
    for name in ("a", "b"):
        sound(tmp_path / f"clips/{name}.mp3")
    (tmp_path / "validated.tsv").write_text(
        'client_id\tpath\tsentence\tup_votes\tlocale\nx\ta.mp3\tHe said "no\t2\tcy\ny\tb\tStop, now.\t2\tcy\n'
    )
    (tmp_path / "train.tsv").write_text("client_id\tpath\tsentence\nx\ta.mp3\tagain\n")
    found, corpus = clips(tmp_path)
    assert found == [
        ("clips/a.mp3", 'He said "no', ("client_id=x",)),
        ("clips/b.mp3", "Stop, now.", ("client_id=y",)),
    ]
    assert corpus.languages == ("cy",)


def test_lj_speech(tmp_path):
    sound(tmp_path / "wavs/LJ001-0001.wav")
    (tmp_path / "metadata.csv").write_text('LJ001-0001|Printing, in "the" 2 senses|Printing, in "the" two senses\n')
    assert clips(tmp_path)[0] == [("wavs/LJ001-0001.wav", 'Printing, in "the" 2 senses', ())]


def test_kaldi_with_segments(tmp_path):
    sound(tmp_path / "call.wav", 5.0)
    (tmp_path / "wav.scp").write_text("call call.wav\npiped sph2pipe -f wav x.sph |\n")
    (tmp_path / "segments").write_text("u1 call 0.50 1.75\nu2 call 2.00 4.00\n")
    (tmp_path / "text").write_text("u1 turn left\nu2 turn right\npiped over\n")
    (tmp_path / "utt2spk").write_text("u1 s1\nu2 s2\n")
    found, corpus = clips(tmp_path)
    assert found == [
        ("call.wav@0.5-1.75", "turn left", ("speaker=s1",)),
        ("call.wav@2-4", "turn right", ("speaker=s2",)),
    ]
    assert [clip.seconds for clip in corpus.clips] == [1.25, 2.0]
    assert "a command" in corpus.dropped[0].reason


def test_an_audiofolder_with_its_files_in_wavs_is_no_lj_speech(tmp_path):
    sound(tmp_path / "wavs/a.wav")
    (tmp_path / "metadata.csv").write_text("file_name,text\nwavs/a.wav,hello\n")
    assert clips(tmp_path)[0] == [("wavs/a.wav", "hello", ())]


def test_a_table_of_another_name_is_pointed_at_and_opens_when_it_is_named(tmp_path):
    sound(tmp_path / "a.wav")
    (tmp_path / "train_manifest.json").write_text('{"audio_filepath": "a.wav", "duration": 0.5, "text": "hello"}\n')
    with pytest.raises(InputError, match=r"if train_manifest\.json lists its clips, give data\.dataset that file"):
        clips(tmp_path)
    assert clips(tmp_path / "train_manifest.json")[0] == [("a.wav", "hello", ())]
