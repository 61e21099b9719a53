import dataclasses
import math

import pytest
import torch

from tests.support import toy_whisper
from tmsearch.data.splits import Split
from tmsearch.errors import CheckpointError, InputError
from tmsearch.model import whisper as model
from tmsearch.training import checkpoints, saving, train
from tmsearch.training.state import DivergenceError, fingerprint
from tmsearch.training.train import ModelCache, TrainingStoppedError

AUGMENTED = {
    "spec_time_masks": 2,
    "spec_freq_masks": 2,
    "speed": 0.1,
    "level_db": 6.0,
    "throat_filter": 0.5,
}
EVERYTHING = {"lora_r": 2, "dropout": 0.1, "attention_dropout": 0.1, "stochastic_depth": 0.3, **AUGMENTED}
REGULARISED = {"dropout": 0.2, "stochastic_depth": 0.3, "label_smoothing": 0.1, "layer_decay": 0.8, "weight_decay": 0.1}

ODD = (
    {"lora_r": 2, "lora_dropout": 0.3},
    {"low_memory": True},
    {"freeze_encoder": True, "dropout": 0.3, "stochastic_depth": 0.4},
    {"attention_dropout": 0.2, "freeze_encoder_layers": 1},
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    return toy_whisper.speech(toy_whisper.corpus_folder(folder / "corpus"), folder / "cache")


def quiet(progress):
    pass


def tensors(folder):
    saved = checkpoints.load(folder)
    return {f"{group}/{name}": value for group, named in saved.tensors.items() for name, value in named.items()}


def differing(first, second):
    first, second = tensors(first), tensors(second)
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


@pytest.mark.parametrize(
    "knobs",
    [{}, REGULARISED, EVERYTHING, {"precision": "bf16", "dropout": 0.1}, {"low_memory": True, "dropout": 0.1}],
    ids=["plain", "regularised", "everything", "bf16", "low memory"],
)
def test_a_training_in_pieces_equals_the_unbroken_one_to_the_bit(toy, speech, tmp_path, knobs):
    config = toy_whisper.config(toy, **knobs)
    whole = train.train(config, speech, toy_whisper.stretch(tmp_path / "whole", 7), quiet)
    # Stopped in the middle of an epoch, then a rung, then stopped again.
    with pytest.raises(TrainingStoppedError) as first:
        train.train(config, speech, toy_whisper.stretch(tmp_path / "parts", 5), quiet, stop=lambda: True)
    assert first.value.step == 1
    rung = toy_whisper.stretch(tmp_path / "parts", 5, checkpoint=first.value.saved)
    at_rung = train.train(config, speech, rung, quiet)
    last = toy_whisper.stretch(tmp_path / "parts", 7, first_step=5, checkpoint=at_rung.checkpoint)
    with pytest.raises(TrainingStoppedError) as second:
        train.train(config, speech, last, quiet, stop=lambda: True)
    last = toy_whisper.stretch(tmp_path / "parts", 7, first_step=5, checkpoint=second.value.saved)
    parts = train.train(config, speech, last, quiet)

    assert differing(whole.checkpoint, parts.checkpoint) == []
    assert (whole.wer, whole.wer_raw, whole.cer, whole.scores) == (parts.wer, parts.wer_raw, parts.cer, parts.scores)


def test_the_comparison_above_can_fail(toy, speech, tmp_path):
    first = train.train(toy_whisper.config(toy), speech, toy_whisper.stretch(tmp_path / "one", 2), quiet)
    second = train.train(toy_whisper.config(toy, seed=1), speech, toy_whisper.stretch(tmp_path / "other", 2), quiet)
    assert differing(first.checkpoint, second.checkpoint)


def test_a_warm_process_forgets_what_it_trained_before(toy, speech, tmp_path):
    config = toy_whisper.config(toy, **EVERYTHING)
    first = train.train(config, speech, toy_whisper.stretch(tmp_path / "first", 2), quiet)
    train.train(
        toy_whisper.config(toy, freeze_encoder=True, seed=9), speech, toy_whisper.stretch(tmp_path / "else", 3), quiet
    )
    again = train.train(config, speech, toy_whisper.stretch(tmp_path / "again", 2), quiet)
    assert differing(first.checkpoint, again.checkpoint) == []


def test_a_checkpoint_at_the_last_step_is_only_scored(toy, speech, tmp_path):
    config, reported = toy_whisper.config(toy), []
    done = train.train(config, speech, toy_whisper.stretch(tmp_path, 3), quiet)
    again = train.train(config, speech, toy_whisper.stretch(tmp_path, 3, checkpoint=done.checkpoint), reported.append)
    assert reported == []
    assert again.scores == done.scores
    assert again.train_seconds == done.train_seconds > 0
    assert again.checkpoint == done.checkpoint == tmp_path / "step-000003"


def test_a_stop_while_scoring_keeps_what_was_trained(toy, speech, tmp_path):
    config, answers = toy_whisper.config(toy), iter([False, False, True])
    with pytest.raises(TrainingStoppedError) as stopped:
        train.train(config, speech, toy_whisper.stretch(tmp_path, 2), quiet, stop=lambda: next(answers))
    assert (stopped.value.step, stopped.value.saved) == (2, tmp_path / "step-000002")
    resumed = toy_whisper.stretch(tmp_path, 2, checkpoint=stopped.value.saved)
    assert train.train(config, speech, resumed, pytest.fail).step == 2


def test_checkpoints_on_the_way_make_room_for_newer_ones(toy, speech, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "SHARE", math.inf)  # however long saving takes
    steps = []

    def look(progress):
        steps.append(sorted(checkpoints.step_of(path) for path in tmp_path.glob("step-*")))

    train.train(toy_whisper.config(toy), speech, toy_whisper.stretch(tmp_path, 7, save_seconds=1e-9), look)
    # Written beside the training: the newest one may not be there yet, the one before may not have gone.
    for step, there in enumerate(steps, start=1):
        assert len(there) <= 2, steps
        assert set(there) <= {step - 3, step - 2, step - 1}, steps
    assert any(steps)
    assert [checkpoints.step_of(path) for path in tmp_path.glob("step-*")] == [7]


@pytest.mark.parametrize(("knobs", "corpus"), [({"learning_rate": 0.02}, None), ({}, "other")])
def test_a_checkpoint_of_another_training_is_refused(toy, speech, tmp_path, knobs, corpus):
    done = train.train(toy_whisper.config(toy), speech, toy_whisper.stretch(tmp_path, 1), quiet)
    if corpus:
        speech = dataclasses.replace(speech, corpus=dataclasses.replace(speech.corpus, fingerprint=corpus))
    with pytest.raises(CheckpointError, match="made with another"):
        train.train(
            toy_whisper.config(toy, **knobs),
            speech,
            toy_whisper.stretch(tmp_path, 2, checkpoint=done.checkpoint),
            quiet,
        )


def test_micro_batches_add_up_to_the_batch(toy, speech, tmp_path):
    """Of unequal label lengths: a mean of the means would be off by far more than rounding."""
    curves = []
    for micro_batch in (8, 4, 3):
        curve = []
        stretch = toy_whisper.stretch(tmp_path / str(micro_batch), 3, micro_batch=micro_batch)
        train.train(toy_whisper.config(toy, batch_size=8, **AUGMENTED), speech, stretch, curve.append)
        curves.append([number for metrics in curve for number in (metrics.loss, metrics.grad_norm)])
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    assert curves[2] == pytest.approx(curves[0], rel=1e-4)


@pytest.mark.parametrize("context", ["own", "cut", "whole"])
def test_golden_loss_curve(toy, speech, tmp_path, context):
    curve = []
    knobs = {
        "own": {},
        "cut": {"context_silence": False},
        "whole": {"context_seconds": 2.0, "context_step": 0.0},
    }
    train.train(toy_whisper.config(toy, **knobs[context]), speech, toy_whisper.stretch(tmp_path, 4), curve.append)
    assert [metrics.loss for metrics in curve] == pytest.approx(GOLDEN_LOSSES[context], rel=2e-3)
    assert [metrics.learning_rate for metrics in curve] == pytest.approx([5e-3, 1e-2, 1e-2 * 6 / 7, 1e-2 * 5 / 7])


# `whole` was recorded with transformers' own forward pass and autograd's own gradients.
GOLDEN_LOSSES = {
    "whole": [6.3678, 5.7816, 5.3288, 4.9117],
    "own": [6.3690, 5.7804, 5.3296, 4.9126],
    "cut": [6.4885, 5.8079, 5.2566, 4.9869],
}

CHANGED = {
    "batch_size": 3,
    "learning_rate": 0.02,
    "warmup_steps": 0,
    "schedule": "constant",
    "weight_decay": 0.5,
    "adam_beta1": 0.5,
    "adam_beta2": 0.9,
    "adam_epsilon": 1e-3,
    "max_grad_norm": 0.1,
    "layer_decay": 0.5,
    "label_smoothing": 0.2,
    "dropout": 0.3,
    "attention_dropout": 0.3,
    "stochastic_depth": 0.5,
    "freeze_encoder": True,
    "freeze_encoder_layers": 1,
    "lora_r": 2,
    "normalize_audio": True,
    "spec_time_masks": 2,
    "spec_freq_masks": 2,
    "speed": 0.2,
    "level_db": 12.0,
    "throat_filter": 1.0,
    "context_step": 0.0,
    "context_silence": False,
    "low_memory": True,
    "max_steps": 20,
    "seed": 1,
}


ADAPTERS = {"lora_r": 3, "lora_alpha": 8.0, "lora_dropout": 0.5, "lora_targets": "q_proj,fc1"}


def test_every_knob_of_training_changes_what_is_learnt(toy, speech, tmp_path):
    """Against dead knobs: a setting that is searched and does nothing costs every study its GPU time."""

    def learnt(folder, **knobs):
        done = train.train(toy_whisper.config(toy, **knobs), speech, toy_whisper.stretch(tmp_path / folder, 3), quiet)
        return checkpoints.load(done.checkpoint).tensors["weights"]

    def same(first, second):
        return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)

    full, adapted = learnt("full"), learnt("adapted", lora_r=2)
    dead = [name for name, value in CHANGED.items() if same(full, learnt(name, **{name: value}))]
    fixed = learnt("fixed", context_step=0.0)
    dead += ["context_seconds"] if same(fixed, learnt("shorter", context_step=0.0, context_seconds=1.8)) else []
    dead += [
        name for name, value in ADAPTERS.items() if same(adapted, learnt(name + "2", **{"lora_r": 2, name: value}))
    ]
    assert dead == []


def test_only_what_is_trained_is_kept(toy, speech, tmp_path):
    def trained_names(folder, **knobs):
        done = train.train(toy_whisper.config(toy, **knobs), speech, toy_whisper.stretch(tmp_path / folder, 1), quiet)
        return set(checkpoints.load(done.checkpoint).tensors["weights"])

    everything = trained_names("everything")
    assert not any("encoder.embed_positions" in name for name in everything)
    decoder = trained_names("decoder", freeze_encoder=True)
    assert decoder == {name for name in everything if name.startswith("model.decoder.")}
    upper = trained_names("upper", freeze_encoder_layers=1)
    held = ("model.encoder.conv", "model.encoder.layers.0.")
    assert upper == {name for name in everything if not name.startswith(held)}
    assert trained_names("more", freeze_encoder_layers=99) >= decoder | {"model.encoder.layer_norm.weight"}
    adapters = trained_names("adapters", lora_r=2, freeze_encoder_layers=1)
    assert adapters
    assert all(".lora_" in name and not name.startswith(held) for name in adapters)


def test_what_a_checkpoint_takes_is_known_before_it_is_written(toy, speech, tmp_path):
    """Of adapters their own weights and moments alone; of inexact ones the moments in two bytes each."""
    sizes = []
    for number, knobs in enumerate(({}, {"exact_checkpoints": False}, {"low_memory": True}, {"lora_r": 2})):
        cache = ModelCache()
        stretch = toy_whisper.stretch(tmp_path / str(number), 1)
        saved = train.train(toy_whisper.config(toy, **knobs), speech, stretch, quiet, model_cache=cache).checkpoint
        content = checkpoints.load(saved).tensors
        written = sum(tensor.nbytes for group in ("weights", "moments") for tensor in content[group].values())
        assert cache._state.checkpoint_bytes == pytest.approx(written, rel=0.01)
        sizes.append(written)
    full, inexact, low, adapters = sizes
    assert inexact == pytest.approx(2 / 3 * full, rel=0.02)
    assert low == pytest.approx(full / 2, rel=0.02)
    assert adapters < 0.1 * full


def test_a_wrong_adapter_name_is_said(toy, speech, tmp_path):
    with pytest.raises(InputError, match=r"lora_targets: q_prj: no such module; there are fc1, fc2, k_proj"):
        train.train(
            toy_whisper.config(toy, lora_r=2, lora_targets="q_prj"), speech, toy_whisper.stretch(tmp_path, 1), quiet
        )


def test_a_runaway_training_ends_with_its_step_and_loss(toy, speech, tmp_path):
    config = toy_whisper.config(toy, learning_rate=10.0, max_grad_norm=0.0, max_steps=60, warmup_steps=0)
    with pytest.raises(DivergenceError, match=r"step \d+: the (loss|gradient)"):
        train.train(config, speech, toy_whisper.stretch(tmp_path, 60), quiet)
    assert checkpoints.latest(tmp_path) is None


def test_clips_that_the_model_cannot_take_stop_the_training_by_name(toy, tmp_path):
    long = toy_whisper.speech(
        toy_whisper.corpus_folder(tmp_path / "long", toy_whisper.TEXTS[:5], seconds=2.5), tmp_path / "cache"
    )
    with pytest.raises(InputError, match=r"000\.flac.*longer than the 2 s that the encoder takes; raise context_seco"):
        train.train(toy_whisper.config(toy), long, toy_whisper.stretch(tmp_path, 1), quiet)
    to_score = toy_whisper.speech(toy_whisper.corpus_folder(tmp_path / "mixed"), tmp_path / "cache")
    to_score = dataclasses.replace(to_score, split=Split(train=("000.flac",), validation=("011.flac",), test=()))
    with pytest.raises(InputError, match=r"^011\.flac: longer than the 1 s"):
        train.train(
            toy_whisper.config(toy, context_seconds=1.0), to_score, toy_whisper.stretch(tmp_path, 1), pytest.fail
        )
    wordy = (*toy_whisper.TEXTS[:5], "word " * 20)
    speech = toy_whisper.speech(toy_whisper.corpus_folder(tmp_path / "wordy", wordy), tmp_path / "cache", validation=1)
    with pytest.raises(InputError, match=r"^005\.flac: text longer than 64 tokens; shorten or drop it$"):
        train.train(toy_whisper.config(toy), speech, toy_whisper.stretch(tmp_path, 1), quiet)


def test_one_and_one_point_zero_are_the_same_config(toy):
    assert fingerprint(toy_whisper.config(toy, level_db=1)) == fingerprint(toy_whisper.config(toy, level_db=1.0))
    assert fingerprint(toy_whisper.config(toy, level_db=1)) != fingerprint(toy_whisper.config(toy, level_db=2))


def weights(folder):
    return checkpoints.load(folder).tensors["weights"]


def same_weights(first, second):
    first = weights(first)
    second = weights(second)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("before", ODD, ids=str)
def test_a_training_does_not_depend_on_the_one_before_it(toy, speech, tmp_path, before):
    config = toy_whisper.config(toy, dropout=0.1)
    cold = train.train(config, speech, toy_whisper.stretch(tmp_path / "cold", 3), quiet)
    cache = ModelCache()
    train.train(
        toy_whisper.config(toy, **before),
        speech,
        toy_whisper.stretch(tmp_path / "before", 3),
        quiet,
        model_cache=cache,
    )
    after = train.train(config, speech, toy_whisper.stretch(tmp_path / "after", 3), quiet, model_cache=cache)
    assert same_weights(cold.checkpoint, after.checkpoint)
    assert cold.scores == after.scores
    if before == ODD[0]:  # and the adapters come back
        train.train(
            toy_whisper.config(toy, **before),
            speech,
            toy_whisper.stretch(tmp_path / "again", 3),
            quiet,
            model_cache=cache,
        )
        assert same_weights(tmp_path / "before/step-000003", tmp_path / "again/step-000003")


def test_the_same_model_is_read_from_the_disk_once(toy, speech, tmp_path, monkeypatch):
    loaded = []
    load = model.load
    monkeypatch.setattr(train.model, "load", lambda config: loaded.append(config.model) or load(config))
    cache = ModelCache()
    for number, rate in enumerate((1e-3, 1e-2)):
        config = toy_whisper.config(toy, learning_rate=rate)
        train.train(config, speech, toy_whisper.stretch(tmp_path / str(number), 2), quiet, model_cache=cache)
    assert loaded == [str(toy)]
    other = toy_whisper.whisper_folder(tmp_path / "other", seed=5)
    train.train(toy_whisper.config(other), speech, toy_whisper.stretch(tmp_path / "2", 2), quiet, model_cache=cache)
    assert loaded == [str(toy), str(other)]


def test_the_next_rung_resumes_without_reading_its_checkpoint(toy, speech, tmp_path, monkeypatch):
    config = toy_whisper.config(toy, dropout=0.2, speed=0.1)
    whole = train.train(config, speech, toy_whisper.stretch(tmp_path / "whole", 6), quiet)
    cache = ModelCache()
    rung = train.train(config, speech, toy_whisper.stretch(tmp_path / "rungs", 3), quiet, model_cache=cache)
    torch.rand(5)  # whatever else draws random numbers meanwhile
    further = toy_whisper.stretch(tmp_path / "rungs", 6, first_step=3, checkpoint=rung.checkpoint)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "load", pytest.fail)
        done = train.train(config, speech, further, quiet, model_cache=cache)
    assert same_weights(whole.checkpoint, done.checkpoint)
    assert whole.scores == done.scores
    assert 0 < done.train_seconds < whole.train_seconds + rung.train_seconds


def test_the_state_of_another_configuration_or_checkpoint_is_not_resumed(toy, speech, tmp_path):
    config = toy_whisper.config(toy)
    cache = ModelCache()
    rung = train.train(config, speech, toy_whisper.stretch(tmp_path, 2), quiet, model_cache=cache)
    # The same configuration from its beginning: the kept state is at step 2.
    again = train.train(config, speech, toy_whisper.stretch(tmp_path / "again", 2), quiet, model_cache=cache)
    assert same_weights(rung.checkpoint, again.checkpoint)
    stretch = toy_whisper.stretch(tmp_path, 3, checkpoint=rung.checkpoint)
    with pytest.raises(CheckpointError, match="made with another config"):
        train.train(toy_whisper.config(toy, seed=4), speech, stretch, quiet, model_cache=cache)
