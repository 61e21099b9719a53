"""Extra speech: which clips of it may be trained on, what is refused, and what a throat filter is learnt from."""

import dataclasses

import numpy as np
import pytest
import scipy.signal
import soundfile

from tests.support.audio_files import RATE, RecordedClip, write_recordings
from tmsearch.config import DataConfig, ExtraData
from tmsearch.data.augmentation.extra_data import load_extra, refuse_copies
from tmsearch.data.corpus import load
from tmsearch.data.splits import Split
from tmsearch.errors import InputError

SPLIT = Split(("0.wav", "1.wav", "2.wav"), ("3.wav",), ("4.wav",))


def noise(seed, rate=RATE):
    return 0.1 * np.random.default_rng(seed).standard_normal(rate)


def muffled(samples):
    return scipy.signal.sosfilt(scipy.signal.butter(3, 700, fs=RATE, output="sos"), samples)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A dataset of five muffled clips with the air beside them, speech of others, and a second of each."""
    folder = tmp_path_factory.mktemp("extra")
    own = []
    for number in range(5):
        heard = np.stack([muffled(noise(number)), noise(number)], axis=1)  # [positions, channels]
        own.append(RecordedClip(f"{number}.wav", f"own sentence {number}", heard))
    write_recordings(folder / "own", own)
    write_recordings(folder / "air", [RecordedClip(f"{n}.wav", f"other {n}", noise(10 + n)) for n in range(4)])
    return folder


def data(folders, *extra, **fields):
    entries = tuple(ExtraData(**{"dataset": str(folders / "air"), **entry}) for entry in extra)
    return DataConfig(dataset=str(folders / "own"), channel=0, extra=entries, **fields)


def extra_of(config):
    corpus = load(dataclasses.replace(config, extra=()))
    return load_extra(config, corpus, SPLIT, load)[0]


def test_clips_of_air_are_heard_as_if_through_the_throat_microphone(folders):
    [plain, heard] = extra_of(data(folders, {}, {"throat": True}))
    assert plain.names == heard.names == ("0.wav", "1.wav", "2.wav", "3.wav")
    assert plain.response is None
    power = np.abs(np.fft.rfft(heard.corpus.samples("0.wav"))) ** 2
    hertz = np.fft.rfftfreq(RATE, 1 / RATE)
    assert power[hertz < 500].mean() > 1000 * power[hertz > 3000].mean()
    assert heard.corpus.fingerprint != plain.corpus.fingerprint
    gains = heard.to_json()["gains_db"]
    assert gains["2000"] < gains["1000"] < gains["250"]
    assert "gains_db" not in plain.to_json()


def test_a_filter_is_learnt_from_training_clips_alone(folders, tmp_path):
    [before] = extra_of(data(folders, {"throat": True}))
    changed = tmp_path / "own"
    write_recordings(
        changed,
        [
            RecordedClip(
                f"{number}.wav",
                f"own sentence {number}",
                np.stack([muffled(noise(number)) if number < 3 else noise(50 + number), noise(number)], axis=1),
            )
            for number in range(5)
        ],
    )
    [after] = extra_of(dataclasses.replace(data(folders, {"throat": True}), dataset=str(changed)))
    assert after.response.digest == before.response.digest
    corpus = load(dataclasses.replace(data(folders), dataset=str(changed)))
    other_split = Split(("0.wav", "1.wav", "3.wav"), ("2.wav",), ("4.wav",))
    config = dataclasses.replace(data(folders, {"throat": True}), dataset=str(changed))
    assert load_extra(config, corpus, other_split, load)[0][0].response.digest != before.response.digest


def test_a_filter_is_learnt_against_the_other_microphone_of_the_same_clips_where_it_is_named(folders):
    [against_extra] = extra_of(data(folders, {"throat": True}))
    [against_pairs] = extra_of(data(folders, {"throat": True}, air_channel=1))
    assert against_pairs.response.digest != against_extra.response.digest
    # Both are of white noise: the filters differ by chance alone.
    assert against_pairs.response.gain_db(1000) == pytest.approx(against_extra.response.gain_db(1000), abs=2)
    with pytest.raises(InputError, match=r"data.air_channel: .*has channels 0 to 1, and no channel 5"):
        extra_of(data(folders, {"throat": True}, air_channel=5))
    with pytest.raises(InputError, match=r"data.air_column: no column headset"):
        extra_of(data(folders, {"throat": True}, air_column="headset"))


def test_sentences_of_held_out_clips_are_left_out_and_their_copies_refused(folders, tmp_path):
    original, _ = soundfile.read(folders / "own/4.wav", dtype="float32")
    clips = [
        RecordedClip("a.wav", "Own sentence, 3!", noise(20)),
        RecordedClip("b.wav", "something else", noise(21)),
        RecordedClip("c.wav", "own sentence 0", noise(22)),
    ]
    write_recordings(tmp_path / "told", clips)
    config = data(folders, {"dataset": str(tmp_path / "told")})
    corpus = load(dataclasses.replace(config, extra=()))
    [entry] = load_extra(config, corpus, SPLIT, load)[0]
    assert (entry.names, entry.same_sentences) == (("b.wav", "c.wav"), 1)
    refuse_copies([entry], corpus, SPLIT)
    copy = RecordedClip("copy.flac", "by another name", original[:, 0], subtype="PCM_16")
    write_recordings(tmp_path / "copied", [*clips, copy])
    config = data(folders, {"dataset": str(tmp_path / "copied")})
    [entry] = load_extra(config, corpus, SPLIT, load)[0]
    assert "copy.flac" not in entry.names
    with pytest.raises(InputError, match=r"^data.extra\[0\]: .*1 of its clips are in validation or test, such as copy"):
        refuse_copies([entry], corpus, SPLIT)
    refuse_copies([entry], corpus, Split(("4.wav", "0.wav"), ("3.wav",), ()))


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (
            {"dataset": "./nowhere"},
            r"^data.extra\[0\]: ./nowhere: no such file or folder; check data.extra\[0\].dat",
        ),
        ({"channel": 3}, r"4 of 4 rows cannot be used: 0.wav \(has one channel, 0, and no channel 3: see data.extra"),
        ({"text_column": "words"}, r"data.extra\[0\].text_column: no column words; its columns are file_name, text"),
    ],
)
def test_what_is_wrong_with_an_entry_names_the_entry(folders, entry, problem):
    with pytest.raises(InputError, match=problem):
        extra_of(data(folders, entry))


def test_speech_that_lacks_what_the_throat_microphone_passes_is_refused(folders, tmp_path):
    dull = scipy.signal.sosfilt(scipy.signal.butter(6, 200, fs=RATE, output="sos"), noise(1))
    write_recordings(tmp_path / "dull", [RecordedClip("a.wav", "dull", dull)])
    with pytest.raises(InputError, match=r"^data.extra\[0\].throat: 99% of the energy of its clips lies below"):
        extra_of(data(folders, {"dataset": str(tmp_path / "dull"), "throat": True}))
    write_recordings(tmp_path / "silent", [RecordedClip("a.wav", "own sentence 3", noise(2))])
    with pytest.raises(InputError, match="all of it says what validation or test clips say"):
        extra_of(data(folders, {"dataset": str(tmp_path / "silent")}))
