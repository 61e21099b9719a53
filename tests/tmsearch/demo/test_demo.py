"""The embedded demo: small enough, whole, the stock classes, and made by seeded parts."""

from __future__ import annotations

import csv
import random
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer

from tmsearch.demo import grammar, make, pretrain, speech, stock
from tmsearch.demo.paths import CORPUS, DEMO, MODELS

LIMIT = 8_000_000  # bytes of the whole folder in the wheel
ROWS = list(csv.DictReader((CORPUS / "metadata.csv").open(encoding="utf-8")))

LOAD_AND_TRANSCRIBE = """
import os, sys
os.environ["HF_HUB_OFFLINE"] = "1"
import soundfile, soxr, torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor, pipeline
from transformers.utils import logging
logging.disable_progress_bar()
torch.set_num_threads(1)
wave, rate = soundfile.read(sys.argv[1], dtype="float32")
wave = soxr.resample(wave, rate, 16_000)
for folder in sys.argv[2:]:
    WhisperForConditionalGeneration.from_pretrained(folder)
    WhisperProcessor.from_pretrained(folder)
    print(pipeline("automatic-speech-recognition", model=folder)(wave)["text"])
"""
# What pipeline() prints for every Whisper whose folder suppresses tokens, OpenAI's own as well.
STOCK_WARNING = "Passing `generation_config` together with generation-related arguments"


def test_everything_fits_in_eight_megabytes() -> None:
    files = [path for path in DEMO.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) <= LIMIT


def test_metadata_names_every_clip_once() -> None:
    audio = sorted(path.name for path in CORPUS.iterdir() if path.suffix != ".csv")
    assert sorted(row["file_name"] for row in ROWS) == audio
    assert len({row["text"] for row in ROWS}) == len(ROWS) == make.CLIPS


def test_texts_are_the_seeds() -> None:
    assert [row["text"] for row in ROWS] == grammar.sentences(make.CLIPS, make.SEED)


def test_clips_are_short_audible_and_band_limited() -> None:
    levels = []
    for row in ROWS:
        wave, rate = soundfile.read(CORPUS / row["file_name"], dtype="float32")
        assert rate == make.STORED_RATE
        assert wave.ndim == 1
        assert 1.2 < len(wave) / rate < stock.CONTEXT
        power = np.abs(np.fft.rfft(wave)) ** 2
        assert power[np.fft.rfftfreq(len(wave), 1 / rate) > 2_000].sum() < 0.01 * power.sum()
        levels.append(20 * np.log10(np.abs(wave).max()))
    assert min(levels) < -20
    assert sum(level > -0.1 for level in levels) > len(levels) / 20  # the clipped ones


def test_folders_load_and_transcribe_offline_without_warnings_of_their_own() -> None:
    folders = [str(DEMO / name) for name in MODELS]
    command = [sys.executable, "-c", LOAD_AND_TRANSCRIBE, str(CORPUS / ROWS[0]["file_name"]), *folders]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if STOCK_WARNING not in line] == []
    texts = done.stdout.splitlines()
    assert len(texts) == len(folders)
    assert all(len(text.split()) > 2 for text in texts)


@pytest.mark.parametrize("name", MODELS)
def test_folder_is_a_multilingual_whisper(name: str) -> None:
    model = WhisperForConditionalGeneration.from_pretrained(DEMO / name, dtype=torch.float32)
    tokenizer = WhisperTokenizer.from_pretrained(DEMO / name)
    extractor = WhisperFeatureExtractor.from_pretrained(DEMO / name)
    settings = model.generation_config
    ids = tokenizer.convert_tokens_to_ids
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.max_source_positions == 50 * extractor.chunk_length == extractor.nb_max_frames // 2
    assert tokenizer.all_special_ids == [ids(token) for token in stock.SPECIALS]
    assert settings.is_multilingual
    assert settings.lang_to_id["<|en|>"] == ids("<|en|>")
    assert settings.task_to_id == {"transcribe": ids("<|transcribe|>"), "translate": ids("<|translate|>")}
    assert settings.no_timestamps_token_id == ids("<|notimestamps|>") == ids("<|0.00|>") - 1
    assert settings.decoder_start_token_id == model.config.decoder_start_token_id == ids("<|startoftranscript|>")
    assert model.config.eos_token_id == model.config.pad_token_id == tokenizer.pad_token_id == ids("<|endoftext|>")
    assert ids("<|endoftext|>") not in settings.suppress_tokens
    assert set(settings.begin_suppress_tokens) == {ids("Ġ"), ids("<|endoftext|>")}
    assert all(torch.isfinite(weight).all() for weight in model.parameters())


def test_models_differ_in_size_and_share_a_tokenizer() -> None:
    sizes = [(DEMO / name / "model.safetensors").stat().st_size for name in MODELS]
    assert sizes[0] > 2 * sizes[1]
    micro, nano = ((DEMO / name / "tokenizer.json").read_bytes() for name in MODELS)
    assert micro == nano


def test_tokenizer_round_trips_the_corpus_and_anything_else() -> None:
    tokenizer = WhisperTokenizer.from_pretrained(DEMO / "micro")
    for text in [*(f" {row['text']}" for row in ROWS), "Ça va? 한국어, naïve; 12.5 %"]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert max(ids) < stock.WORDS
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    longest = max(len(tokenizer(f" {row['text']}")["input_ids"]) for row in ROWS)
    assert longest + 2 < stock.TARGETS  # language and task come on top


def test_shipped_tokenizer_is_what_the_grammar_gives() -> None:
    shipped = WhisperTokenizer.from_pretrained(DEMO / "micro")
    texts = grammar.sentences(make.CLIPS + make.HELD_OUT + make.SENTENCES, make.SEED)
    trained = stock.train_tokenizer(texts[make.CLIPS + make.HELD_OUT :])
    assert trained.get_vocab() == shipped.get_vocab()
    assert trained(ROWS[0]["text"])["input_ids"] == shipped(ROWS[0]["text"])["input_ids"]


def test_grammar_is_seeded_distinct_and_a_prefix_of_itself() -> None:
    some = grammar.sentences(300, 3)
    assert some == grammar.sentences(400, 3)[:300]
    assert some != grammar.sentences(300, 4)
    assert len(set(some)) == 300
    assert all(5 <= len(text.split()) <= 11 and text[0].isupper() and text.endswith(".") for text in some)


def test_voices_are_seeded() -> None:
    assert speech.voice(random.Random("7 1")) == speech.voice(random.Random("7 1"))
    assert len({speech.voice(random.Random(index)).name for index in range(200)}) == 20


def test_throat_filter_is_seeded_and_takes_the_highs_away() -> None:
    clean = np.random.default_rng(0).standard_normal(2 * speech.SAMPLE_RATE).astype(np.float32) * 0.1
    filtered = speech.throat(clean, np.random.default_rng(1))
    assert np.array_equal(filtered, speech.throat(clean, np.random.default_rng(1)))
    assert not np.array_equal(filtered, speech.throat(clean, np.random.default_rng(2)))
    assert filtered.shape == clean.shape
    assert filtered.dtype == np.float32
    assert np.abs(filtered).max() <= 1.0
    power = np.abs(np.fft.rfft(filtered)) ** 2
    frequency = np.fft.rfftfreq(len(filtered), 1 / speech.SAMPLE_RATE)
    passed = power[(frequency > 150) & (frequency < 1_200)].mean()
    assert power[frequency > 2_500].mean() < 1e-2 * passed


def test_stored_clips_have_twelve_bits_and_half_the_samples() -> None:
    wave = np.sin(np.arange(1_600) / 5).astype(np.float32)
    samples = make.stored(wave)
    assert len(samples) == 800
    assert not (samples % 16).any()
    assert np.abs(samples).max() > 30_000


def test_pretraining_is_seeded_and_learns() -> None:
    recipe = pretrain.PretrainingRecipe(stock.Size(16, 2, 1, 1), steps=4, batch_size=2)
    texts = grammar.sentences(4, 1)
    tokenizer = WhisperTokenizer.from_pretrained(DEMO / "nano")
    rng = np.random.default_rng(0)
    clean = pretrain.examples([rng.standard_normal(30_000).astype(np.float32) * 0.1 for _ in texts], texts)
    before = stock.random_model(recipe.size, tokenizer, recipe.seed)
    first = pretrain.pretrain(recipe, tokenizer, clean, print)
    second = pretrain.pretrain(recipe, tokenizer, clean, print)
    name = "model.decoder.embed_tokens.weight"
    assert torch.equal(first.state_dict()[name], second.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], before.state_dict()[name])


def test_make_without_espeak_names_the_package_to_install(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert make.main(["corpus", "--folder", str(tmp_path / "demo"), "--threads", "1"]) == 2
    assert "apt-get install espeak-ng" in capsys.readouterr().err


def test_a_sentence_is_spoken_and_trimmed() -> None:
    if subprocess.run(["sh", "-c", "command -v espeak-ng"], capture_output=True).returncode != 0:
        pytest.skip("espeak-ng is not installed")
    wave = speech.speak(grammar.sentences(1, 1)[0], speech.voice(random.Random(1)))
    assert 1.0 < len(wave) / speech.SAMPLE_RATE < 5.0
    assert np.abs(wave).max() == pytest.approx(speech.CLEAN_PEAK, abs=1e-3)
