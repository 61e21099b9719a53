"""Makes the demo from nothing: `python -m tmsearch.demo.make`.

Needs espeak-ng (1.51 made what is shipped) and half an hour on 2 quiet cores. Everything is seeded: sentences, voices
and filter come out the same anywhere, weights to the last bit only on the same processor and thread count.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import random
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
import torch
from transformers import WhisperForConditionalGeneration

from tmsearch.demo import grammar, pretrain, speech, stock
from tmsearch.demo.paths import DEMO
from tmsearch.errors import InputError

SEED = 7
CLIPS = 200  # of the corpus
HELD_OUT = 128  # clean sentences that are not used in pre-training
SENTENCES = 8_000  # for pre-training
RECIPES = {"micro": pretrain.MICRO, "nano": pretrain.NANO}
STORED_RATE = 8_000  # Hz; nothing above 1.5 kHz is left
STORED_LEVELS = 2**11  # on either side of zero: 12 bits, as a cheap converter gives, which FLAC stores in 12


def print_progress(line: str) -> None:
    """Prints a line to stderr at once."""
    print(line, file=sys.stderr, flush=True)


def spoken(texts: list[str], seed: int, threads: int) -> list[tuple[speech.Voice, speech.Samples]]:
    """Speaks every text in a voice of its own seed; faster where it would not fit the model's context."""

    def speak(index: int) -> tuple[speech.Voice, speech.Samples]:
        voice = speech.voice(random.Random(f"{seed} {index}"))
        wave = speech.speak(texts[index], voice)
        while len(wave) > speech.LONGEST * speech.SAMPLE_RATE:
            voice = dataclasses.replace(voice, speed=voice.speed + 20)
            wave = speech.speak(texts[index], voice)
        return voice, wave

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(speak, range(len(texts))))


def stored(wave: speech.Samples) -> npt.NDArray[np.int16]:
    """Converts [samples] at 16 kHz in -1..1 to [samples / 2] at STORED_RATE, 12 bits in the upper part of 16."""
    slow = soxr.resample(wave, speech.SAMPLE_RATE, STORED_RATE)
    quantized = np.clip(np.round(slow * STORED_LEVELS), -STORED_LEVELS, STORED_LEVELS - 1)
    samples: npt.NDArray[np.int16] = (quantized * (32_768 // STORED_LEVELS)).astype(np.int16)
    return samples


def make_corpus(folder: Path, texts: list[str], threads: int) -> None:
    """Writes the filtered clips and metadata.csv, which names each clip's voice."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file_name", "text", "voice"])
        for index, (voice, wave) in enumerate(spoken(texts, SEED + 1, threads)):
            name = f"{index:03d}.flac"
            filtered = speech.throat(wave, np.random.default_rng([SEED, index]))
            soundfile.write(folder / name, stored(filtered), STORED_RATE, subtype="PCM_16")
            table.writerow([name, texts[index], voice.name])


def make_models(folder: Path, names: list[str], held_out: list[str], texts: list[str], threads: int) -> None:
    """Writes each named model's folder, pre-trained on `texts`, and prints its WER on `held_out`, both clean."""
    tokenizer = stock.train_tokenizer(texts)
    print_progress(f"speaking {len(held_out) + len(texts)} sentences")
    waves = [wave for _, wave in spoken(held_out + texts, SEED + 2, threads)]
    test = pretrain.examples(waves[: len(held_out)], held_out)
    clean = pretrain.examples(waves[len(held_out) :], texts)
    del waves
    for name in names:
        print_progress(f"pre-training {name}")
        pretrained = pretrain.pretrain(RECIPES[name], tokenizer, clean, print_progress)
        stock.save(pretrained, tokenizer, folder / name)
        model = WhisperForConditionalGeneration.from_pretrained(folder / name, dtype=torch.float32)
        wer = pretrain.word_error_rate(test.texts, pretrain.transcripts(model, tokenizer, test))
        parameters = sum(weight.numel() for weight in model.parameters())
        print_progress(f"{name} {parameters} parameters, clean WER {wer:.3f}")


def main(arguments: list[str] | None = None) -> int:
    """Makes the parts that the command line names; returns 0, or 2 where espeak-ng is missing."""
    parser = argparse.ArgumentParser(prog="python -m tmsearch.demo.make", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="corpus, micro, nano; none: all three")
    parser.add_argument("--folder", type=Path, default=DEMO, help="where the parts are written")
    parser.add_argument("--threads", type=int, default=2, help="for espeak-ng and for torch")
    options = parser.parse_args(arguments)
    unknown = set(options.parts) - {"corpus", *RECIPES}
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))} (corpus, micro, nano)")
    parts = options.parts or ["corpus", *RECIPES]
    torch.set_num_threads(options.threads)
    texts = grammar.sentences(CLIPS + HELD_OUT + SENTENCES, SEED)
    try:
        if "corpus" in parts:
            make_corpus(options.folder / "corpus", texts[:CLIPS], options.threads)
        models = [name for name in RECIPES if name in parts]
        if models:
            clean = texts[CLIPS:]
            make_models(options.folder, models, clean[:HELD_OUT], clean[HELD_OUT:], options.threads)
    except InputError as error:
        print_progress(str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
