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

from tmsearch import demo
from tmsearch.demo import grammar, make, pretrain, speech, stock

LIMIT = 8_000_000  # bytes of the whole folder in the wheel
ROWS = list(csv.DictReader((demo.CORPUS / "metadata.csv").open(encoding="utf-8")))

LOAD_AND_HEAR = """
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
# What pipeline() says of itself with every Whisper whose folder suppresses tokens, OpenAI's own as well.
STOCK_WARNING = "Passing `generation_config` together with generation-related arguments"


def test_everything_fits_in_eight_megabytes() -> None:
    files = [path for path in demo.FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) <= LIMIT


def test_metadata_names_every_clip_once() -> None:
    audio = sorted(path.name for path in demo.CORPUS.iterdir() if path.suffix != ".csv")
    assert sorted(row["file_name"] for row in ROWS) == audio
    assert len({row["text"] for row in ROWS}) == len(ROWS) == make.CLIPS


def test_texts_are_the_seeds() -> None:
    assert [row["text"] for row in ROWS] == grammar.sentences(make.CLIPS, make.SEED)


def test_clips_are_short_audible_and_band_limited() -> None:
    levels = []
    for row in ROWS:
        wave, rate = soundfile.read(demo.CORPUS / row["file_name"], dtype="float32")
        assert rate == make.STORED_RATE
        assert wave.ndim == 1
        assert 1.2 < len(wave) / rate < stock.CONTEXT
        power = np.abs(np.fft.rfft(wave)) ** 2
        assert power[np.fft.rfftfreq(len(wave), 1 / rate) > 2_000].sum() < 0.01 * power.sum()
        levels.append(20 * np.log10(np.abs(wave).max()))
    assert min(levels) < -20
    assert sum(level > -0.1 for level in levels) > len(levels) / 20  # the clipped ones


def test_folders_load_and_hear_offline_without_a_word_that_stock_folders_do_not_say() -> None:
    folders = [str(demo.FOLDER / name) for name in demo.MODELS]
    command = [sys.executable, "-c", LOAD_AND_HEAR, str(demo.CORPUS / ROWS[0]["file_name"]), *folders]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if STOCK_WARNING not in line] == []
    heard = done.stdout.splitlines()
    assert len(heard) == len(folders)
    assert all(len(text.split()) > 2 for text in heard)


@pytest.mark.parametrize("name", demo.MODELS)
def test_folder_is_a_multilingual_whisper(name: str) -> None:
    model = WhisperForConditionalGeneration.from_pretrained(demo.FOLDER / name, dtype=torch.float32)
    tokenizer = WhisperTokenizer.from_pretrained(demo.FOLDER / name)
    extractor = WhisperFeatureExtractor.from_pretrained(demo.FOLDER / name)
    told = model.generation_config
    ids = tokenizer.convert_tokens_to_ids
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.max_source_positions == 50 * extractor.chunk_length == extractor.nb_max_frames // 2
    assert tokenizer.all_special_ids == [ids(token) for token in stock.SPECIALS]
    assert told.is_multilingual
    assert told.lang_to_id["<|en|>"] == ids("<|en|>")
    assert told.task_to_id == {"transcribe": ids("<|transcribe|>"), "translate": ids("<|translate|>")}
    assert told.no_timestamps_token_id == ids("<|notimestamps|>") == ids("<|0.00|>") - 1
    assert told.decoder_start_token_id == model.config.decoder_start_token_id == ids("<|startoftranscript|>")
    assert model.config.eos_token_id == model.config.pad_token_id == tokenizer.pad_token_id == ids("<|endoftext|>")
    assert ids("<|endoftext|>") not in told.suppress_tokens
    assert set(told.begin_suppress_tokens) == {ids("Ġ"), ids("<|endoftext|>")}
    assert all(torch.isfinite(weight).all() for weight in model.parameters())


def test_models_differ_in_size_and_share_a_tokenizer() -> None:
    sizes = [(demo.FOLDER / name / "model.safetensors").stat().st_size for name in demo.MODELS]
    assert sizes[0] > 2 * sizes[1]
    micro, nano = ((demo.FOLDER / name / "tokenizer.json").read_bytes() for name in demo.MODELS)
    assert micro == nano


def test_tokenizer_round_trips_the_corpus_and_anything_else() -> None:
    tokenizer = WhisperTokenizer.from_pretrained(demo.FOLDER / "micro")
    for text in [*(f" {row['text']}" for row in ROWS), "Ça va? 한국어, naïve; 12.5 %"]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert max(ids) < stock.WORDS
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    longest = max(len(tokenizer(f" {row['text']}")["input_ids"]) for row in ROWS)
    assert longest + 2 < stock.TARGETS  # language and task come on top


def test_shipped_tokenizer_is_what_the_grammar_gives() -> None:
    shipped = WhisperTokenizer.from_pretrained(demo.FOLDER / "micro")
    texts = grammar.sentences(make.CLIPS + make.HELD_OUT + make.SENTENCES, make.SEED)
    made = stock.tokenizer_of(texts[make.CLIPS + make.HELD_OUT :])
    assert made.get_vocab() == shipped.get_vocab()
    assert made(ROWS[0]["text"])["input_ids"] == shipped(ROWS[0]["text"])["input_ids"]


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
    once, again, other = (speech.throat(clean, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)
    assert once.shape == clean.shape
    assert once.dtype == np.float32
    assert np.abs(once).max() <= 1.0
    power = np.abs(np.fft.rfft(once)) ** 2
    frequency = np.fft.rfftfreq(len(once), 1 / speech.SAMPLE_RATE)
    heard = power[(frequency > 150) & (frequency < 1_200)].mean()
    assert power[frequency > 2_500].mean() < 1e-2 * heard


def test_stored_clips_have_twelve_bits_and_half_the_samples() -> None:
    wave = np.sin(np.arange(1_600) / 5).astype(np.float32)
    kept = make.stored(wave)
    assert len(kept) == 800
    assert not (kept % 16).any()
    assert np.abs(kept).max() > 30_000


def test_pretraining_is_seeded_and_learns() -> None:
    recipe = pretrain.PretrainingRecipe(stock.Size(16, 2, 1, 1), steps=4, batch_size=2)
    texts = grammar.sentences(4, 1)
    tokenizer = WhisperTokenizer.from_pretrained(demo.FOLDER / "nano")
    rng = np.random.default_rng(0)
    clean = pretrain.examples([rng.standard_normal(30_000).astype(np.float32) * 0.1 for _ in texts], texts)
    before = stock.model_of(recipe.size, tokenizer, recipe.seed)
    once, again = (pretrain.pretrain(recipe, tokenizer, clean, print) for _ in range(2))
    name = "model.decoder.embed_tokens.weight"
    assert torch.equal(once.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(once.state_dict()[name], before.state_dict()[name])


def test_make_without_espeak_says_what_to_install(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert make.main(["corpus", "--folder", str(tmp_path / "demo"), "--threads", "1"]) == 2
    assert "apt-get install espeak-ng" in capsys.readouterr().err


def test_a_sentence_is_spoken_and_trimmed() -> None:
    if subprocess.run(["sh", "-c", "command -v espeak-ng"], capture_output=True).returncode != 0:
        pytest.skip("espeak-ng is not installed")
    wave = speech.speak(grammar.sentences(1, 1)[0], speech.voice(random.Random(1)))
    assert 1.0 < len(wave) / speech.SAMPLE_RATE < 5.0
    assert np.abs(wave).max() == pytest.approx(speech.CLEAN_PEAK, abs=1e-3)
