"""What the benchmarks train on: a model folder, a dataset folder, one split, and where the log-mels are kept."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch

from tmsearch.config import DataConfig, TrainConfig
from tmsearch.data import corpus as clips
from tmsearch.data import splits
from tmsearch.evaluation import evaluate as evaluation
from tmsearch.features.dataset import Speech
from tmsearch.model import whisper as model
from tmsearch.model.tokens import special_id
from tmsearch.model.whisper import Whisper
from tmsearch.training import train as training
from tmsearch.training.state import StepMetrics, fingerprint
from tmsearch.training.train import Result, Stretch


@dataclass(frozen=True)
class Workload:
    """A model on a dataset; `folder` takes whatever is written."""

    model: str
    speech: Speech
    folder: Path
    batch_size: int
    threads: int

    def config(self, **knobs: object) -> TrainConfig:
        """The recipe that all rows of a table share, but for `knobs`."""
        usual = {"model": self.model, "batch_size": self.batch_size, "learning_rate": 3e-5, "warmup_steps": 6}
        return TrainConfig(**{**usual, **knobs})  # type: ignore[arg-type]

    def train(self, config: TrainConfig, steps: int) -> tuple[Result, list[StepMetrics]]:
        """From nothing to `steps`, scored once."""
        seen: list[StepMetrics] = []
        folder = self.folder / fingerprint(config)[:16]
        stretch = Stretch(0, steps, self.threads, config.batch_size, None, folder)
        return training.train(config, self.speech, stretch, seen.append), seen

    def evaluate(self, whisper: Whisper, config: TrainConfig) -> float:
        """Seconds that scoring the validation split takes."""
        return evaluation.evaluate(whisper, self.speech, self.speech.split.validation, config)[1]

    def padded(self, names: tuple[str, ...]) -> list[tuple[torch.Tensor, list[int]]]:
        """Clips as the peers take them: log-mels of the extractor's whole window, label ids."""
        config = self.config()
        whisper = model.load(config)
        mels = self.speech.mels(names, whisper, config).batch(list(names), whisper.extractor.nb_max_frames)
        ids = self.speech.label_ids(names, whisper)
        return [(mels[index], ids[name]) for index, name in enumerate(names)]

    def start_token(self) -> int:
        return special_id(model.load(self.config()), "<|startoftranscript|>")


def arguments(text: str) -> argparse.ArgumentParser:
    """What every benchmark of speech can be told."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--model", default="demo/micro", help="hub id or folder (demo/micro)")
    parser.add_argument("--dataset", default="demo", help="folder of audio and metadata.csv (demo)")
    parser.add_argument("--validation", type=int, default=48, help="clips to score (48)")
    parser.add_argument("--batch-size", type=int, default=8, help="clips a step (8)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="OpenMP threads (all)")
    parser.add_argument("--folder", type=Path, required=True, help="for log-mels and checkpoints; may be deleted")
    return parser


def workload(options: argparse.Namespace) -> Workload:
    data = DataConfig(dataset=options.dataset, validation=options.validation, test=32)
    corpus = clips.load(data)
    speech = Speech(corpus, splits.split(corpus, data), data.language, data.task, options.folder / "mels")
    return Workload(options.model, speech, options.folder / "runs", options.batch_size, options.threads)
