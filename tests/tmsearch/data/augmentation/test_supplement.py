"""What is trained on beside a dataset, as a whole: shares, what cannot work together, and its fingerprint."""

import dataclasses

import numpy as np
import pytest
import soundfile

from tests.support.audio_files import RecordedClip, tone, tone_folder, write_recordings
from tmsearch.config import DataConfig, ExtraData, TrainConfig
from tmsearch.data.augmentation.supplement import load_supplement
from tmsearch.data.corpus import load
from tmsearch.data.splits import Split
from tmsearch.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("supplement")
    tone_folder(folder / "own", "a", "b", "c")
    others = [RecordedClip(f"{name}.wav", f"sentence {name}", tone(frequency=900.0)) for name in "de"]
    write_recordings(folder / "other", others)
    (folder / "noise").mkdir()
    soundfile.write(folder / "noise/hiss.wav", 0.1 * np.random.default_rng(0).standard_normal(8000), 16_000)
    return folder


def supplement(folder, **fields):
    config = DataConfig(dataset=str(folder / "own"), **fields)
    corpus = load(dataclasses.replace(config, extra=(), air_column=None))
    return load_supplement(config, corpus, Split(("a.wav",), ("b.wav",), ("c.wav",)), load)


def other(folder, **fields):
    return ExtraData(str(folder / "other"), **fields)


def test_shares_are_as_given_or_scaled_to_the_knob(folder):
    both = supplement(folder, extra=(other(folder, share=0.1), other(folder, share=0.3)))
    assert both.shares(TrainConfig()) == [0.1, 0.3]
    assert both.shares(TrainConfig(extra_share=0.8)) == pytest.approx([0.2, 0.6])
    assert both.shares(TrainConfig(extra_share=0.0)) == [0.0, 0.0]
    rows = both.to_json()
    assert [(row["clips"], row["share"], row["left_out"]) for row in rows] == [(2, 0.1, 0), (2, 0.3, 0)]


def test_each_part_has_its_share_in_the_fingerprint(folder):
    noise = str(folder / "noise")
    prints = [
        supplement(folder).fingerprint,
        supplement(folder, noise=noise).fingerprint,
        supplement(folder, extra=(other(folder),)).fingerprint,
        supplement(folder, extra=(other(folder),), noise=noise).fingerprint,
        supplement(folder, extra=(other(folder, share=0.5),)).fingerprint,
    ]
    assert prints[0] is None
    assert len(set(prints)) == 5


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (
            {"shares": (0.6, 0.5)},
            r"^data.extra: its shares are 1.1 together; they are shares of all examples, at m",
        ),
        ({"air_column": "text"}, r"^data.air_column: nothing is heard through a throat filter; give data.extra with"),
        ({"noise": "nowhere"}, r"^data.noise: nowhere: no such folder"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(folder, fields, problem):
    shares = fields.pop("shares", ())
    with pytest.raises(InputError, match=problem):
        supplement(folder, extra=tuple(other(folder, share=share) for share in shares), **fields)


def test_knobs_that_ask_for_what_is_not_there_are_refused(folder):
    nothing = supplement(folder)
    nothing.check(TrainConfig(extra_share=0.0))
    with pytest.raises(InputError, match=r"^train.noise_db: 10: there is no noise; give data.noise a folder"):
        nothing.check(TrainConfig(noise_db=10.0))
    with pytest.raises(InputError, match=r"^train.extra_share: 0.5: there is no extra speech; name some in data.extra"):
        nothing.check(TrainConfig(extra_share=0.5))
