"""Loads and describes Whisper checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer
from transformers.utils import logging as hub_logging

from tmsearch.config import TrainConfig
from tmsearch.errors import InputError
from tmsearch.formatting import first_line
from tmsearch.model import pretrained
from tmsearch.model.context import POSITIONS_PER_SECOND
from tmsearch.model.pretrained import PretrainedFolder

# openai/whisper, model.py: an English-only vocabulary has one token fewer than the multilingual one.
ENGLISH_VOCABULARY = 51_864


@dataclass(frozen=True)
class Whisper:
    """A loaded checkpoint with its tokenizer and feature extractor. The model inside is trained in place."""

    model: WhisperForConditionalGeneration
    tokenizer: WhisperTokenizer
    extractor: WhisperFeatureExtractor
    name: str
    is_multilingual: bool
    positions: int  # of the encoder, 20 ms each

    @property
    def seconds(self) -> float:
        """Audio that the encoder takes at most."""
        return self.positions / POSITIONS_PER_SECOND


@dataclass(frozen=True)
class ModelInfo:
    """What config.json says of a checkpoint, without its weights."""

    name: str
    parameters: int
    d_model: int
    layers: int  # encoder's and decoder's together
    context_seconds: float
    n_mels: int
    is_multilingual: bool
    encoder_layers: int
    decoder_layers: int
    encoder_ffn_dim: int
    decoder_ffn_dim: int
    vocab_size: int
    max_target_positions: int


def load(config: TrainConfig) -> Whisper:
    """Loads the checkpoint `config.model` in float32, with all its positions, on the CPU.

    Raises InputError, in one line, where it is missing, damaged or not a Whisper.
    """
    folder = pretrained.find(config.model, config.model_revision)
    settings = folder.config()
    _check_weights(folder, settings)
    hub_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model = _from_pretrained(folder)
    _clean(model)
    return Whisper(
        model=model,
        tokenizer=_tokenizer(folder, settings),
        extractor=_extractor(folder, settings),
        name=config.model,
        is_multilingual=_is_multilingual(folder, settings),
        positions=int(model.config.max_source_positions),
    )


def _from_pretrained(folder: PretrainedFolder) -> WhisperForConditionalGeneration:
    try:
        # The default dtype is the checkpoint's, often float16.
        model: WhisperForConditionalGeneration = WhisperForConditionalGeneration.from_pretrained(
            folder.path,
            dtype=torch.float32,
            attn_implementation="sdpa",
            use_safetensors=True,
            local_files_only=True,
        )
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        # transformers' own words about the folder, as of an adapter without its base model
        raise InputError(f"{folder.name}: cannot be loaded ({first_line(error, 200)}); give a whole Whisper") from error
    return model


def outline(config: TrainConfig) -> Whisper:
    """The checkpoint `config.model` as `load` gives it, but with shapes in place of weights, which are not fetched.

    The headers of weights that are on this machine are compared with its config.json. Raises InputError as `load` does.
    """
    folder = pretrained.find(config.model, config.model_revision, weights=False)
    settings = folder.config()
    if folder.holds_weights:
        _check_weights(folder, settings)
    model = _outline(folder, settings)
    return Whisper(
        model=model,
        tokenizer=_tokenizer(folder, settings),
        extractor=_extractor(folder, settings),
        name=config.model,
        is_multilingual=_is_multilingual(folder, settings),
        positions=int(model.config.max_source_positions),
    )


def describe(name: str, revision: str | None = None) -> ModelInfo:
    """Describes a checkpoint by its small files: no weights are read or fetched. Raises InputError in one line."""
    folder = pretrained.find(name, revision, weights=False)
    outline = _outline(folder, folder.config())
    settings = outline.config
    return ModelInfo(
        name=name,
        parameters=sum(weight.numel() for weight in outline.parameters()),
        d_model=settings.d_model,
        layers=settings.encoder_layers + settings.decoder_layers,
        context_seconds=settings.max_source_positions / POSITIONS_PER_SECOND,
        n_mels=settings.num_mel_bins,
        is_multilingual=_is_multilingual(folder, folder.config()),
        encoder_layers=settings.encoder_layers,
        decoder_layers=settings.decoder_layers,
        encoder_ffn_dim=settings.encoder_ffn_dim,
        decoder_ffn_dim=settings.decoder_ffn_dim,
        vocab_size=settings.vocab_size,
        max_target_positions=settings.max_target_positions,
    )


def _outline(folder: PretrainedFolder, settings: dict[str, Any]) -> WhisperForConditionalGeneration:
    """The model that config.json describes, with shapes but without weights."""
    try:
        with torch.device("meta"):
            return WhisperForConditionalGeneration(WhisperConfig.from_dict(settings))
    except Exception as error:  # every kind of nonsense in a config raises a class of its own
        raise InputError(f"{folder.path / 'config.json'}: not a Whisper's settings ({error!r:.120})") from error


def _check_weights(folder: PretrainedFolder, settings: dict[str, Any]) -> None:
    """Compares the headers of the weight files with what the model needs, before anything is loaded.

    transformers would fill a missing weight with random numbers and print a table.
    """
    expected = _outline(folder, settings).state_dict()
    shapes: dict[str, list[int]] = {}
    for path in folder.weight_files():
        try:
            with safe_open(path, framework="pt") as file:
                for name in list(file.keys()):
                    shapes[name] = file.get_slice(name).get_shape()
        except (SafetensorError, OSError) as error:
            raise InputError(f"{folder.name}: {path.name} is cut or damaged ({error!s:.90}); fetch it again") from error
    for name, weight in expected.items():
        # The output layer is the token table again, saved once.
        if name == "proj_out.weight" and name not in shapes:
            continue
        if name not in shapes:
            raise InputError(f"{folder.name}: no weight {name} in its files; give a whole Whisper checkpoint")
        if list(weight.shape) != list(shapes[name]):
            raise InputError(
                f"{folder.name}: weight {name} is {shapes[name]}, config.json says {list(weight.shape)}; "
                "give config.json and weights of one model"
            )


def _clean(model: WhisperForConditionalGeneration) -> None:
    """Removes settings of old checkpoints that make transformers warn, or that change training without being asked."""
    model.config.apply_spec_augment = False  # it writes into the caller's features; augment.py changes a copy
    settings: Any
    for settings in (model.config, model.generation_config):
        if getattr(settings, "forced_decoder_ids", None) is not None:
            settings.forced_decoder_ids = None


def _tokenizer(folder: PretrainedFolder, settings: dict[str, Any]) -> WhisperTokenizer:
    try:
        tokenizer: WhisperTokenizer = WhisperTokenizer.from_pretrained(folder.path)
    except Exception as error:  # transformers answers missing and broken files with a dozen classes
        raise InputError(
            f"{folder.name}: no usable tokenizer in {folder.path} ({error!s:.80}); copy its tokenizer files there"
        ) from error
    start = tokenizer.convert_tokens_to_ids("<|startoftranscript|>")
    if start != settings.get("decoder_start_token_id"):
        raise InputError(f"{folder.name}: its tokenizer is not that of its config.json; copy the checkpoint's own")
    return tokenizer


def _extractor(folder: PretrainedFolder, settings: dict[str, Any]) -> WhisperFeatureExtractor:
    try:
        extractor = WhisperFeatureExtractor.from_pretrained(folder.path, local_files_only=True)
    except Exception as error:  # as above
        raise InputError(
            f"{folder.name}: no usable preprocessor_config.json in {folder.path}; copy the checkpoint's own"
        ) from error
    if extractor.feature_size != settings.get("num_mel_bins", 80):
        raise InputError(
            f"{folder.name}: preprocessor_config.json makes {extractor.feature_size} mel bins, "
            f"config.json wants {settings.get('num_mel_bins', 80)}; copy the checkpoint's own"
        )
    return extractor


def _is_multilingual(folder: PretrainedFolder, settings: dict[str, Any]) -> bool:
    """By the generation config where it says so, else by the vocabulary, as openai/whisper does."""
    declared = (folder.read_json("generation_config.json") or {}).get("is_multilingual")
    if declared is not None:
        return bool(declared)
    return settings.get("vocab_size") != ENGLISH_VOCABULARY
