import json
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor, pipeline
from transformers.utils.logging import warning_once

from tests.support import toy_whisper
from tmsearch.errors import CheckpointError, InputError
from tmsearch.evaluation import evaluate
from tmsearch.export import model_folder, weights
from tmsearch.features import log_mel
from tmsearch.model import trainable
from tmsearch.model import whisper as model
from tmsearch.model.decoding import Decoder
from tmsearch.model.tokens import prompt_ids
from tmsearch.training import checkpoints, train


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy"), old_style=True)


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    return toy_whisper.speech(toy_whisper.corpus_folder(folder / "corpus"), folder / "cache")


def load_weights(config, checkpoint):
    return weights.trained_model(config, checkpoints.load(checkpoint).tensors["weights"])


def trained(toy, speech, folder, **knobs):
    config = toy_whisper.config(toy, **knobs)
    return config, train.train(config, speech, toy_whisper.stretch(folder, 3), lambda progress: None)


@pytest.mark.parametrize("knobs", [{"context_seconds": 1.6}, {"lora_r": 2}, {"freeze_encoder": True}], ids=str)
def test_a_checkpoint_becomes_the_model_that_was_scored(toy, speech, tmp_path, knobs):
    config, result = trained(toy, speech, tmp_path, **knobs)
    whisper = load_weights(config, result.checkpoint)
    scores, _ = evaluate.evaluate(whisper, speech, speech.split.validation, config)
    assert scores.clips == result.scores
    other = toy_whisper.config(toy, **{"lora_r": 4} if knobs.get("lora_r") else {"lora_r": 2})
    with pytest.raises(CheckpointError, match="other weights than this config trains"):
        load_weights(other, result.checkpoint)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_exported_model_is_whole_and_what_was_trained(toy, speech, tmp_path, dtype):
    config, result = trained(toy, speech, tmp_path / "run", context_seconds=1.6, lora_r=2, freeze_encoder_layers=1)
    whisper = load_weights(config, result.checkpoint)
    model_folder.export(whisper, tmp_path / "out", dtype, language="en", task="transcribe")

    again = WhisperForConditionalGeneration.from_pretrained(tmp_path / "out")
    origin = model.load(toy_whisper.config(toy))
    assert again.dtype == getattr(torch, dtype)
    assert not any("lora" in name for name in again.state_dict())
    table = again.model.encoder.embed_positions.weight
    assert torch.equal(table, origin.model.model.encoder.embed_positions.weight.to(table.dtype))
    held = "model.encoder.layers.0.self_attn.q_proj.weight"
    assert torch.equal(again.state_dict()[held], origin.model.state_dict()[held].to(table.dtype))
    tuned = "model.decoder.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(again.state_dict()[tuned], origin.model.state_dict()[tuned].to(table.dtype))
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (settings["max_source_positions"], settings["dropout"]) == (100, 0.0)
    # The one that was given stays adapted.
    assert trainable.trainable_parameters(whisper)
    if dtype == "float32":
        mels = log_mel.from_samples([np.sin(np.arange(16_000) / 20).astype(np.float32)], whisper.extractor, 200)
        prompt = prompt_ids(whisper, "en", "transcribe")
        exported = model.load(toy_whisper.config(tmp_path / "out"))
        exported.model.eval()
        exported_ids, trained_ids = (Decoder(loaded).greedy([mels], prompt, 20) for loaded in (exported, whisper))
        assert exported_ids == trained_ids


def transcribed(folder, caplog):
    """What a pipeline makes of a hum, and what transformers and Python warn of on the way."""
    warning_once.cache_clear()
    caplog.clear()
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        recognise = pipeline("automatic-speech-recognition", model=str(folder))
        clip = np.sin(np.arange(16_000) / 20).astype(np.float32)
        text = recognise({"raw": clip, "sampling_rate": 16_000})["text"]
    messages = [record.getMessage() for record in caplog.records] + [str(warning.message) for warning in raised]
    return text, {re.sub(r"\{.*?\}", "", line) for line in messages}  # sets of names are printed in any order


def test_a_pipeline_transcribes_with_the_folder_and_warns_of_nothing_new(toy, speech, tmp_path, caplog):
    config, result = trained(toy, speech, tmp_path / "run", context_seconds=1.6, lora_r=2)
    model_folder.export(load_weights(config, result.checkpoint), tmp_path / "out", language="en", task="transcribe")
    _, untouched = transcribed(toy, caplog)
    text, warned = transcribed(tmp_path / "out", caplog)
    assert text
    assert any("forced_decoder_ids" in line for line in untouched), "or nothing was listened to"
    assert warned <= untouched
    assert not any("forced_decoder_ids" in line for line in warned)
    assert WhisperProcessor.from_pretrained(tmp_path / "out").tokenizer is not None


def test_an_exported_multilingual_model_knows_its_language_and_task(toy, tmp_path):
    whisper = model.load(toy_whisper.config(toy))
    model_folder.export(whisper, tmp_path / "out", language="German", task="translate")
    settings = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (settings["language"], settings["task"]) == ("de", "translate")
    assert settings.get("forced_decoder_ids") is None
    with pytest.raises(InputError, match=r"knows no <\|fr\|>"):
        model_folder.export(whisper, tmp_path / "other", language="fr")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("multilingual", [True, False])
@pytest.mark.parametrize("lacking", ["the file", "its fields", "its own ids"])
def test_an_export_starts_from_the_prompt_that_was_trained_whatever_its_base_says(tmp_path, multilingual, lacking):
    base = toy_whisper.whisper_folder(tmp_path / "base", multilingual=multilingual)
    file = base / "generation_config.json"
    settings = json.loads(file.read_text())
    if lacking == "the file":
        file.unlink()
    elif lacking == "its fields":
        early = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "transformers_version")
        file.write_text(json.dumps({key: settings[key] for key in early}))
    else:
        settings["no_timestamps_token_id"] -= 1  # as in the file of another size
        file.write_text(json.dumps(settings))
    whisper = model.load(toy_whisper.config(base))
    model_folder.export(whisper, tmp_path / "out", language="en", task="transcribe")
    exported = WhisperForConditionalGeneration.from_pretrained(tmp_path / "out")
    mels = log_mel.from_samples([np.sin(np.arange(16_000) / 20).astype(np.float32)], whisper.extractor, 200)
    prompt = prompt_ids(whisper, "en", "transcribe")
    with torch.no_grad():
        generated = exported.generate(torch.as_tensor(mels), max_new_tokens=20)[0].tolist()
    whisper.model.eval()
    scored = Decoder(whisper).greedy([torch.as_tensor(mels)], prompt, 20)[0].ids
    without_start = generated[len(prompt) :] if generated[: len(prompt)] == prompt else generated
    assert without_start[: len(scored)] == scored
    assert "notimestamps" not in WhisperProcessor.from_pretrained(tmp_path / "out").decode(scored)
    language = json.loads((tmp_path / "out" / "generation_config.json").read_text()).get("language")
    assert language == ("en" if whisper.is_multilingual else None)


def test_a_damaged_checkpoint_is_not_exported(toy, speech, tmp_path):
    config, result = trained(toy, speech, tmp_path)
    file = result.checkpoint / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match=r"weights\.safetensors does not match its checksum"):
        load_weights(config, result.checkpoint)


QUIET = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from tests.support import toy_whisper as toys
from tmsearch.evaluation import evaluate
from tmsearch.export import model_folder, weights
from tmsearch.training import train
out = Path({out!r})
speech = toys.speech(out / "corpus", out / "cache")
config = toys.config({toy!r}, lora_r=2, context_seconds=1.6, dropout=0.1, speed=0.1, micro_batch_size=2)
evaluate.zero_shot(config, speech)
result = train.train(config, speech, toys.stretch(out / "run", 2, micro_batch=2), lambda progress: None)
whisper = weights.trained_model(config, weights.read(result.checkpoint / weights.WEIGHTS))
model_folder.export(whisper, out / "model", language="en")
"""


def test_a_run_from_loading_to_exporting_prints_nothing(toy, tmp_path):
    toy_whisper.corpus_folder(tmp_path / "corpus")
    script = QUIET.format(path=[path for path in sys.path if path], out=str(tmp_path), toy=str(toy))
    done = subprocess.run([sys.executable, "-W", "default", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
