"""What a trial takes on a GPU: memory, time and disk of published models, and the README's table of them."""

from pathlib import Path

import pytest
import yaml

from tests.bench import gpu_table
from tests.support import toy_whisper
from tmsearch.cli.services.knobs import load_space
from tmsearch.config import TrainConfig
from tmsearch.model import cost
from tmsearch.model import whisper as model
from tmsearch.model.cost import Clips
from tmsearch.model_sizes import DIMENSIONS, Dimensions, dimensions

ROOT = Path(__file__).parents[3]
LARGE = DIMENSIONS["large-v3"]
CLIPS = Clips(context_seconds=6.7, label_tokens=40, validation=124)


def memory(micro_batch=16, shape=LARGE, **knobs):
    return cost.memory_bytes(shape, TrainConfig(batch_size=16, **knobs), CLIPS, micro_batch) / 1e9


def test_weights_gradients_and_moments_are_the_floor_of_memory():
    parameters = LARGE.parameters / 1e9
    assert memory(1) > 16 * parameters
    assert 8 * parameters < memory(1, low_memory=True) < 10 * parameters
    assert memory(1, optimizer="adamw_8bit") == pytest.approx(memory(1) - 6 * parameters, rel=0.01)
    assert memory(1, lora_r=32) < 7 * parameters


def test_each_saving_saves():
    # Gradients of the micro-batches before lie beside what the next one keeps, from the second on in float32: 8 may
    # take more than 16, and 4 more than 8.
    assert memory(16) > memory(8) > memory(1)
    assert memory(4) > memory(2) > memory(1)
    assert memory(16, gradient_checkpointing=True) < memory(16)
    assert memory(16, low_memory=True) < memory(16)
    assert memory(16, low_memory=True, gradient_checkpointing=True) < memory(16, low_memory=True)
    assert memory(4, freeze_encoder=True) < memory(4)


def test_an_average_is_another_copy_in_float32_whatever_the_weights_are_in():
    for knobs in ({}, {"low_memory": True}):
        averaged = memory(1, average_share=0.2, **knobs) - memory(1, **knobs)
        assert averaged == pytest.approx(4 * LARGE.parameters / 1e9, rel=0.01)
        config = TrainConfig(**knobs)
        more = cost.checkpoint_bytes(LARGE, TrainConfig(average_share=0.2, **knobs))
        assert more - cost.checkpoint_bytes(LARGE, config) == 4 * LARGE.parameters
    adapters = memory(1, average_share=0.2, lora_r=32) - memory(1, lora_r=32)
    assert adapters < 0.1 * averaged


def test_updates_of_an_average_are_a_small_part_of_a_step():
    card = cost.card_of(80)
    plain = cost.step_seconds(LARGE, TrainConfig(batch_size=16), CLIPS, card, 16)
    averaged = cost.step_seconds(LARGE, TrainConfig(batch_size=16, average_share=0.2), CLIPS, card, 16)
    assert plain < averaged < 1.04 * plain


def test_the_micro_batch_is_halved_until_it_fits_the_card():
    config = TrainConfig(batch_size=16, max_steps=800)
    on_80 = cost.trial_cost(LARGE, config, CLIPS, cost.card_of(80), 4)
    on_36 = cost.trial_cost(LARGE, config, CLIPS, cost.card_of(36), 4)
    on_24 = cost.trial_cost(LARGE, config, CLIPS, cost.card_of(24), 4)
    assert (on_80.micro_batch, on_80.fits) == (16, True)
    assert on_36.fits
    assert 1 <= on_36.micro_batch < 16
    assert not on_24.fits
    assert on_36.seconds > on_80.seconds
    assert on_80.checkpoint_bytes == 12 * LARGE.parameters


def test_checkpoints_hold_what_is_trained_in_its_format():
    def gigabytes(**knobs):
        return cost.checkpoint_bytes(LARGE, TrainConfig(**knobs)) / LARGE.parameters

    assert gigabytes() == 12
    assert gigabytes(exact_checkpoints=False) == 8
    assert gigabytes(low_memory=True) == 6
    assert gigabytes(optimizer="adamw_8bit") == pytest.approx(6, rel=0.01)
    assert gigabytes(lora_r=8) < 0.1


def test_gradient_checkpointing_makes_the_forward_pass_twice():
    card = cost.card_of(80)
    plain = cost.step_seconds(LARGE, TrainConfig(), CLIPS, card, 16)
    again = cost.step_seconds(LARGE, TrainConfig(gradient_checkpointing=True), CLIPS, card, 16)
    assert 1.15 * plain < again < 1.4 * plain


def test_cards_are_named_by_their_memory():
    names = [cost.card_of(size).name for size in (8, 16, 23.6, 40, 80, 141, 1000)]
    assert names == [
        "an RTX 4080", "an RTX 4080", "an RTX 4090", "an A100 of 40 GB", "an H100", "an H200", "an H200"
    ]  # fmt: skip
    assert cost.card_of(23.6).gigabytes == 23.6


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("openai/whisper-large-v3-turbo", "turbo"),
        ("distil-whisper/distil-large-v3.5", "distil-large-v3"),
        ("openai/whisper-large-v3", "large-v3"),
        ("openai/whisper-tiny.en", "tiny"),
    ],
)
def test_published_models_are_known_by_their_names(name, shape):
    assert dimensions(name) == DIMENSIONS[shape]
    assert dimensions("me/mine") is None


def test_dimensions_give_what_a_checkpoint_of_them_says(tmp_path):
    """The cost of a published model is that of its folder: init takes the first, the plan the second."""
    folder = toy_whisper.whisper_folder(tmp_path, toy_whisper.Shape(d_model=32, ffn=128))
    info = model.describe(str(folder))
    shape = Dimensions(info.parameters, 32, 2, 2, 80, info.vocab_size)
    config = TrainConfig(batch_size=4)
    assert cost.memory_bytes(shape, config, CLIPS, 4) == cost.memory_bytes(info, config, CLIPS, 4)
    card = cost.card_of(24)
    assert cost.trial_cost(shape, config, CLIPS, card, 2) == cost.trial_cost(info, config, CLIPS, card, 2)


def test_the_readmes_table_is_what_the_model_of_cost_says():
    """Else: python tests/bench/gpu_table.py --write."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.partition(gpu_table.BEGIN)[2].partition(gpu_table.END)[0] == "".join(gpu_table.table())
    assert "Predicted, until measured" in readme


@pytest.mark.parametrize("file", sorted((ROOT / "spaces").glob("*.yaml")), ids=lambda file: file.name)
def test_every_space_loads_with_its_commented_settings_too(file, tmp_path):
    text = file.read_text(encoding="utf-8")
    assert load_space(str(file), (), None).study == yaml.safe_load(text)["study"]
    knobs = set(TrainConfig.__dataclass_fields__)
    changed = []
    for line in text.splitlines():
        key, _, value = line.strip().removeprefix("# ").partition(":")
        if line.startswith("  # ") and key in knobs:
            changed.append(f"train.{key}={value.partition('#')[0].strip()}")
    assert changed or file.stem not in ("large_v3", "medium", "turbo", "distil")
    for change in changed:
        load_space(str(file), (change,), None)
