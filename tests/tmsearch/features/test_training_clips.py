"""Batches with extra speech, noise and split texts: in their shares, and nothing of it where clips are scored."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch

from tests.support import toy_whisper
from tests.support.audio_files import RecordedClip, voice, write_recordings
from tmsearch.config import DataConfig, ExtraData
from tmsearch.data.augmentation.supplement import Supplement, load_supplement
from tmsearch.data.corpus import load
from tmsearch.errors import InputError
from tmsearch.features import log_mel
from tmsearch.features.batches import Batches
from tmsearch.model import whisper as model
from tmsearch.model.tokens import first_time_id, special_id

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def nano():
    return model.load(toy_whisper.config("demo/nano"))  # hears 4 s and knows times


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    return toy_whisper.speech(toy_whisper.corpus_folder(folder / "corpus"), folder / "cache")


@pytest.fixture(scope="module")
def speech(plain, tmp_path_factory):
    """The same with two sets of extra speech, one of them heard as if through the other microphone, and noise."""
    folder = tmp_path_factory.mktemp("beside")
    hiss = np.random.default_rng(1)
    for name, count in (("calm", 5), ("loud", 3)):
        clips = []
        for index in range(count):
            length = 1.0 + 0.5 * index  # the last of `calm` lasts 3 s, longer than any clip of the corpus
            samples = voice(length, pitch=90.0 + 20 * index, noise=hiss)
            clips.append(RecordedClip(f"{name}{index}.wav", f"extra {name} {'abcde'[index]}", samples))
        write_recordings(folder / name, clips)
    (folder / "noise").mkdir()
    soundfile.write(folder / "noise/hiss.flac", 0.1 * hiss.standard_normal(40_000), 16_000)
    data = DataConfig(
        dataset="corpus",
        extra=(ExtraData(str(folder / "calm"), 0.3, throat=True), ExtraData(str(folder / "loud"), 0.1)),
        noise=str(folder / "noise"),
    )
    return dataclasses.replace(plain, supplement=load_supplement(data, plain.corpus, plain.split, load))


def config(**knobs):
    return toy_whisper.config("demo/nano", **knobs)


def names_of(batches, steps):
    return [name for step in range(1, steps + 1) for _, name in batches.rows(step)]


def test_rows_of_extra_speech_have_their_share_and_each_clip_its_turn(nano, speech):
    batches = Batches(nano, speech, config(), CPU)
    names = names_of(batches, 50)
    assert len(names) == 200
    counts = Counter(name[:4] for name in names)
    assert (counts["calm"], counts["loud"]) == (60, 20)
    turns = Counter(name for name in names if name.startswith("calm"))
    assert set(turns.values()) == {12}
    assert all(len(batches.rows(step)) == 4 for step in range(1, 20))
    assert len({len([name for _, name in batches.rows(step) if name[:4] == "calm"]) for step in range(1, 20)}) == 2


def test_the_studys_own_clips_keep_their_order(nano, plain, speech):
    alone = names_of(Batches(nano, plain, config(), CPU), 30)
    beside = [name for name in names_of(Batches(nano, speech, config(), CPU), 50) if name[0].isdigit()]
    assert beside == alone[: len(beside)] == alone
    without = Batches(nano, speech, config(extra_share=0.0), CPU)
    assert names_of(without, 30) == alone
    assert without.extra == [None, None]
    half = Counter(name[:4] for name in names_of(Batches(nano, speech, config(extra_share=0.8), CPU), 50))
    assert (half["calm"], half["loud"]) == (120, 40)


def test_a_batch_depends_on_its_step_and_the_seed_alone(nano, speech):
    knobs = {"noise_db": 5.0, "bpe_dropout": 0.2, "window_share": 0.5, "clip_times": 0.5, "speed": 0.1}
    first = Batches(nano, speech, config(**knobs), CPU)
    list(first.micro_batches(7, 4))
    [third] = first.micro_batches(3, 4)
    [again] = Batches(nano, speech, config(**knobs), CPU).micro_batches(3, 4)
    assert all(torch.equal(*pair) for pair in zip(third.mels, again.mels, strict=True))
    assert torch.equal(third.labels, again.labels)
    [other] = Batches(nano, speech, config(**knobs, seed=1), CPU).micro_batches(3, 4)
    assert not torch.equal(third.labels, other.labels)


def test_longer_extra_clips_are_heard_whole_and_too_long_ones_left_out(nano, speech):
    batches = Batches(nano, speech, config(), CPU)
    assert "calm4.wav" in batches.extra[0].names
    longest = next(
        example for step in range(1, 30) for example in batches.examples(step) if example.name == "calm4.wav"
    )
    assert longest.positions >= 50 * 3 > batches.clip_rule.max_positions
    assert batches.context_rule.max_positions >= longest.positions
    short = Batches(nano, speech, config(context_seconds=1.8), CPU)
    assert short.extra[0].names == ["calm0.wav", "calm1.wav"]
    too_long = dataclasses.replace(speech.supplement.extra[1], names=("loud2.wav",))
    alone = dataclasses.replace(speech, supplement=Supplement((too_long,)))
    with pytest.raises(InputError, match=r"^data.extra: .*loud: no clip of it is short enough for"):
        Batches(nano, alone, config(context_seconds=1.8), CPU)


def test_extra_clips_are_heard_by_the_learnt_filter(nano, speech):
    entry = speech.supplement.extra[0]
    recorded = dataclasses.replace(entry.corpus, change=None).samples("calm0.wav")
    expected = log_mel.from_samples([entry.response.apply(recorded)], nano.extractor, 100)
    [filtered, _] = Batches(nano, speech, config(), CPU).extra
    assert torch.allclose(filtered.mels.batch(["calm0.wav"], 100), expected, atol=1e-5)
    assert not torch.allclose(log_mel.from_samples([recorded], nano.extractor, 100), expected, atol=0.1)


def test_noise_is_under_its_share_of_the_examples_windows_included(nano, speech):
    quiet = Batches(nano, speech, config(window_share=0.5), CPU)
    noisy = Batches(nano, speech, config(window_share=0.5, noise_db=10.0, noise_share=0.6), CPU)
    changed = []
    for step in range(1, 26):
        for before, after in zip(quiet.examples(step), noisy.examples(step), strict=True):
            assert (before.name, before.labels, before.positions) == (after.name, after.labels, after.positions)
            clean = before.samples
            if clean is None:
                source = noisy.own if before.name[0].isdigit() else noisy.extra["loud" in before.name]
                clean = source._corpus.samples(before.name)
            if after.samples is None or np.array_equal(clean, after.samples):
                changed.append(False)
                continue
            ratio = np.mean(np.square(clean)) / np.mean(np.square(after.samples - clean))
            assert 10 * np.log10(ratio) == pytest.approx(10.0, abs=0.01)
            changed.append(True)
    assert 0.45 < np.mean(changed) < 0.75


def test_split_texts_say_the_same_in_clips_and_windows(nano, speech):
    times = first_time_id(nano)
    start = special_id(nano, "<|endoftext|>")
    plain = Batches(nano, speech, config(window_share=0.5, window_prompts=0.0, clip_times=0.3), CPU)
    split = Batches(nano, speech, config(window_share=0.5, window_prompts=0.0, clip_times=0.3, bpe_dropout=0.2), CPU)
    longer = 0
    for step in range(1, 16):
        for before, after in zip(plain.examples(step), split.examples(step), strict=True):
            texts = []
            for labels in (before.labels, after.labels):
                assert len(labels) <= nano.model.config.max_target_positions
                texts.append(nano.tokenizer.decode([index for index in labels if index < min(start, times)]))
            if before.samples is None or len(before.samples) == len(after.samples):
                assert texts[0] == texts[1]
            longer += len(after.labels) > len(before.labels)
    assert longer > 30
    assert len(split.longest_row()) >= max(len(e.labels) for step in range(1, 16) for e in split.examples(step))


def test_what_is_scored_knows_nothing_of_it(nano, plain, speech):
    knobs = {"noise_db": 0.0, "noise_share": 1.0, "bpe_dropout": 0.5, "spec_time_masks": 2, "extra_share": 0.9}
    names = plain.split.validation
    Batches(nano, speech, config(**knobs), CPU).examples(1)
    mels = [source.mels(names, nano, config(**knobs)).batch(names, 400) for source in (plain, speech)]
    assert mels[0].numpy().tobytes() == mels[1].numpy().tobytes()
    assert plain.label_ids(names, nano) == speech.label_ids(names, nano)
    assert plain.context_rule(nano, config(**knobs)) == speech.context_rule(nano, config(**knobs))
    assert plain.fingerprint == plain.corpus.fingerprint == speech.corpus.fingerprint != speech.fingerprint


def test_knobs_without_what_they_need_are_refused(nano, plain):
    for knobs in ({"noise_db": 10.0}, {"extra_share": 0.5}):
        with pytest.raises(InputError, match=r"^train\.(noise_db|extra_share): "):
            Batches(nano, plain, config(**knobs), CPU)
