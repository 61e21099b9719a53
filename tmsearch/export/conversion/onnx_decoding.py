"""Greedy decoding of the two ONNX graphs in onnxruntime, a clip at a time, with a key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tmsearch.export.conversion.onnx_graphs import DECODER, ENCODER

_PAST, _PRESENT = "past_key_values", "present"


class OnnxWhisper:
    """The graphs of a folder, loaded."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        providers = onnxruntime.get_available_providers()
        self._encoder = onnxruntime.InferenceSession(str(folder / ENCODER), providers=providers)
        self._decoder = onnxruntime.InferenceSession(str(folder / DECODER), providers=providers)

    def greedy(
        self,
        mel: NDArray[np.float32],
        prompt: Sequence[int],
        end: int,
        suppressed: Sequence[int],
        suppressed_first: Sequence[int],
        most_tokens: int,
    ) -> list[int]:
        """The most likely tokens after `prompt`, without the end's.

        Args:
            mel: A clip's log-mel [1, n_mels, frames], padded to the encoder's window.
            prompt: Token ids that the decoder starts from.
            end: Id of the token that ends a text.
            suppressed: Ids that are never written.
            suppressed_first: Ids that are not written first.
            most_tokens: Where an endless text is cut.
        """
        (encoded,) = self._encoder.run(None, {"input_features": mel})  # [1, positions, width]
        cache = self._empty_cache()
        ids = list(prompt)
        for position in range(most_tokens):
            fed = ids if position == 0 else ids[-1:]
            logits, cache = self._step(fed, encoded, cache, is_first=position == 0)  # [vocabulary]
            logits[list(suppressed)] = -np.inf
            if position == 0:
                logits[list(suppressed_first)] = -np.inf
            token = int(logits.argmax())
            if token == end:
                break
            ids.append(token)
        return ids[len(prompt) :]

    def _empty_cache(self) -> dict[str, NDArray[np.float32]]:
        cache = {}
        for value in self._decoder.get_inputs():
            if value.name.startswith(_PAST):
                _, heads, _, head = value.shape
                cache[value.name] = np.zeros((1, heads, 0, head), dtype=np.float32)
        return cache

    def _step(
        self, ids: Sequence[int], encoded: NDArray[np.float32], cache: dict[str, Any], *, is_first: bool
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The logits behind the last of `ids` [vocabulary], and the cache with all of them."""
        inputs = {
            "input_ids": np.array([ids], dtype=np.int64),
            "encoder_hidden_states": encoded,
            "use_cache_branch": np.array([not is_first]),
            **cache,
        }
        logits, *present = self._decoder.run(None, inputs)
        names = [value.name.replace(_PRESENT, _PAST) for value in self._decoder.get_outputs()[1:]]
        return logits[0, -1], dict(zip(names, present, strict=True))
