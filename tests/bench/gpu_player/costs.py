"""tmsearch/model/cost.py against the played GPU: its figures fitted anew, and its predictions beside the plays.

The figures of a layer are differences of shallow models, so that a fit takes a minute and not an hour.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from tests.bench.gpu_player import evaluation, training, workload
from tests.bench.gpu_player.rates import Rates
from tests.bench.gpu_player.shapes import SHAPES, Shapes
from tmsearch.config import TrainConfig
from tmsearch.model import cost
from tmsearch.model.context import POSITIONS_PER_SECOND
from tmsearch.model.cost import Card, Clips
from tmsearch.model_sizes import Dimensions

SECONDS = "mix"
BATCH = 16
TERA = 1e12


@dataclass(frozen=True)
class Setting:
    """What a space or the README names: a model's shapes, and knobs beside the defaults."""

    name: str
    shapes: str
    knobs: dict[str, object]


SETTINGS = (
    Setting("large-v3", "large-v3", {}),
    Setting("large-v3, low memory, 4 clips at a time", "large-v3", {"low_memory": True, "micro_batch_size": 4}),
    Setting("turbo", "turbo", {}),
    Setting("distil-large-v3.5", "distil-large-v3", {}),
    Setting("medium", "medium", {}),
    Setting("small", "small", {}),
)


def dimensions(shapes: Shapes) -> Dimensions:
    """Of played shapes, with their parameters counted."""
    width = shapes.d_model
    encoder = shapes.encoder_layers * (12 * width**2 + 13 * width)
    decoder = shapes.decoder_layers * (16 * width**2 + 19 * width)
    rest = (3 * shapes.n_mels + 3 * width + 2 + 4 + workload.POSITIONS + 448 + shapes.vocabulary) * width
    parameters = encoder + decoder + rest
    return Dimensions(parameters, width, shapes.encoder_layers, shapes.decoder_layers, shapes.n_mels, shapes.vocabulary)


def clips(batch: int, validation: int = 124, seconds: str = SECONDS) -> Clips:
    """The second batch that is played, as the model of cost has it."""
    lengths = workload.clip_seconds(seconds, batch, 2)
    rule = workload.context_rule(lengths, silence=True)
    return Clips(rule.mean_seconds(lengths), workload.TOKENS, validation)


def card(rates: Rates) -> Card:
    """The played GPU; its memory is not asked for."""
    return Card("the played GPU", 1000.0, rates.products, rates.memory)


def fitted(rates: Rates) -> dict[str, float]:
    """The figures of cost's layers, as the played GPU has them now."""
    base = dataclasses.replace(SHAPES["large-v3"], encoder_layers=2, decoder_layers=2)
    deeper = {
        "encoder": dataclasses.replace(base, encoder_layers=4),
        "decoder": dataclasses.replace(base, decoder_layers=4),
    }
    config = TrainConfig(batch_size=BATCH)
    played = training.step(base, config, rates, SECONDS, BATCH, rows=0)
    bytes_a_layer = {}
    seconds_a_layer = {}
    for stack, shapes in deeper.items():
        deep = training.step(shapes, config, rates, SECONDS, BATCH, rows=0)
        parameters = (dimensions(shapes).parameters - dimensions(base).parameters) / 2
        states = 14  # at the end of the forward pass: the weight, its cast, moments
        bytes_a_layer[stack] = (deep.peak_bytes - played.peak_bytes) / 2 - states * parameters
        flop = (deep.total.flop - played.total.flop) / 2
        seconds = (deep.total.seconds - played.total.seconds) / 2
        moved = cost.optimizer_moved(config, 1) * parameters
        seconds_a_layer[stack] = seconds - flop / (rates.products * TERA) - moved / (rates.memory * TERA)
    heard = clips(BATCH)
    positions = BATCH * heard.context_seconds * POSITIONS_PER_SECOND * base.d_model
    tokens = BATCH * heard.label_tokens * base.d_model
    crossing = cost.CROSS_MOVED * positions / (rates.memory * TERA)
    evaluated = evaluation.evaluation(base, TrainConfig(), rates, SECONDS, 32, rows=0).batches[0]
    decoded = evaluation.evaluation(deeper["decoder"], TrainConfig(), rates, SECONDS, 32, rows=0).batches[0]
    return {
        "ENCODER_KEPT": bytes_a_layer["encoder"] / positions,
        "DECODER_KEPT": (bytes_a_layer["decoder"] - cost.CROSS_KEPT * positions) / tokens,
        "ENCODER_MOVED": seconds_a_layer["encoder"] * rates.memory * TERA / positions,
        "DECODER_SECONDS": seconds_a_layer["decoder"] - crossing,
        "TOKEN_LAYER_SECONDS": (decoded.token.seconds - evaluated.token.seconds) / 2,
        "BATCH_SECONDS": evaluated.seconds
        - evaluated.encoding.seconds
        - 0.6 * evaluation.CAP * evaluated.token.seconds,
    }


def predicted(shapes: Shapes, config: TrainConfig, rates: Rates) -> tuple[float, float]:
    """Peak bytes and seconds of the second step that is played, as the model of cost has them."""
    micro_batch = config.micro_batch_size or config.batch_size
    size = dimensions(shapes)
    heard = clips(config.batch_size)
    memory = cost.memory_bytes(size, config, heard, micro_batch)
    return memory, cost.step_seconds(size, config, heard, card(rates), micro_batch)


def comparison(setting: Setting, rates: Rates) -> str:
    """One setting, played and predicted."""
    shapes = SHAPES[setting.shapes]
    config = TrainConfig(batch_size=BATCH, **setting.knobs)  # type: ignore[arg-type]
    micro_batch = config.micro_batch_size or BATCH
    played = training.step(shapes, config, rates, SECONDS, micro_batch, rows=0)
    memory, seconds = predicted(shapes, config, rates)
    return (
        f"{setting.name:42} memory {played.peak_bytes / 1e9:5.1f} GB, predicted {memory / 1e9:5.1f} "
        f"({memory / played.peak_bytes - 1:+.0%}); a step {1e3 * played.total.seconds:5.0f} ms, predicted "
        f"{1e3 * seconds:5.0f} ({seconds / played.total.seconds - 1:+.0%})"
    )
