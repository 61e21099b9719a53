import pytest
import torch
import toys

from tmsearch import model
from tmsearch.batches import Batches, order, padded
from tmsearch.loss import IGNORED

AUGMENTED = {"spec_time_masks": 2, "spec_freq_masks": 2, "speed": 0.1, "level_db": 6.0, "throat_filter": 0.5}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toys.whisper_folder(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    return toys.speech(toys.corpus_folder(folder / "corpus"), folder / "cache")


def test_padding_is_known_by_length_where_pad_and_end_are_one_token():
    inputs, labels = padded([[5, 6, 9], [5, 9]], start=1, filler=9)
    assert labels.tolist() == [[5, 6, 9], [5, 9, IGNORED]]
    assert inputs.tolist() == [[1, 5, 6], [1, 5, 9]]


def test_every_epoch_is_a_permutation_and_batches_run_across_epochs():
    stream = [index for first in range(0, 60, 4) for index in order(10, 3, first, 4)]
    epochs = [stream[first : first + 10] for first in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert order(10, 3, 8, 25) == stream[8:33]
    assert order(3, 0, 0, 7)[:3] != sorted(order(3, 0, 0, 7)[:3]) or order(3, 1, 0, 3) != [0, 1, 2]


def test_a_batch_depends_on_its_step_alone(toy, speech):
    whisper = model.load(toys.config(toy))
    config = toys.config(toy, **AUGMENTED)
    batches = Batches(whisper, speech, config)
    third = [batch.mels for batch in batches.of(3, 4)]
    list(batches.of(1, 4))
    assert torch.equal(torch.cat(third), torch.cat([batch.mels for batch in Batches(whisper, speech, config).of(3, 2)]))


def test_augmentation_leaves_the_cached_features_alone(toy, speech):
    whisper = model.load(toys.config(toy))
    batches = Batches(whisper, speech, toys.config(toy, **AUGMENTED))
    before = batches.mels.batch(batches.names, whisper.frames)
    plain = torch.cat([batch.mels for batch in Batches(whisper, speech, toys.config(toy)).of(1, 4)])
    augmented = torch.cat([batch.mels for batch in batches.of(1, 4)])
    assert torch.equal(plain, batches.mels.batch(batches.names_of(1), whisper.frames))
    assert not torch.equal(plain, augmented)
    assert torch.equal(before, batches.mels.batch(batches.names, whisper.frames))
