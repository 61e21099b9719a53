"""Two microphones in the layouts that datasets have them in: columns and channels, named, described, told apart."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support.audio_files import RATE, RecordedClip, struct_table, tone, wav, write_recordings
from tests.support.in_process import tmsearch
from tmsearch.config import DataConfig
from tmsearch.data.corpus import load
from tmsearch.data_quality.microphones import share_above, survey
from tmsearch.errors import InputError

THROAT, HEADSET = "audio.throat_microphone", "audio.headset_microphone"


def air(index):
    """What a microphone in air hears: a voice's low tone and some hiss [positions]."""
    noise = np.random.default_rng(index)
    return tone(frequency=200.0 + 10 * index) + 0.2 * tone(frequency=3000.0) + 0.02 * noise.standard_normal(3200)


@pytest.fixture(scope="module")
def paired(tmp_path_factory):
    """Parquet with the columns of Vibravox; saved to disk, with types, the same clips with those of TAPS."""
    import datasets

    folder = tmp_path_factory.mktemp("paired")
    names = [f"{index:02d}.wav" for index in range(12)]
    texts = [f"Phrase numéro {index} !" for index in range(12)]
    speakers = [f"s{index % 6}" for index in range(12)]
    headset = [{"bytes": wav(frequency=3000.0 + 50 * index), "path": name} for index, name in enumerate(names)]
    table = struct_table(names, [text.lower() for text in texts], speaker_id=speakers)
    vibravox = table.rename_columns([THROAT, "normalized_text", "speaker_id"])
    vibravox = vibravox.add_column(0, HEADSET, [headset]).append_column("raw_text", [texts])
    taps = table.rename_columns([THROAT, "text", "speaker_id"]).append_column("audio.acoustic_microphone", [headset])
    (folder / "vibravox").mkdir()
    pq.write_table(vibravox, folder / "vibravox" / "train-00000-of-00001.parquet")
    typed = datasets.Dataset(taps)
    for column in (THROAT, "audio.acoustic_microphone"):
        typed = typed.cast_column(column, datasets.Audio(decode=False))
    typed.save_to_disk(str(folder / "taps"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "datasets_cache")
        yield folder


@pytest.fixture(scope="module")
def stereo(tmp_path_factory):
    """Recordings with the air in channel 0 and the throat in channel 1."""
    clips = []
    for index in range(12):
        samples = np.stack([air(index), tone(frequency=200.0 + 10 * index)], axis=1)  # [positions, channels]
        clips.append(RecordedClip(f"{index:02d}.wav", f"sentence {index}", samples, subtype="FLOAT"))
    return write_recordings(tmp_path_factory.mktemp("stereo"), clips)


def test_a_column_with_a_dot_in_its_name_is_taken_when_it_is_named(paired):
    config = DataConfig(dataset=str(paired / "vibravox"), audio_column=THROAT, text_column="raw_text")
    throat = load(config)
    assert throat.clips[3].text == "Phrase numéro 3 !"
    assert throat.clips[0].group[1:] == ("speaker_id=s0",)
    headset = load(DataConfig(dataset=str(paired / "vibravox"), audio_column=HEADSET, text_column="raw_text"))
    name = throat.clips[0].name
    assert share_above(throat.samples(name), RATE) < 0.01 < 0.99 < share_above(headset.samples(name), RATE)
    assert throat.fingerprint != headset.fingerprint


def test_columns_that_have_to_be_chosen_are_listed_in_the_one_line_that_refuses(paired):
    dataset = str(paired / "vibravox")
    with pytest.raises(InputError, match=rf"several columns of audio \({HEADSET}, {THROAT}\); name one in data.audio"):
        load(DataConfig(dataset=dataset))
    with pytest.raises(InputError, match=r"several columns of text \(normalized_text, raw_text\); name one in data.te"):
        load(DataConfig(dataset=dataset, audio_column=THROAT))
    with pytest.raises(InputError, match=rf"several columns of audio \({THROAT}, audio.acoustic_microphone\)"):
        load(DataConfig(dataset=str(paired / "taps")))
    assert len(load(DataConfig(dataset=str(paired / "taps"), audio_column=THROAT)).clips) == 12


def test_channels_are_averaged_unless_one_is_named(stereo):
    both = load(DataConfig(dataset=str(stereo)))
    channels = [load(DataConfig(dataset=str(stereo), channel=channel)) for channel in (0, 1)]
    first, second = (corpus.samples("03.wav") for corpus in channels)
    assert np.allclose(both.samples("03.wav"), (first + second) / 2, atol=1e-7)
    assert np.allclose(second, tone(frequency=230.0), atol=1e-6)
    assert any("several channels, whose average is heard" in note for note in both.notes)
    assert not any("channels" in note for corpus in channels for note in corpus.notes)
    assert len({corpus.fingerprint for corpus in (both, *channels)}) == 3


def test_a_channel_that_no_recording_has_is_refused(stereo):
    with pytest.raises(InputError, match=r"12 of 12 rows cannot be used: 00.wav \(has channels 0 to 1, and no chann"):
        load(DataConfig(dataset=str(stereo), channel=2))


def test_a_survey_hears_every_column_and_channel(paired, stereo):
    columns = survey(DataConfig(dataset=str(paired / "vibravox")))
    assert [(heard.name, heard.is_throat) for heard in columns.microphones] == [(HEADSET, False), (THROAT, True)]
    assert columns.texts[1] == ("raw_text", "Phrase numéro 0 !")
    channels = survey(DataConfig(dataset=str(stereo), channel=0)).microphones
    assert [(heard.channel, heard.is_throat) for heard in channels] == [(0, False), (1, True)]
    assert channels[0].above_2khz == pytest.approx(0.046, abs=0.01)


def test_the_command_describes_what_it_cannot_choose_from_and_what_it_was_told(paired, stereo, tmp_path):
    refused = tmsearch(tmp_path, "data", str(paired / "vibravox"))
    assert refused.returncode == 2
    assert f"{THROAT}" in refused.stdout
    assert "sounds like a throat microphone" in next(line for line in refused.stdout.splitlines() if THROAT in line)
    assert '"Phrase numéro 0 !"' in refused.stdout
    assert refused.stderr.count("\n") == 1
    chosen = ["--set", f"data.audio_column={THROAT}", "--set", "data.text_column=raw_text"]
    told = tmsearch(tmp_path, "data", str(paired / "vibravox"), *chosen)
    assert told.returncode == 0, told.stderr
    assert f"microphones    {HEADSET}" in told.stdout
    assert "audio, channel 1" not in told.stdout
    channels = tmsearch(tmp_path, "data", str(stereo)).stdout
    assert "file_name, channel 1" in channels
    assert "several channels, whose average is heard" in channels
