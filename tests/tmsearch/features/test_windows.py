"""Windows of several clips: what is heard, at which times, and what is learnt of it."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch

from tests.support import toy_whisper
from tmsearch import devices
from tmsearch.data.splits import Split
from tmsearch.features.batches import COMPILED_STEP, Batches
from tmsearch.features.windows import LEAST_GAP, Windows, longest_window
from tmsearch.model import whisper as model
from tmsearch.model.tokens import first_time_id, prompt_ids, special_id, text_ids

CPU = torch.device("cpu")
SAMPLES_A_TIME = 320  # 20 ms


@pytest.fixture(scope="module")
def nano():
    return model.load(toy_whisper.config("demo/nano"))  # hears 4 s and knows times


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    return toy_whisper.speech(toy_whisper.corpus_folder(folder / "corpus"), folder / "cache")


def config(**knobs):
    return toy_whisper.config("demo/nano", **{"window_share": 1.0, "window_prompts": 0.0, **knobs})


def windows(nano, speech, **knobs):
    return Windows(nano, speech, speech.split.train, config(**knobs))


def drawn(nano, speech, count=40, **knobs):
    source = windows(nano, speech, **knobs)
    names = speech.split.train
    return [source.draw(names[index % len(names)], 1 + index // 4, index % 4) for index in range(count)]


def parsed(window, nano):
    """The segments of timed labels: (start, text ids, end) in times; the end of a start time alone is None."""
    first = first_time_id(nano)
    end = special_id(nano, "<|endoftext|>")
    prompt = prompt_ids(nano, "en", "transcribe")[1:-1]
    assert window.labels[: len(prompt)] == prompt
    assert window.labels[-1] == end
    segments = []
    ids = window.labels[len(prompt) : -1]
    while ids:
        start, *ids = ids
        text = []
        while ids and ids[0] < first:
            text.append(ids.pop(0))
        segments.append((start - first, text, ids.pop(0) - first if ids else None))
    return segments


def test_each_text_stands_between_the_times_at_which_it_is_heard(nano, speech):
    cut = 0
    for window in drawn(nano, speech):
        segments = parsed(window, nano)
        assert [text for _, text, last in segments if last is not None] == [
            text_ids(nano, clip.text)
            for clip in speech.clips(window.names[: len(segments) - (segments[-1][2] is None)])
        ]
        for (start, _, end), name in zip(segments, window.names, strict=True):
            samples = speech.corpus.samples(name)
            heard = window.samples[start * SAMPLES_A_TIME :]
            if end is None:
                cut += 1
                assert len(samples) > len(heard) > 0
                assert len(window.samples) == 4 * 16_000, "only the end of what the model hears cuts a clip off"
            else:
                assert end > start
                assert abs((end - start) * SAMPLES_A_TIME - len(samples)) <= SAMPLES_A_TIME
            offset = best_offset(window.samples, samples, start * SAMPLES_A_TIME)
            assert abs(offset - start * SAMPLES_A_TIME) <= SAMPLES_A_TIME // 2
        times = [time for start, _, end in segments for time in (start, end) if time is not None]
        assert times == sorted(times)
        assert times[-1] * SAMPLES_A_TIME <= len(window.samples) + SAMPLES_A_TIME // 2
    assert 5 <= cut <= 35  # some windows end within a clip, others do not


def best_offset(samples, clip, near):
    """Where `clip` starts in `samples`, to the sample, at most 20 ms from `near`."""
    for offset in range(max(0, near - SAMPLES_A_TIME), near + SAMPLES_A_TIME + 1):
        length = min(len(clip), len(samples) - offset)
        if length > 0 and np.array_equal(samples[offset : offset + length], clip[:length]):
            return offset
    raise AssertionError("the clip is not where its time says")


def test_windows_hold_several_clips_no_more_than_the_model_hears_and_pauses_as_asked(nano, speech):
    made = drawn(nano, speech, window_gap=0.3)
    assert sum(len(window.names) > 1 for window in made) > 30
    assert all(len(window.samples) <= 4 * 16_000 for window in made)
    for window in made:
        segments = parsed(window, nano)
        pauses = [(later[0] - earlier[2]) * 0.02 for earlier, later in pairwise(segments)]
        assert all(LEAST_GAP - 0.021 <= pause <= 0.321 for pause in pauses)


def test_a_shorter_limit_holds_and_a_context_that_is_asked_for_limits_windows(nano, speech):
    assert all(len(window.samples) <= 2 * 16_000 for window in drawn(nano, speech, window_seconds=2.0))
    assert longest_window(config(context_seconds=3.0), 30.0) == 3.0
    assert longest_window(config(), 4.0) == 4.0


def test_a_window_without_times_has_none_and_ends_behind_a_whole_clip(nano, speech):
    for window in drawn(nano, speech, window_times=0.0):
        texts = [clip.text for clip in speech.clips(window.names)]
        ids = [index for text in texts for index in text_ids(nano, text)]
        assert window.labels == [*prompt_ids(nano, "en", "transcribe")[1:], *ids, special_id(nano, "<|endoftext|>")]
        assert max(window.labels) < first_time_id(nano)
        assert np.array_equal(window.samples[-6400:], speech.corpus.samples(window.names[-1])[-6400:])


def test_a_model_without_times_gets_windows_without_them(tmp_path, speech):
    toy = model.load(toy_whisper.config(toy_whisper.whisper_folder(tmp_path / "toy")))
    assert first_time_id(toy) is None
    source = Windows(toy, speech, speech.split.train, config(window_seconds=2.0, clip_times=1.0))
    assert source.draw(speech.split.train[0], 1, 0).labels[:3] == prompt_ids(toy, "en", "transcribe")[1:]
    assert source.timed_clip(speech.split.train[0], 1, 0, 1.0) is None


def test_the_text_before_stands_in_front_and_is_not_learnt(nano, speech):
    batches = Batches(nano, speech, config(window_prompts=1.0), CPU)
    start = special_id(nano, "<|startoftranscript|>")
    previous = special_id(nano, "<|startofprev|>")
    for step in range(1, 6):
        examples = {tuple(example.labels): example for example in batches.examples(step)}
        [batch] = batches.micro_batches(step, 4)
        tokens = batch.decoder_inputs.shape[1]
        assert tokens <= nano.model.config.max_target_positions
        learnt = batch.label_positions.tolist()
        labels = batch.labels.tolist()
        for row, inputs in enumerate(batch.decoder_inputs.tolist()):
            mine = [
                (place - row * tokens, label)
                for place, label in zip(learnt, labels, strict=True)
                if place // tokens == row
            ]
            places = [place for place, _ in mine]
            example = examples[tuple(label for _, label in mine)]
            assert inputs[0] == example.before[0] == previous
            assert places[0] == inputs.index(start) == len(example.before)  # nothing in front of it is learnt
            assert places == list(range(places[0], places[0] + len(places)))
            assert inputs[places[0] + 1 : places[-1] + 1] == list(example.labels[:-1])
        assert batch.batch_label_count == len(labels)


def test_the_text_before_has_times_where_the_window_has_and_is_cut_as_whisper_cuts_it(nano, speech):
    first = first_time_id(nano)
    timed = drawn(nano, speech, window_prompts=1.0)
    assert any(index >= first for window in timed for index in window.before)
    plain = drawn(nano, speech, window_prompts=1.0, window_times=0.0)
    assert all(index < first for window in plain for index in window.before)
    for window in [*timed, *plain]:
        assert 2 <= len(window.before) <= nano.model.config.max_target_positions // 2
        assert len(window.before) + len(window.labels) <= nano.model.config.max_target_positions


def test_the_probe_of_memory_is_about_as_long_as_the_longest_window(nano, speech):
    batches = Batches(nano, speech, config(window_prompts=1.0), CPU)
    longest = max(len(window.before) + len(window.labels) for window in drawn(nano, speech, 80, window_prompts=1.0))
    assert longest <= len(batches.longest_row()) <= nano.model.config.max_target_positions
    assert batches.context_rule.max_positions == 200  # 4 s
    assert batches.clip_rule.max_positions == 100  # the longest clip's


def test_shares_are_of_examples_and_the_others_stay_as_they_are(nano, speech):
    plain = Batches(nano, speech, config(window_share=0.0), CPU)
    mixed = Batches(nano, speech, config(window_share=0.5), CPU)
    windows_made = 0
    for step in range(1, 26):
        for before, after in zip(plain.examples(step), mixed.examples(step), strict=True):
            assert before.name == after.name
            windows_made += after.samples is not None
            assert after.samples is not None or before == after
    assert 35 <= windows_made <= 65


def test_times_of_single_clips_last_as_long_as_the_clip_at_its_speed(nano, speech):
    batches = Batches(nano, speech, config(window_share=0.0, clip_times=0.5, speed=0.2), CPU)
    first = first_time_id(nano)
    timed = [example for step in range(1, 11) for example in batches.examples(step) if max(example.labels) >= first]
    assert 10 <= len(timed) <= 30
    for example in timed:
        times = [label - first for label in example.labels if label >= first]
        assert times == [0, round(len(example.samples) / SAMPLES_A_TIME)]
        assert special_id(nano, "<|notimestamps|>") not in example.labels


def test_clips_of_a_session_stand_in_their_order(nano, speech):
    in_session = [dataclasses.replace(clip, group=(*clip.group, "session=a")) for clip in speech.corpus.clips]
    corpus = dataclasses.replace(speech.corpus, clips=tuple(in_session))
    session = dataclasses.replace(speech, corpus=corpus)
    names = list(session.split.train)
    for window in drawn(nano, session, window_prompts=1.0):
        start = names.index(window.names[0])
        expected = names[start : start + len(window.names)]
        assert list(window.names[: len(expected)]) == expected


def test_held_out_clips_are_in_no_window(nano, speech):
    held_out = set(speech.split.validation)
    assert held_out
    for window in drawn(nano, speech, 80, window_prompts=1.0):
        assert not held_out & set(window.names)
    texts = {clip.text for clip in speech.clips(sorted(held_out))}
    assert not texts & {clip.text for clip in speech.clips(speech.split.train)}


def test_a_window_depends_on_its_step_and_index_alone(nano, speech):
    knobs = {"window_prompts": 0.5, "speed": 0.1, "throat_filter": 0.5}
    source = windows(nano, speech, **knobs)
    name = speech.split.train[0]
    third = source.draw(name, 3, 1)
    source.draw(name, 1, 0)
    again = windows(nano, speech, **knobs).draw(name, 3, 1)
    assert (third.labels, third.before, third.names) == (again.labels, again.before, again.names)
    assert np.array_equal(third.samples, again.samples)
    assert not np.array_equal(third.samples[:100], source.draw(name, 3, 2).samples[:100])


def test_windows_are_encoded_at_their_own_length(nano, speech):
    batches = Batches(nano, speech, config(window_share=0.5), CPU)
    for step in range(1, 4):
        [batch] = batches.micro_batches(step, 4)
        frames = [group.shape[2] for group in batch.mels]
        assert frames == sorted(set(frames))
        expected = sorted(2 * example.positions for example in batches.examples(step))
        assert [group.shape[2] for group in batch.mels for _ in range(len(group))] == expected


def test_one_clip_to_train_on_is_enough(nano, speech):
    alone = dataclasses.replace(speech, split=Split(speech.split.train[:1], speech.split.validation, ()))
    window = Windows(nano, alone, alone.split.train, config()).draw(alone.split.train[0], 1, 0)
    assert set(window.names) == set(alone.split.train)


def test_a_batch_is_as_long_as_its_longest_text_unless_graphs_are_compiled(nano, speech, monkeypatch):
    knobs = {"window_share": 0.5, "clip_times": 0.5, "batch_size": 16}
    plain = Batches(nano, speech, config(**knobs), torch.device("cpu"))
    examples = plain.examples(1)
    longest = max(len(example.before) + len(example.labels) for example in examples)
    [batch] = plain.micro_batches(1, 16)
    assert batch.decoder_inputs.shape[1] == longest
    monkeypatch.setattr(devices, "uses_compile", lambda config, device: True)
    compiled = Batches(nano, speech, config(**knobs), torch.device("cpu"))
    [batch] = compiled.micro_batches(1, 16)
    # Whole steps of length, and never more tokens than the decoder has positions.
    most = nano.model.config.max_target_positions
    assert longest <= batch.decoder_inputs.shape[1] == min(-(-longest // COMPILED_STEP) * COMPILED_STEP, most) <= most
    assert most % COMPILED_STEP, "or the limit was not reached"
