"""What of a Whisper is trained, and how it is regularized: frozen layers, LoRA, dropout."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers.models.whisper.modeling_whisper import (
    WhisperAttention,
    WhisperDecoder,
    WhisperDecoderLayer,
    WhisperEncoder,
    WhisperEncoderLayer,
)

from tmsearch.config import TrainConfig
from tmsearch.errors import CheckpointError, InputError
from tmsearch.model.whisper import Whisper

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer


def prepare(whisper: Whisper, config: TrainConfig) -> None:
    """Freezes or adapts a freshly loaded checkpoint as `config` says, and sets its dropouts, in place.

    New adapters draw from torch's global generator, so seed it first. Gradients that it still holds are dropped.
    Raises InputError for unknown `lora_targets`.
    """
    whisper.model.zero_grad(set_to_none=True)
    _set_dropout(whisper, config)
    _freeze(whisper, config)
    if config.lora_r:
        _adapt(whisper, config)


def trainable_parameters(whisper: Whisper) -> dict[str, nn.Parameter]:
    """The parameters that training changes, by name, in the model's order."""
    return {name: weight for name, weight in whisper.model.named_parameters() if weight.requires_grad}


def set_weights(whisper: Whisper, saved: Mapping[str, torch.Tensor]) -> None:
    """Puts trained weights into a prepared model and drops its gradients, which were those of other weights.

    Raises CheckpointError where the weights are not those that it trains.
    """
    weights = trainable_parameters(whisper)
    expected = {name: weight.shape for name, weight in weights.items()}
    if {name: weight.shape for name, weight in saved.items()} != expected:
        raise CheckpointError(f"{whisper.name}: the checkpoint holds other weights than this config trains")
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(saved[name])
            weight.grad = None


def merge_adapters(whisper: Whisper) -> Whisper:
    """The same model with its adapters merged into its weights: a copy, or itself where it has none."""
    if not _adapted(whisper.model):
        return whisper
    model = copy.deepcopy(whisper.model)
    for module in _adapted(model).values():
        module.merge()
    merged = dataclasses.replace(whisper, model=model)
    remove_adapters(merged)
    return merged


def remove_adapters(whisper: Whisper) -> None:
    """Removes the adapters, in place; what was merged into the weights stays there."""
    for name, module in _adapted(whisper.model).items():
        parent, _, child = name.rpartition(".")
        setattr(whisper.model.get_submodule(parent), child, module.get_base_layer())
    if hasattr(whisper.model, "peft_config"):  # by which peft would warn of a second adapter
        del whisper.model.peft_config


def _adapted(model: nn.Module) -> dict[str, LoraLayer]:
    """The modules that have an adapter, by name."""
    # Without adapters nothing of peft is imported: it takes a second.
    if not any(name.endswith("lora_A") for name, _ in model.named_modules()):
        return {}
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def _set_dropout(whisper: Whisper, config: TrainConfig) -> None:
    """Sets rates on the modules and not in the model's config, which an export leaves as it was."""
    blocks = (WhisperEncoder, WhisperDecoder, WhisperEncoderLayer, WhisperDecoderLayer)
    for module in whisper.model.modules():
        if isinstance(module, WhisperAttention):
            module.dropout = config.attention_dropout
        elif isinstance(module, blocks):
            module.dropout = config.dropout
    for stack in (whisper.model.model.encoder, whisper.model.model.decoder):
        stack.layerdrop = config.stochastic_depth


def _freeze(whisper: Whisper, config: TrainConfig) -> None:
    """Everything is trained but the encoder's positions and what the config freezes.

    Where the encoder has fewer layers than `freeze_encoder_layers`, all are frozen: one range serves every model size.
    """
    whisper.model.requires_grad_(not config.lora_r)
    encoder = whisper.model.model.encoder
    encoder.embed_positions.requires_grad_(False)
    if config.freeze_encoder:
        encoder.requires_grad_(False)
    elif config.freeze_encoder_layers:
        # What precedes a frozen layer is frozen too; tuning it would cost the whole backward pass.
        for module in (encoder.conv1, encoder.conv2, *encoder.layers[: config.freeze_encoder_layers]):
            module.requires_grad_(False)


def _adapt(whisper: Whisper, config: TrainConfig) -> None:
    """Adds LoRA adapters (Hu et al. 2021) to the linear layers named in `lora_targets`, except frozen ones."""
    from peft import LoraConfig, inject_adapter_in_model

    targets = _targets(whisper, config)
    settings = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # declared an int, used as a factor
        lora_dropout=config.lora_dropout,
        target_modules=targets,
    )
    inject_adapter_in_model(settings, whisper.model)


def check_targets(whisper: Whisper, config: TrainConfig) -> None:
    """Raises InputError for unknown `lora_targets`; of `whisper` only the names of its modules count."""
    _targets(whisper, config)


def _targets(whisper: Whisper, config: TrainConfig) -> list[str]:
    """Full names of the linear layers that get an adapter. Raises InputError for unknown `lora_targets`."""
    by_target: dict[str, list[str]] = {}
    for name, module in whisper.model.named_modules():
        if isinstance(module, nn.Linear) and ".layers." in name:
            by_target.setdefault(name.rpartition(".")[2], []).append(name)
    wanted = {part.strip() for part in config.lora_targets.split(",") if part.strip()}
    unknown = sorted(wanted - by_target.keys())
    if unknown or not wanted:
        legal = ", ".join(sorted(by_target))
        raise InputError(f"lora_targets: {', '.join(unknown) or 'empty'}: no such module; there are {legal}")
    return sorted(name for target in wanted for name in by_target[target] if not _is_frozen(name, config))


def _is_frozen(name: str, config: TrainConfig) -> bool:
    prefix = "model.encoder.layers."
    if not name.startswith(prefix):
        return False
    return config.freeze_encoder or int(name.removeprefix(prefix).split(".")[0]) < config.freeze_encoder_layers
