"""What a process keeps from one training to the next, so that the next one begins at once."""

from __future__ import annotations

from pathlib import Path

import torch

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.features.dataset import Speech
from tmsearch.model import trainable
from tmsearch.model import whisper as model
from tmsearch.model.whisper import Whisper
from tmsearch.training import checkpoints
from tmsearch.training.state import TrainState, fingerprint

_Key = tuple[str, str | None]


class ModelCache:
    """The last model with an untouched copy of its weights, and the run that its last checkpoint was made of.

    Nothing of an earlier training is seen in a later one: results are equal to the bit with and without.
    """

    def __init__(self) -> None:
        self._key: _Key | None = None
        self._whisper: Whisper | None = None
        self._untouched: dict[str, torch.Tensor] = {}
        self._run: TrainState | None = None
        self._saved: Path | None = None

    def whisper(self, config: TrainConfig) -> Whisper:
        """`config.model` as it was loaded, wherever it lies now. The one that was given before is used up."""
        self._run = None
        key = (config.model, config.model_revision)
        if self._whisper is None or key != self._key:
            self._whisper, self._untouched = None, {}  # before the next one takes its place
            self._whisper, self._key = model.load(config), key
            self._untouched = {name: one.detach().clone() for name, one in self._whisper.model.state_dict().items()}
            return self._whisper
        trainable.remove_adapters(self._whisper)
        devices.move(self._whisper.model, self._whisper.model.device, torch.float32)
        self._whisper.model.load_state_dict(self._untouched)
        return self._whisper

    def run(
        self, config: TrainConfig, speech: Speech, device: torch.device, checkpoint: Path | None, first_step: int
    ) -> TrainState:
        """A run of `config` that stands where `checkpoint` was made, or at its beginning: kept, loaded or new.

        Raises Broken for a checkpoint that is damaged or of another training.
        """
        run, self._run = self._run, None
        mine = {"config": fingerprint(config), "corpus": speech.corpus.fingerprint}
        if run is not None and run.identity == mine and checkpoint is not None and checkpoint == self._saved:
            checkpoints.check(checkpoint)
            run.seconds = 0.0
            run.restore_random_state()
            return run
        del run
        run = TrainState(config, speech, self.whisper(config), device)
        if checkpoint is not None:
            run.load(checkpoint, first_step)
        return run

    def keep(self, run: TrainState, saved: Path) -> None:
        """`run` may go on from `saved`, which holds what it is now."""
        self._run, self._saved = run, saved

    def forget(self) -> None:
        """Lets go of everything: memory ran out."""
        self.__init__()  # type: ignore[misc]
