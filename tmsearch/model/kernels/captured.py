"""The layers of a training step as CUDA graphs, which the host launches by two calls.

Both passes of large-v3's layers are some 2,600 launches. Timed on a CPU, a host takes longer to make them than a Hopper
that is played takes to run them (studies/README.md, 2026-11-30). A graph (torch.cuda.CUDAGraph) is such launches on the
same memory again: it holds for one shape. So rows are filled up by a clip that has no tokens, and tokens by some that
no label looks at; neither changes a result but for rounding.

What comes before the layers, convolutions and the token table, and what comes after, the loss and the optimizer, is
launched as ever: that is little, and its shapes or numbers are others in each step.

Dimension words in shape comments: clips, rows (positions of all clips, clip after clip), tokens (decoder), channels
(attention.COUNT_CHANNELS).
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import WhisperForConditionalGeneration

from tmsearch.config import TrainConfig
from tmsearch.model import forward
from tmsearch.model.attention import Layout, Packed
from tmsearch.model.kernels.fused import FusedKernels
from tmsearch.model.kernels.recorder import Recorder, Replayable
from tmsearch.model.kernels.weights import ProductWeight
from tmsearch.model.layers import Layers

# Batches are filled up to multiples of a power of two: of at least so many rows, and a 32nd of theirs; of so many
# tokens, and an 8th of theirs. A finer grid wastes less on filling and captures more graphs (studies/README.md).
ROWS_STEP = 256
ROWS_STEPS = 32
TOKENS_STEP = 8
TOKENS_STEPS = 8
# A shape is captured when it is met for this time: many are met once. Where the graphs of a larger one serve, later.
SIGHTINGS = 2
OWN_SIGHTINGS = 32
MOST_GRAPHS = 24
# A batch may go through the graphs of a larger one, up to so many times its rows; to launch it takes longer than that.
MOST_FILLING = 1.25
# Of a replay against the same launches, some of whose sums come in another order each time: of a result as a whole, and
# of the norm of a gradient; of norms where both draw numbers of their own.
TOLERANCE = 0.02
NORM_TOLERANCE = 0.1
DRAWN_TOLERANCE = 0.5
SMALL = 1e-3  # of the largest gradient's norm: what differs by less is rounding
_log = logging.getLogger(__name__)


def draws(config: TrainConfig) -> bool:
    """Whether layers draw random numbers on the device, as dropout does."""
    return bool(config.dropout or config.attention_dropout or (config.lora_r and config.lora_dropout))


def is_capturable(config: TrainConfig) -> bool:
    """Whether the layers of such a training are the same launches in every step.

    They are not where the host draws which layers are skipped; nor can layers that draw be run again in a graph with
    the numbers that they drew.
    """
    return not (config.stochastic_depth or (config.gradient_checkpointing and draws(config)))


class Shape(NamedTuple):
    """Of a batch that is filled up."""

    rows: int
    clips: int
    tokens: int
    has_counts: bool  # whether positions stand for several

    def holds(self, other: Shape) -> bool:
        """Whether batches of `other` can be filled up to this shape, and are not much smaller."""
        is_enough = self.rows >= other.rows and self.tokens >= other.tokens
        is_alike = (self.clips, self.has_counts) == (other.clips, other.has_counts)
        return is_enough and is_alike and self.rows <= MOST_FILLING * other.rows


def shape_of(states: torch.Tensor, embedded: torch.Tensor, packed: Packed, most_tokens: int) -> Shape:
    """What a batch of `states` [rows, d_model] and `embedded` [clips, tokens, d_model] is filled up to.

    The decoder has `most_tokens` positions.
    """
    clips, tokens, _ = embedded.shape
    filled_up = min(_up(tokens, _step(tokens, TOKENS_STEP, TOKENS_STEPS)), most_tokens)
    rows = _up(len(states), _step(len(states), ROWS_STEP, ROWS_STEPS))
    return Shape(rows, clips, filled_up, packed.channels is not None)


@dataclass(frozen=True)
class _Stacks:
    """What all graphs are made of."""

    model: WhisperForConditionalGeneration
    layers: Layers
    kernels: FusedKernels  # keep the gradients of products' weights
    weights: list[nn.Parameter]  # all that are trained
    draws: bool  # whether no two passes are the same
    gradients: dict[int, torch.Tensor] = field(default_factory=dict)  # of the other weights, by their ids


class _ShapeGraphs:
    """Both passes over batches of one shape, and the memory that they read and write."""

    def __init__(
        self, stacks: _Stacks, shape: Shape, states: torch.Tensor, embedded: torch.Tensor, packed: Packed
    ) -> None:
        """Takes memory for `shape`, and whatever else there is to know from a batch, which is not kept."""
        self.shape = shape
        self._stacks = stacks
        width = states.shape[1]
        self._states = states.new_zeros(shape.rows, width)  # [rows, d_model]
        self._embedded = embedded.new_zeros(shape.clips, shape.tokens, width)  # [clips, tokens, d_model]
        self._states.requires_grad_(states.requires_grad)
        self._embedded.requires_grad_(embedded.requires_grad)
        self._gradients: dict[int, torch.Tensor] = {}  # of these two, by their ids
        ends = packed.ends.new_full((shape.clips + 2,), shape.rows)
        channels = packed.channels
        # Attention's launches are for so many positions a clip, and so many are computed: of what fills up, too.
        least = math.ceil(shape.rows / MOST_FILLING) - _step(shape.rows, ROWS_STEP, ROWS_STEPS)
        self.longest = _up(max(packed.longest, shape.rows - least), ROWS_STEP)
        self._packed = Packed(
            lengths=(*packed.lengths, shape.rows - len(states)),
            longest=self.longest,
            ends=ends,
            channels=None if channels is None else channels.new_zeros(shape.rows, *channels.shape[1:]),
            no_bias=packed.no_bias,
        )
        self._recorded: _Recorded | None = None

    @torch.no_grad()
    def load(self, states: torch.Tensor, embedded: torch.Tensor, packed: Packed) -> None:
        """Puts a batch in. What fills it up may be any number: no result has a share of it."""
        self._states.detach()[: len(states)].copy_(states)
        self._states.detach()[len(states) :].zero_()
        self._embedded.detach()[:, : embedded.shape[1]].copy_(embedded)
        self._packed.ends[: len(packed.ends)].copy_(packed.ends)
        if self._packed.channels is not None and packed.channels is not None:
            self._packed.channels[: len(states)].copy_(packed.channels)

    def launch_forward(self) -> torch.Tensor:
        """The decoder's last states, [clips, tokens, d_model]."""
        clips = self._packed.lengths
        layout = Layout((1,) * len(clips), clips, (None,) * len(clips), self._packed)
        encoded = forward.encode_rows(self._stacks.model, self._states, layout, self._stacks.layers)
        return forward.decode(self._stacks.model, self._embedded, encoded, self._stacks.layers)

    def launch_backward(self, hidden: torch.Tensor, hidden_gradient: torch.Tensor) -> None:
        """Writes all gradients to their places; those of products' weights are written by the kernels."""
        inputs = [tensor for tensor in (self._states, self._embedded) if tensor.requires_grad]
        weights = self._stacks.weights
        # Not by backward(): nodes that add to `grad` belong to the stream that they were made on.
        gradients = torch.autograd.grad(hidden, [*inputs, *weights], hidden_gradient, allow_unused=True)
        targets, sources = [], []
        for index, (tensor, gradient) in enumerate(zip([*inputs, *weights], gradients, strict=True)):
            if gradient is not None:
                places = self._gradients if index < len(inputs) else self._stacks.gradients
                targets.append(places.setdefault(id(tensor), torch.empty_like(gradient)))
                sources.append(gradient)
        torch._foreach_copy_(targets, sources)

    def record(self, recorder: Recorder) -> bool:
        """Records both passes over the batch that was put in; returns whether they give what their launches give."""
        kernels = self._stacks.kernels
        with _uncached_autocast(self._states.device.type):
            # Launched once, which compiles what is not yet compiled and takes memory for gradients.
            hidden = self.launch_forward()
            hidden_gradient = _any_gradient(hidden)
            self.launch_backward(hidden, hidden_gradient)
            expected = self._summary(hidden)
            del hidden
            kernels.keep_gradient_memory()
            kernels.drop_gradients()
            hidden, forward_graph = recorder.record(self.launch_forward)
            _, backward_graph = recorder.record(lambda: self.launch_backward(hidden, hidden_gradient))
        written = kernels.with_gradient()
        self._recorded = _Recorded(hidden.detach(), hidden_gradient, written, forward_graph, backward_graph)
        torch._foreach_zero_(self._all_gradients())  # what a graph does not write is not there
        self._recorded.forward.replay()
        self._recorded.backward.replay()
        return self._is_like(self._summary(hidden), expected)

    def _all_gradients(self) -> list[torch.Tensor]:
        """Where those of inputs and weights are."""
        of_products = [gradient for weight in self._stacks.kernels.with_gradient() for gradient in weight.gradients()]
        return [*self._gradients.values(), *self._stacks.gradients.values(), *of_products]

    def _summary(self, hidden: torch.Tensor) -> _Summary:
        """What tells one pass from another."""
        norms = torch.stack([_norm(gradient) for gradient in self._all_gradients()])
        return _Summary(norms, [hidden.detach().clone(), *(gradient.clone() for gradient in self._gradients.values())])

    def _is_like(self, given: _Summary, expected: _Summary) -> bool:
        """Whether two passes over a batch are equal but for rounding; if they draw, whether their norms are alike."""
        tolerance = DRAWN_TOLERANCE if self._stacks.draws else NORM_TOLERANCE
        if given.norms.shape != expected.norms.shape:
            return False
        limits = tolerance * expected.norms + SMALL * expected.norms.max()
        if not bool(((given.norms - expected.norms).abs() <= limits).all()):
            return False
        if self._stacks.draws:
            return bool(torch.stack([result.isfinite().all() for result in given.results]).all())
        pairs = list(zip(given.results, expected.results, strict=True))
        differences = torch.stack([_norm(result - wanted) for result, wanted in pairs])
        return bool((differences <= TOLERANCE * torch.stack([_norm(wanted) for _, wanted in pairs])).all())

    def replay_forward(self) -> torch.Tensor:
        """As `launch_forward`, in memory that the next one overwrites."""
        recorded = self._finished()
        recorded.forward.replay()
        return recorded.hidden

    def replay_backward(self, hidden_gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Gives the weights their gradients, and returns those of states and embedded tokens, where they are wanted.

        `hidden_gradient` is of the first tokens, [clips, tokens, d_model].
        """
        recorded = self._finished()
        tokens = hidden_gradient.shape[1]
        recorded.hidden_gradient[:, :tokens].copy_(hidden_gradient)
        recorded.hidden_gradient[:, tokens:].zero_()
        recorded.backward.replay()
        for weight in self._stacks.weights:
            if id(weight) in self._stacks.gradients:  # others have theirs from the loss, or will get it
                weight.grad = self._stacks.gradients[id(weight)]
        for product in recorded.written:
            product.note_gradient()
        return self._gradients.get(id(self._states)), self._gradients.get(id(self._embedded))

    def _finished(self) -> _Recorded:
        if self._recorded is None:
            raise RuntimeError(f"{self.shape}: nothing was recorded")
        return self._recorded


class _Summary(NamedTuple):
    """Of both passes over a batch."""

    norms: torch.Tensor  # [gradients], of inputs and weights
    results: list[torch.Tensor]  # the decoder's last states, and the gradients of the inputs


@dataclass(frozen=True)
class _Recorded:
    """Both graphs of a shape."""

    hidden: torch.Tensor  # the decoder's last states, [clips, tokens, d_model]
    hidden_gradient: torch.Tensor  # of the same shape
    written: list[ProductWeight]  # that get a gradient
    forward: Replayable
    backward: Replayable


class CapturedLayers:
    """Runs a model's layers by graphs, in steps whose batches go through them as a whole."""

    def __init__(
        self,
        model: WhisperForConditionalGeneration,
        layers: Layers,
        kernels: FusedKernels,
        recorder: Recorder,
        draws: bool = False,
    ) -> None:
        """`layers` are those of `model`, by `kernels`; with `draws` they draw random numbers."""
        self.before_capture: Callable[[], None] = lambda: None  # returns when no other thread uses the device
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._stacks = _Stacks(model, layers, kernels, weights, draws)
        self._recorder = recorder
        self._sightings: Counter[Shape] = Counter()
        self._graphs: list[_ShapeGraphs] = []
        self._is_on = True
        self._may_add = True
        self._anchor = torch.zeros((), requires_grad=True)  # by which autograd knows that there are gradients

    def run(self, states: torch.Tensor, embedded: torch.Tensor, layout: Layout) -> torch.Tensor | None:
        """The decoder's last states [clips, tokens, d_model], as forward.decode gives them; None without a graph.

        Weights must have no gradients: those of the backward pass replace them.

        Args:
            states: What forward.embed gave, [rows, d_model].
            embedded: Rows of the token table, [clips, tokens, d_model].
            layout: Of the rows.
        """
        packed = layout.packed
        if packed is None or not self._is_on:
            return None
        shape = shape_of(states, embedded, packed, self._stacks.model.config.max_target_positions)
        self._sightings[shape] += 1
        graphs = self._held(shape, packed)
        if graphs is None or (graphs.shape != shape and self._sightings[shape] >= OWN_SIGHTINGS):
            graphs = self._captured(shape, states, embedded, packed) or graphs
        if graphs is None:
            return None
        hidden: torch.Tensor = _Replayed.apply(states, embedded, self._anchor, packed, graphs)  # type: ignore[no-untyped-call]
        return hidden

    def _held(self, shape: Shape, packed: Packed) -> _ShapeGraphs | None:
        """The smallest graphs that a batch of `shape` may go through."""
        fitting = [graphs for graphs in self._graphs if graphs.shape.holds(shape) and graphs.longest >= packed.longest]
        return min(fitting, key=lambda graphs: graphs.shape, default=None)

    def _is_due(self, shape: Shape) -> bool:
        if self._sightings[shape] < SIGHTINGS or not self._may_add:
            return False
        # Where there is no room it is not asked for again: that is a call of the driver in every step.
        self._may_add = len(self._graphs) < MOST_GRAPHS and self._recorder.has_room()
        return self._may_add

    def _captured(
        self, shape: Shape, states: torch.Tensor, embedded: torch.Tensor, packed: Packed
    ) -> _ShapeGraphs | None:
        """New graphs of `shape`, where they are due; if they cannot be made, or are wrong, none are tried any more."""
        if not self._is_due(shape):
            return None
        self.before_capture()
        graphs = _ShapeGraphs(self._stacks, shape, states, embedded, packed)
        graphs.load(states, embedded, packed)
        try:
            problem = None if graphs.record(self._recorder) else "they differ from the launches that they replay"
        except RuntimeError as error:
            problem = str(error).strip().split("\n")[0][:200]
        self._stacks.kernels.drop_gradients()
        if problem is not None:
            _log.warning("training steps cannot be CUDA graphs (%s); going on without", problem)
            self._is_on = False
            self._graphs.clear()
            return None
        self._graphs.append(graphs)
        return graphs


class _Replayed(torch.autograd.Function):
    """The layers by their graphs, between operations that are launched."""

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        embedded: torch.Tensor,
        anchor: torch.Tensor,
        packed: Packed,
        graphs: _ShapeGraphs,
    ) -> torch.Tensor:
        ctx.graphs = graphs
        ctx.rows = len(states)
        ctx.tokens = embedded.shape[1]
        graphs.load(states, embedded, packed)
        return graphs.replay_forward()[:, : ctx.tokens]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        of_states, of_embedded = ctx.graphs.replay_backward(gradient)
        if of_states is not None:
            of_states = of_states[: ctx.rows]
        if of_embedded is not None:
            of_embedded = of_embedded[:, : ctx.tokens]
        return of_states, of_embedded, None, None, None


def _step(count: int, least: int, most_steps: int) -> int:
    """The smallest of `least`, its double and so on of which `most_steps` make up `count`."""
    step = least
    while step * most_steps < count:
        step *= 2
    return step


def _up(count: int, step: int) -> int:
    """`count`, or the next multiple of `step`."""
    return math.ceil(count / step) * step


def _any_gradient(hidden: torch.Tensor) -> torch.Tensor:
    """Of the decoder's last states [clips, tokens, d_model]: numbers that no layer norm takes for a mean or a scale."""
    return torch.arange(hidden.numel(), device=hidden.device).cos().view_as(hidden).to(hidden.dtype)


def _uncached_autocast(device_type: str) -> torch.autocast:
    """Autocast as it is, but weights are cast wherever they are used: what it keeps could be changed by a replay."""
    dtype = torch.get_autocast_dtype(device_type)
    is_on = torch.is_autocast_enabled(device_type)
    return torch.autocast(device_type, dtype=dtype, enabled=is_on, cache_enabled=False)


def _norm(tensor: torch.Tensor) -> torch.Tensor:
    """[], float32, summed in no coarser format."""
    norm: torch.Tensor = torch.linalg.vector_norm(tensor, dtype=torch.promote_types(tensor.dtype, torch.float32))
    return norm.float()
