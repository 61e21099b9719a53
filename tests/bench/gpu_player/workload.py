"""What the played GPU trains and transcribes: a Whisper's shapes, and clips that differ only in length."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any, cast
from unittest import mock

import torch
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

from tests.bench.gpu_player.fake_cuda import DEVICE
from tests.bench.gpu_player.shapes import Shapes
from tmsearch.config import TrainConfig
from tmsearch.model import trainable
from tmsearch.model.context import MARGIN_SECONDS, POSITIONS_PER_SECOND, ROUND_TO_SECONDS, ContextRule
from tmsearch.model.forward import MicroBatch
from tmsearch.model.whisper import Whisper

POSITIONS = 1500  # of every Whisper's encoder
MIX = (2.0, 11.0, 4.5)  # seconds: shortest, longest and most frequent of the mixed clips, 5.8 on average
TOKENS = 40  # labels of a clip
PROMPT = (1, 3, 4, 5)  # four ids, as of a multilingual checkpoint
END = 2


class _Tokens:
    """All that decoding asks of a tokenizer."""

    def convert_tokens_to_ids(self, token: str) -> int:
        return END

    def convert_ids_to_tokens(self, index: int) -> str:
        return "<|endoftext|>"


def whisper(shapes: Shapes, config: TrainConfig, device: torch.device = DEVICE, positions: int = POSITIONS) -> Whisper:
    """A Whisper of these shapes on `device`, prepared as `config` says: fake where fake tensors are made."""
    settings = WhisperConfig(
        vocab_size=shapes.vocabulary,
        num_mel_bins=shapes.n_mels,
        d_model=shapes.d_model,
        encoder_layers=shapes.encoder_layers,
        decoder_layers=shapes.decoder_layers,
        encoder_attention_heads=shapes.heads,
        decoder_attention_heads=shapes.heads,
        encoder_ffn_dim=4 * shapes.d_model,
        decoder_ffn_dim=4 * shapes.d_model,
        max_source_positions=positions,
        decoder_start_token_id=1,
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=END,
    )
    dtype = torch.bfloat16 if config.low_memory else torch.float32
    with device:
        model = WhisperForConditionalGeneration._from_config(settings, attn_implementation="sdpa", dtype=dtype)
        model.generation_config = GenerationConfig(suppress_tokens=[1], begin_suppress_tokens=[END])
        played = Whisper(model, cast(Any, _Tokens()), cast(Any, None), "played", True, positions)
        # Adapters are made on the played device; fake tensors cannot be moved to it, as peft does after that.
        with mock.patch.object(torch.nn.Module, "to", lambda module, *arguments, **settings: module):
            trainable.prepare(played, config)
    return played


def clip_seconds(seconds: str, clips: int, seed: int) -> list[float]:
    """Lengths of clips: `mix`, or a number for all of them."""
    if seconds != "mix":
        return [float(seconds)] * clips
    rng = random.Random(seed)
    return [rng.triangular(*MIX) for _ in range(clips)]


def context_rule(lengths: Sequence[float], silence: bool) -> ContextRule:
    """What TrainConfig's defaults make of a corpus of these lengths; one length has a context of just that."""
    if len(set(lengths)) == 1:
        return ContextRule(round(POSITIONS_PER_SECOND * lengths[0]), 0, POSITIONS, silence)
    longest = math.ceil((max(lengths) + MARGIN_SECONDS) / ROUND_TO_SECONDS) * ROUND_TO_SECONDS
    step = round(ROUND_TO_SECONDS * POSITIONS_PER_SECOND)
    return ContextRule(min(POSITIONS, round(POSITIONS_PER_SECOND * longest)), step, POSITIONS, silence)


def micro_batch(shapes: Shapes, lengths: Sequence[float], rule: ContextRule, clips_a_batch: int) -> MicroBatch:
    """Clips of these lengths as training takes them: log-mels on the device, ids on the host."""
    mels = []
    for frames, indices in rule.length_groups(lengths):
        mels.append(torch.zeros(len(indices), shapes.n_mels, frames, device=DEVICE))  # [clips, n_mels, frames]
    labels = len(lengths) * TOKENS
    return MicroBatch(
        mels=tuple(mels),
        decoder_inputs=torch.zeros(len(lengths), TOKENS, dtype=torch.long),
        label_positions=torch.zeros(labels, dtype=torch.long),
        labels=torch.zeros(labels, dtype=torch.long),
        batch_label_count=clips_a_batch * TOKENS,
    )
