import pytest
import torch

from tests.support import toy_whisper
from tmsearch.features.batches import Batches, clip_order, pad_labels
from tmsearch.model import whisper as model

AUGMENTED = {"spec_time_masks": 2, "spec_freq_masks": 2, "speed": 0.1, "level_db": 6.0, "throat_filter": 0.5}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    return toy_whisper.speech(toy_whisper.corpus_folder(folder / "corpus"), folder / "cache")


def test_padding_is_known_by_length_where_pad_and_end_are_one_token():
    inputs, positions, labels = pad_labels([[5, 6, 9], [5, 9]], start=1, filler=9)
    assert inputs.tolist() == [[1, 5, 6], [1, 5, 9]]
    assert (positions.tolist(), labels.tolist()) == ([0, 1, 2, 3, 4], [5, 6, 9, 5, 9])
    inputs, positions, labels = pad_labels([[5, 6, 9], [5, 9]], start=1, filler=9, min_tokens=5)
    assert inputs.tolist() == [[1, 5, 6, 9, 9], [1, 5, 9, 9, 9]]
    assert (positions.tolist(), labels.tolist()) == ([0, 1, 2, 5, 6], [5, 6, 9, 5, 9])


def test_every_epoch_is_a_permutation_and_batches_run_across_epochs():
    stream = [index for first in range(0, 60, 4) for index in clip_order(10, 3, first, 4)]
    epochs = [stream[first : first + 10] for first in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert clip_order(10, 3, 8, 25) == stream[8:33]
    assert clip_order(3, 0, 0, 7)[:3] != sorted(clip_order(3, 0, 0, 7)[:3]) or clip_order(3, 1, 0, 3) != [0, 1, 2]


CPU = torch.device("cpu")


def clips_of(batch):
    return [clip for group in batch.mels for clip in group]


def test_a_batch_depends_on_its_step_alone(toy, speech):
    whisper = model.load(toy_whisper.config(toy))
    config = toy_whisper.config(toy, **AUGMENTED)
    batches = Batches(whisper, speech, config, CPU)
    [third] = batches.micro_batches(3, 4)
    list(batches.micro_batches(1, 4))
    [again] = Batches(whisper, speech, config, CPU).micro_batches(3, 4)
    assert all(map(torch.equal, third.mels, again.mels))
    parts = [clip for part in batches.micro_batches(3, 2) for clip in clips_of(part)]
    # The same clips, in another order, however they are divided.
    assert sorted(map(checksum, parts)) == sorted(map(checksum, clips_of(third)))


def clip_names(batches, step):
    return [name for _, name in batches.rows(step)]


def checksum(clip):
    return (clip.shape[1], float(clip.double().sum()))


def test_clips_get_a_context_of_their_own_length_and_stand_with_their_labels(toy, speech):
    whisper = model.load(toy_whisper.config(toy))
    batches = Batches(whisper, speech, toy_whisper.config(toy), CPU)
    [batch] = batches.micro_batches(1, 4)
    frames = [group.shape[2] for group in batch.mels]
    assert frames == sorted(set(frames))
    assert len(frames) > 1
    assert sum(len(group) for group in batch.mels) == 4 == len(batch.decoder_inputs)
    rows = iter(batch.decoder_inputs)
    for group in batch.mels:
        for clip in group:
            ids = next(rows).tolist()[1:]
            [name] = [
                name
                for name in clip_names(batches, 1)
                if group.shape[2] == 2 * batches.context_rule.positions(batches.own.seconds[name])
                and torch.equal(clip, batches.own.mels.batch([name], group.shape[2])[0])
            ]
            assert ids[: len(batches.own.labels[name]) - 1] == batches.own.labels[name][:-1]
    by_row = (
        torch.full(batch.decoder_inputs.shape, -1).flatten().index_copy(0, batch.label_positions, batch.labels).tolist()
    )
    assert [label for label in by_row if label >= 0] == batch.labels.tolist()
    assert (
        batch.batch_label_count
        == len(batch.labels)
        == sum(len(batches.own.labels[name]) for name in clip_names(batches, 1))
    )


def test_on_a_gpu_parts_of_a_batch_take_about_as_much_memory_each(toy, speech):
    whisper = model.load(toy_whisper.config(toy))
    batches = Batches(whisper, speech, toy_whisper.config(toy), CPU)
    assert not batches.is_dealt
    frames = {}
    for batches.is_dealt in (False, True):
        parts = list(batches.micro_batches(1, 2))
        frames[batches.is_dealt] = [sum(group.shape[0] * group.shape[2] for group in part.mels) for part in parts]
        assert sum(len(part.labels) for part in parts) == parts[0].batch_label_count
    assert sum(frames[True]) == sum(frames[False])
    assert max(frames[True]) <= max(frames[False])


def test_augmentation_leaves_the_cached_features_alone(toy, speech):
    whisper = model.load(toy_whisper.config(toy))
    fixed = {"context_step": 0.0, "context_seconds": 2.0}
    batches = Batches(whisper, speech, toy_whisper.config(toy, **fixed, **AUGMENTED), CPU)
    before = batches.own.mels.batch(batches.own.names, 200)
    [plain] = Batches(whisper, speech, toy_whisper.config(toy, **fixed), CPU).micro_batches(1, 4)
    [augmented] = batches.micro_batches(1, 4)
    assert torch.equal(plain.mels[0], batches.own.mels.batch(clip_names(batches, 1), 200))
    assert not torch.equal(plain.mels[0], augmented.mels[0])
    assert torch.equal(before, batches.own.mels.batch(batches.own.names, 200))
