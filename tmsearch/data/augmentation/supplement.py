"""All that is trained on beside a study's own clips, loaded as its data section says: extra speech and noise."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from tmsearch.config import DataConfig, TrainConfig
from tmsearch.data.augmentation.extra_data import ExtraCorpus, Load, load_extra, refuse_copies
from tmsearch.data.augmentation.noise import Noise, load_noise
from tmsearch.data.corpus import Corpus
from tmsearch.data.splits import Split
from tmsearch.errors import InputError


@dataclass(frozen=True)
class Supplement:
    """Extra speech and noise; `fingerprint` is a sha256 of what they are, None where there is neither."""

    extra: tuple[ExtraCorpus, ...] = ()
    noise: Noise | None = None
    fingerprint: str | None = None

    def to_json(self) -> list[dict[str, Any]]:
        """A row for each entry, for a plan."""
        rows = [entry.to_json() for entry in self.extra]
        if self.noise is not None:
            noise = self.noise
            rows.append({"noise": noise.folder, "recordings": len(noise.recordings), "seconds": noise.seconds})
        return rows

    def shares(self, config: TrainConfig) -> list[float]:
        """The share of the examples that are drawn from each entry of `extra`."""
        shares = [entry.settings.share for entry in self.extra]
        total = sum(shares)
        if config.extra_share is None or total == 0:
            return shares
        return [config.extra_share * share / total for share in shares]

    def check(self, config: TrainConfig) -> None:
        """Raises InputError where `config` asks for what is not there."""
        if config.noise_db is not None and self.noise is None:
            raise InputError(
                f"train.noise_db: {config.noise_db:g}: there is no noise; give data.noise a folder of noise recordings"
            )
        if config.extra_share and not sum(entry.settings.share for entry in self.extra):
            raise InputError(
                f"train.extra_share: {config.extra_share:g}: there is no extra speech; name some in data.extra"
            )


def load_supplement(
    data: DataConfig, corpus: Corpus, split: Split, load: Load, *, with_copies: bool = False
) -> Supplement:
    """What `data.extra` and `data.noise` name.

    Args:
        data: The study's.
        corpus: Its clips.
        split: Its split.
        load: Loads a corpus.
        with_copies: Whether copies of validation and test clips are left out silently. Else they are refused.

    Raises:
        InputError: Something of it cannot be read or cannot work.
    """
    total = sum(settings.share for settings in data.extra)
    if total > 1:
        raise InputError(f"data.extra: its shares are {total:g} together; they are shares of all examples, at most 1")
    has_air = data.air_column is not None or data.air_channel is not None
    if has_air and not any(settings.throat for settings in data.extra):
        key = "air_channel" if data.air_column is None else "air_column"
        raise InputError(f"data.{key}: nothing is heard through a throat filter; give data.extra with throat: true")
    if not data.extra and data.noise is None:
        return Supplement()
    extra, digest = load_extra(data, corpus, split, load)
    if not with_copies:
        refuse_copies(extra, corpus, split)
    noise = None if data.noise is None else load_noise(data.noise)
    parts = [digest, noise.fingerprint if noise else ""]
    return Supplement(extra, noise, hashlib.sha256("\0".join(parts).encode()).hexdigest())
