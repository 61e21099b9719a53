"""A Whisper as two ONNX graphs, in the files and by the names that Optimum, transformers.js and onnx-asr read.

    encoder_model.onnx          input_features [clips, mels, frames] -> last_hidden_state [clips, positions, width]
    decoder_model_merged.onnx   input_ids [clips, tokens], encoder_hidden_states [clips, positions, width],
                                past_key_values.LAYER.{decoder,encoder}.{key,value} [clips, heads, length, head width]
                                -> logits [clips, tokens, vocabulary], present.LAYER... of the same shapes

The decoder is one graph without branches. With a past of length 0 it computes keys and values of the whole encoded
clip; with one that has them it adds none. So `use_cache_branch`, by which the graphs of others choose, is taken and
not read. The graphs are written operation by operation from ONNX's own standard: no tracing, no version of torch to
fit, and the weights are there once.

Dimension words in shape comments: clips, tokens, past (tokens before), positions, width, heads, head.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tmsearch.model.whisper import Whisper

if TYPE_CHECKING:  # the extra onnx has it
    import onnx

ENCODER, DECODER = "encoder_model.onnx", "decoder_model_merged.onnx"
OPSET = 17  # the first with LayerNormalization
IR_VERSION = 8  # of opset 17's release
_LARGEST = 1_900_000_000  # bytes of weights inside a file: protobuf ends at 2 GiB
_BLOCKED = float(np.finfo(np.float32).min)  # added to the attention logits of later tokens
_PARTS = ("decoder.key", "decoder.value", "encoder.key", "encoder.value")


def write(whisper: Whisper, folder: Path) -> None:
    """Writes both graphs into `folder`, in float32; weights of more than 2 GB beside their graph, as FILE_data."""
    _save(encoder(whisper), folder / ENCODER)
    _save(decoder(whisper), folder / DECODER)


def encoder(whisper: Whisper) -> onnx.ModelProto:
    """The graph of the encoder."""
    config = whisper.model.config
    graph = _Graph(whisper, config.encoder_attention_heads)
    value = graph.convolution("input_features", "model.encoder.conv1", stride=1)  # [clips, width, frames]
    value = graph.convolution(value, "model.encoder.conv2", stride=2)  # [clips, width, positions]
    value = graph.add("Transpose", value, perm=[0, 2, 1])  # [clips, positions, width]
    value = graph.add("Add", value, graph.weight("model.encoder.embed_positions.weight"))
    for layer in range(config.encoder_layers):
        name = f"model.encoder.layers.{layer}"
        normalized = graph.layer_norm(value, f"{name}.self_attn_layer_norm")
        keys = graph.split_heads(graph.linear(normalized, f"{name}.self_attn.k_proj"))
        values = graph.split_heads(graph.linear(normalized, f"{name}.self_attn.v_proj"))
        value = graph.attention(value, normalized, f"{name}.self_attn", keys, values)
        value = graph.feed_forward(value, name)
    graph.add("Identity", graph.layer_norm(value, "model.encoder.layer_norm"), to="last_hidden_state")
    frames = 2 * whisper.positions
    inputs = [_tensor("input_features", ["clips", config.num_mel_bins, frames])]
    return graph.model("encoder", inputs, [_tensor("last_hidden_state", ["clips", whisper.positions, config.d_model])])


def decoder(whisper: Whisper) -> onnx.ModelProto:
    """The graph of the decoder and the output layer."""
    config = whisper.model.config
    graph = _Graph(whisper, config.decoder_attention_heads)
    table = graph.weight("model.decoder.embed_tokens.weight")  # [vocabulary, width]
    pasts = [graph.past(layer) for layer in range(config.decoder_layers)]
    places = graph.places(pasts[0][0])
    embedded = graph.add("Gather", table, "input_ids")  # [clips, tokens, width]
    positions = graph.add("Gather", graph.weight("model.decoder.embed_positions.weight"), places)  # [tokens, width]
    value = graph.add("Add", embedded, positions)
    mask = graph.causal_mask(places)
    for layer, past in enumerate(pasts):
        name = f"model.decoder.layers.{layer}"
        normalized = graph.layer_norm(value, f"{name}.self_attn_layer_norm")
        keys = graph.continued(past[0], normalized, f"{name}.self_attn.k_proj", f"present.{layer}.decoder.key")
        values = graph.continued(past[1], normalized, f"{name}.self_attn.v_proj", f"present.{layer}.decoder.value")
        value = graph.attention(value, normalized, f"{name}.self_attn", keys, values, mask)
        normalized = graph.layer_norm(value, f"{name}.encoder_attn_layer_norm")
        encoded = graph.not_in(past[2], "encoder_hidden_states")
        keys = graph.continued(past[2], encoded, f"{name}.encoder_attn.k_proj", f"present.{layer}.encoder.key")
        values = graph.continued(past[3], encoded, f"{name}.encoder_attn.v_proj", f"present.{layer}.encoder.value")
        value = graph.attention(value, normalized, f"{name}.encoder_attn", keys, values)
        value = graph.feed_forward(value, name)
    value = graph.layer_norm(value, "model.decoder.layer_norm")
    graph.add("MatMul", value, graph.add("Transpose", table, perm=[1, 0]), to="logits")
    return graph.model("decoder", _decoder_inputs(config), _decoder_outputs(config))


def _decoder_inputs(config: Any) -> list[onnx.ValueInfoProto]:
    inputs = [
        _tensor("input_ids", ["clips", "tokens"], "INT64"),
        _tensor("encoder_hidden_states", ["clips", "positions", config.d_model]),
    ]
    inputs += _cache(config, "past_key_values", "past", "past positions")
    return [*inputs, _tensor("use_cache_branch", [1], "BOOL")]


def _decoder_outputs(config: Any) -> list[onnx.ValueInfoProto]:
    logits = _tensor("logits", ["clips", "tokens", config.vocab_size])
    return [logits, *_cache(config, "present", "past + tokens", "positions")]


def _cache(config: Any, prefix: str, tokens: str, positions: str) -> list[onnx.ValueInfoProto]:
    """Keys and values of each layer, by the name of their dimension of time."""
    heads = config.decoder_attention_heads
    tensors = []
    for layer in range(config.decoder_layers):
        for part in _PARTS:
            length = tokens if part.startswith("decoder") else positions
            tensors.append(_tensor(f"{prefix}.{layer}.{part}", ["clips", heads, length, config.d_model // heads]))
    return tensors


def _tensor(
    name: str, shape: list[int | str], kind: Literal["FLOAT", "INT64", "BOOL"] = "FLOAT"
) -> onnx.ValueInfoProto:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape)


def _save(model: onnx.ModelProto, file: Path) -> None:
    import onnx

    size = sum(len(weight.raw_data) for weight in model.graph.initializer)
    onnx.save_model(
        model, str(file), save_as_external_data=size > _LARGEST, location=f"{file.name}_data", size_threshold=1024
    )


class _Graph:
    """Nodes and weights of one graph. Methods take and return the names of values."""

    def __init__(self, whisper: Whisper, heads: int) -> None:
        self._parameters = whisper.model.state_dict()
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}
        self._width = whisper.model.config.d_model
        self._heads = heads
        self._head = self._width // heads

    def add(self, operation: str, *inputs: str, to: str | None = None, **attributes: Any) -> str:
        """Adds a node with one output, called `to` if that is given."""
        from onnx import helper

        output = to or f"{operation}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operation, inputs, [output], **attributes))
        return output

    def weight(self, name: str, *, transposed: bool = False) -> str:
        """A parameter by its name in transformers; transposed as ONNX multiplies, where asked for."""
        key = f"{name}.T" if transposed else name
        if key not in self._weights:
            array = self._parameters[name].detach().cpu().float().numpy()
            self._keep(key, np.ascontiguousarray(array.T if transposed else array))
        return key

    def constant(self, array: NDArray[Any]) -> str:
        """A constant, known by its type and value."""
        key = f"{array.dtype}_{'_'.join(map(str, array.ravel().tolist()))}_{array.ndim}"
        if key not in self._weights:
            self._keep(key, array)
        return key

    def _keep(self, key: str, array: NDArray[Any]) -> None:
        from onnx import numpy_helper

        self._weights[key] = numpy_helper.from_array(array, key)

    def integers(self, *numbers: int) -> str:
        """A constant [numbers]."""
        return self.constant(np.array(numbers, dtype=np.int64))

    def scalar(self, number: float) -> str:
        return self.constant(np.array(number, dtype=np.float32))

    def linear(self, value: str, name: str) -> str:
        """[..., width] -> [..., width of the layer]."""
        product = self.add("MatMul", value, self.weight(f"{name}.weight", transposed=True))
        if f"{name}.bias" not in self._parameters:  # keys have none
            return product
        return self.add("Add", product, self.weight(f"{name}.bias"))

    def layer_norm(self, value: str, name: str) -> str:
        weight, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.add("LayerNormalization", value, weight, bias, axis=-1, epsilon=1e-5)

    def gelu(self, value: str) -> str:
        """x (1 + erf(x / sqrt 2)) / 2; onnxruntime makes one kernel of the nodes."""
        erf = self.add("Erf", self.add("Div", value, self.scalar(math.sqrt(2))))
        return self.add("Mul", self.add("Mul", value, self.add("Add", erf, self.scalar(1))), self.scalar(0.5))

    def convolution(self, value: str, name: str, stride: int) -> str:
        weight, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.gelu(self.add("Conv", value, weight, bias, kernel_shape=[3], pads=[1, 1], strides=[stride]))

    def feed_forward(self, value: str, name: str) -> str:
        """`value` and what the layer's two linear maps add to it."""
        hidden = self.gelu(self.linear(self.layer_norm(value, f"{name}.final_layer_norm"), f"{name}.fc1"))
        return self.add("Add", value, self.linear(hidden, f"{name}.fc2"))

    def split_heads(self, value: str) -> str:
        """[clips, tokens, width] -> [clips, heads, tokens, head]."""
        split = self.add("Reshape", value, self.integers(0, 0, self._heads, self._head))
        return self.add("Transpose", split, perm=[0, 2, 1, 3])

    def attention(self, value: str, normalized: str, name: str, keys: str, values: str, mask: str | None = None) -> str:
        """`value` and what attention to keys and values [clips, heads, length, head] adds to it."""
        queries = self.split_heads(self.linear(normalized, f"{name}.q_proj"))
        queries = self.add("Mul", queries, self.scalar(self._head**-0.5))
        logits = self.add("MatMul", queries, self.add("Transpose", keys, perm=[0, 1, 3, 2]))
        if mask is not None:
            logits = self.add("Add", logits, mask)
        heard = self.add("MatMul", self.add("Softmax", logits, axis=-1), values)  # [clips, heads, tokens, head]
        heard = self.add("Transpose", heard, perm=[0, 2, 1, 3])
        heard = self.add("Reshape", heard, self.integers(0, 0, self._width))
        return self.add("Add", value, self.linear(heard, f"{name}.out_proj"))

    def past(self, layer: int) -> list[str]:
        """The layer's four inputs, each [clips, heads, length, head]; one of no clips becomes one of no length."""
        clips = self.add("Shape", "input_ids", start=0, end=1)
        row = self.add("Mul", clips, self.integers(self._width))  # numbers at one place in time
        reshaped = []
        for part in _PARTS:
            name = f"past_key_values.{layer}.{part}"
            length = self.add("Div", self.add("Reshape", self.add("Size", name), self.integers(1)), row)
            shape = self.add("Concat", clips, self.integers(self._heads), length, self.integers(self._head), axis=0)
            reshaped.append(self.add("Reshape", name, shape, allowzero=1))
        return reshaped

    def continued(self, past: str, value: str, name: str, to: str) -> str:
        """Keys or values: the past's, and those of `value` [clips, tokens, width] behind them."""
        return self.add("Concat", past, self.split_heads(self.linear(value, name)), to=to, axis=2)

    def not_in(self, past: str, value: str) -> str:
        """What of `value` [clips, positions, width] the past has no keys of: all, or nothing."""
        length = self.add("Shape", past, start=2, end=3)
        return self.add("Slice", value, length, self.integers(2**62), self.integers(1))

    def places(self, past: str) -> str:
        """The places of the tokens in the text [tokens], behind those of the past."""
        first = self.add("Squeeze", self.add("Shape", past, start=2, end=3))
        count = self.add("Squeeze", self.add("Shape", "input_ids", start=1, end=2))
        one = self.constant(np.array(1, dtype=np.int64))
        return self.add("Range", first, self.add("Add", first, count), one)

    def causal_mask(self, places: str) -> str:
        """[tokens, past + tokens], 0 for a token itself and those before it."""
        one = self.constant(np.array(1, dtype=np.int64))
        last = self.add("Gather", places, self.constant(np.array(-1, dtype=np.int64)))
        all_places = self.add("Range", self.constant(np.array(0, dtype=np.int64)), self.add("Add", last, one), one)
        is_later = self.add("Greater", all_places, self.add("Unsqueeze", places, self.integers(1)))
        return self.add("Where", is_later, self.scalar(_BLOCKED), self.scalar(0))

    def model(
        self, name: str, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        """The whole graph."""
        from onnx import helper

        graph = helper.make_graph(self._nodes, name, inputs, outputs, list(self._weights.values()))
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="tmsearch")
