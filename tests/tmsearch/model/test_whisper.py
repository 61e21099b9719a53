import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import WhisperForConditionalGeneration

from tests.support import toy_whisper
from tests.support.hub_server import Hub, hub_environment, refusing_url
from tmsearch.config import TrainConfig
from tmsearch.demo.paths import DEMO
from tmsearch.errors import InputError
from tmsearch.model import trainable
from tmsearch.model import whisper as model

ROOT = Path(__file__).parents[3]
MICRO = DEMO / "micro"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def copied(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def load(path, **knobs):
    return model.load(toy_whisper.config(path, **knobs))


def weights(whisper):
    return {name: value.clone() for name, value in whisper.model.state_dict().items()}


def test_a_half_precision_checkpoint_is_loaded_in_float32_with_sdpa(folder, tmp_path):
    half = WhisperForConditionalGeneration.from_pretrained(folder).half()
    shutil.copytree(folder, tmp_path / "half")
    half.save_pretrained(tmp_path / "half")
    whisper = load(tmp_path / "half")
    assert {weight.dtype for weight in whisper.model.parameters()} == {torch.float32}
    assert whisper.model.config._attn_implementation == "sdpa"
    assert (whisper.positions, whisper.seconds) == (100, 2.0)
    assert whisper.is_multilingual


def test_what_old_checkpoints_force_is_removed(tmp_path):
    whisper = load(toy_whisper.whisper_folder(tmp_path, old_style=True))
    assert getattr(whisper.model.generation_config, "forced_decoder_ids", None) is None
    assert getattr(whisper.model.config, "forced_decoder_ids", None) is None
    assert whisper.model.config.apply_spec_augment is False


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: (path / "config.json").unlink(), "no config.json in it"),
        (lambda path: (path / "config.json").write_text("{"), "config.json: not readable as JSON"),
        (lambda path: (path / "config.json").write_text("[1]"), "config.json: holds no JSON object"),
        (lambda path: (path / "config.json").write_text('{"model_type": "bert"}'), "type bert, not a Whisper"),
        (lambda path: (path / "config.json").write_text("{}"), "type None, not a Whisper"),
        (lambda path: (path / "model.safetensors").unlink(), "no model.safetensors in it; weights are read from saf"),
        (lambda path: cut(path / "model.safetensors", -1), "model.safetensors is cut or damaged"),
        (lambda path: cut(path / "model.safetensors", 40), "model.safetensors is cut or damaged"),
        (lambda path: cut(path / "model.safetensors", 0), "model.safetensors is cut or damaged"),
        (lambda path: edit(path, d_model=32), "config.json says"),
        (lambda path: edit(path, decoder_layers=3), "no weight model.decoder.layers.2."),
        (lambda path: edit(path, d_model="wide"), "not a Whisper's settings"),
        (lambda path: (path / "tokenizer.json").unlink(), "no usable tokenizer|tokenizer is not that"),
        (lambda path: edit(path, decoder_start_token_id=5), "tokenizer is not that of its config.json"),
        (lambda path: (path / "preprocessor_config.json").unlink(), "no usable preprocessor_config.json"),
        (
            lambda path: edit(path, "preprocessor_config.json", feature_size=128),
            "makes 128 mel bins, config.json wants",
        ),
    ],
)
def test_a_broken_folder_is_reported_in_one_line(copied, spoil, message, capfd):
    spoil(copied)
    with pytest.raises(InputError, match=message) as error:
        load(copied)
    assert str(copied) in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 500
    assert capfd.readouterr().err == ""


def cut(file, size):
    file.write_bytes(file.read_bytes()[:size])


def edit(path, name="config.json", **changes):
    content = json.loads((path / name).read_text())
    (path / name).write_text(json.dumps(content | changes))


def test_names_that_are_nowhere_are_reported_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    for name, message in [
        (str(tmp_path / "file"), "a file, not a model folder"),
        ("demo/none", "no such embedded model; there are"),
        ("a/b/c", "neither a folder here nor a model's name"),
    ]:
        with pytest.raises(InputError, match=message):
            load(name)


def test_pickled_weights_are_never_read(copied):
    (copied / "model.safetensors").unlink()
    torch.save({}, copied / "pytorch_model.bin")
    with pytest.raises(InputError, match="weights are read from safetensors only"):
        load(copied)


def test_described_without_weights(copied):
    (copied / "model.safetensors").unlink()
    facts = model.describe(str(copied))
    assert (facts.d_model, facts.layers, facts.context_seconds, facts.n_mels) == (16, 4, 2.0, 80)
    assert facts.is_multilingual


def test_the_described_number_of_parameters_is_the_models(folder):
    whisper = load(folder)
    assert model.describe(str(folder)).parameters == sum(weight.numel() for weight in whisper.model.parameters())


@pytest.mark.parametrize(
    ("declared", "size", "expected"), [(None, 51_864, False), (None, 51_865, True), (False, 300, False)]
)
def test_languages_by_the_generation_config_else_by_the_vocabulary(copied, declared, size, expected):
    edit(copied, vocab_size=size)
    if declared is None:
        (copied / "generation_config.json").unlink()
    else:
        edit(copied, "generation_config.json", is_multilingual=declared)
    assert model.describe(str(copied)).is_multilingual is expected


@pytest.mark.skipif(not MICRO.is_dir(), reason="the embedded micro Whisper is not there")
def test_the_embedded_model_loads_by_its_name():
    whisper = load("demo/micro")
    assert whisper.name == "demo/micro"
    assert whisper.seconds == 4.0
    assert whisper.is_multilingual


HUB = """
import sys
sys.path.insert(0, {root!r})
from tmsearch import hub
from tmsearch.model import whisper
hub.LOOKUP_TIMEOUT = {deadline}
from tmsearch.config import TrainConfig
from tmsearch.demo.paths import DEMO
from tmsearch.errors import InputError
for name, revision in {models!r}:
    try:
        if name == "me/described":
            print(name, whisper.describe(name, revision).d_model)
        else:
            print(name, whisper.load(TrainConfig(model=name, model_revision=revision)).model.config.d_model)
    except InputError as error:
        print(error)
"""


def ask(environment, *models, deadline=8.0):
    """What a fresh process prints that loads each (name, revision); me/described is only described."""
    script = HUB.format(root=str(ROOT), models=models, deadline=deadline)
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_hub_models_load_by_id_revision_and_token_and_from_the_cache_later(folder, tmp_path):
    wide = toy_whisper.whisper_folder(tmp_path / "wide", toy_whisper.Shape(d_model=32))
    bert = tmp_path / "bert"
    bert.mkdir()
    (bert / "config.json").write_text('{"model_type": "bert"}')
    (bert / "model.safetensors").write_bytes(b"")
    pickled = Path(shutil.copytree(folder, tmp_path / "pickled"))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    repos = {
        ("model", "me/toy"): {"main": folder, "v1": wide},
        ("model", "me/described"): {"main": wide},
        ("model", "me/private"): {"main": folder},
        ("model", "me/gated"): {"main": folder},
        ("model", "me/bert"): {"main": bert},
        ("model", "me/pickled"): {"main": pickled},
    }
    with Hub(repos, private={"me/private"}, gated={"me/gated"}, token="hf_right") as hub:
        printed = ask(
            hub.environment(tmp_path / "home"),
            ("me/toy", None),
            ("me/toy", "v1"),
            ("me/toy", "v2"),
            ("me/private", None),
            ("me/gated", None),
            ("me/bert", None),
            ("me/pickled", None),
            ("me/none", None),
            ("me/described", None),
        )
        assert printed[:2] == ["me/toy 16", "me/toy 32"]
        assert printed[2] == "me/toy: has no revision v2 at 127.0.0.1; check model_revision"
        assert printed[3] == printed[7].replace("me/none", "me/private")
        assert "me/none: no folder here, and none at 127.0.0.1 that the public" in printed[7]
        assert "check model and HF_TOKEN" in printed[7]
        assert printed[4].startswith("me/gated: gated for the public")
        assert printed[5] == "me/bert: a model of type bert, not a Whisper; give a Whisper checkpoint"
        assert printed[8] == "me/described 32"
        assert not any("safetensors" in request for request in hub.requests if "me/described" in request)
        assert any("safetensors" in request for request in hub.requests if "me/toy" in request)
        assert "me/pickled: no model.safetensors on the hub; pickled weights are never loaded" in printed[6]
        assert ask(hub.environment(tmp_path / "home2", "hf_right"), ("me/private", None)) == ["me/private 16"]
    offline = hub_environment(refusing_url(), tmp_path / "home")
    printed = ask(offline, ("me/toy", None), ("me/toy", "v1"), ("me/unseen", None))
    assert printed[:2] == ["me/toy 16", "me/toy 32"]
    assert "me/unseen: no folder here, and 127.0.0.1 cannot be reached" in printed[2]


def test_a_hub_that_never_answers_is_given_up_within_seconds(tmp_path):
    with Hub({}, stalls=True) as hub:
        printed = ask(hub.environment(tmp_path), ("me/toy", None), deadline=0.5)
    assert "me/toy: no folder here, and 127.0.0.1 did not answer within 0.5 s" in printed[0]


def test_merged_adapters_compute_what_unmerged_ones_do(folder):
    config = toy_whisper.config(folder, lora_r=2, lora_dropout=0.0, lora_targets="q_proj,v_proj,fc1")
    whisper = model.load(config)
    torch.manual_seed(0)
    trainable.prepare(whisper, config)
    for name, weight in trainable.trainable_parameters(whisper).items():
        assert ".lora_" in name
        torch.nn.init.normal_(weight, std=0.1)  # B starts at zero, which would hide a wrong merge
    whisper.model.eval()
    mels = torch.randn(1, 80, 200, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[257, 258, 261, 263]])
    merged = trainable.merge_adapters(whisper)
    with torch.no_grad():
        adapted = whisper.model(input_features=mels, decoder_input_ids=ids).logits
        assert torch.allclose(merged.model(input_features=mels, decoder_input_ids=ids).logits, adapted, atol=1e-4)
        bare = load(folder).model.eval()(input_features=mels, decoder_input_ids=ids).logits
    assert (bare - adapted).abs().max() > 0.01
    assert set(merged.model.state_dict()) == set(load(folder).model.state_dict())
    assert trainable.trainable_parameters(whisper)  # the given model is unchanged
    plain = load(folder)
    assert trainable.merge_adapters(plain) is plain


def test_whisper_is_frozen(folder):
    with pytest.raises(dataclasses.FrozenInstanceError):
        load(folder).name = "other"
    assert TrainConfig(model=str(folder)).context_seconds is None
