"""The graphs compute what the model does, of every size, with and without a past, and are standard ONNX."""

import numpy as np
import pytest
import torch

from tests.support.whisper_sizes import SIZES, WIDTH
from tmsearch.export.conversion import onnx_graphs

onnx = pytest.importorskip("onnx", reason="onnx is not installed: the extra onnx has it")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: the extra onnx has it")

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module", params=["tiny", "large-v3"])
def converted(request, whispers, tmp_path_factory):
    """A toy of a size, and the folder of its graphs."""
    whisper = whispers[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    onnx_graphs.write(whisper, folder)
    return request.param, whisper, folder


@torch.no_grad()
def test_the_graphs_compute_what_the_model_does(converted):
    name, whisper, folder = converted
    size = SIZES[name]
    for file in (onnx_graphs.ENCODER, onnx_graphs.DECODER):
        onnx.checker.check_model(str(folder / file), full_check=True)
    encoder, decoder = (
        onnxruntime.InferenceSession(str(folder / file)) for file in (onnx_graphs.ENCODER, onnx_graphs.DECODER)
    )
    mels = torch.randn(2, size.n_mels, 3000, generator=torch.Generator().manual_seed(1))
    encoded = whisper.model.model.encoder(mels).last_hidden_state
    (heard,) = encoder.run(["last_hidden_state"], {"input_features": mels.numpy()})
    assert np.allclose(heard, encoded.numpy(), **CLOSE)

    ids = torch.tensor([[3, 50_300, 9, 77, 5], [1, 2, 3, 4, 5]])
    expected = whisper.model(encoder_outputs=(encoded,), decoder_input_ids=ids).logits.numpy()
    names = [value.name for value in decoder.get_outputs()]
    inputs = {"encoder_hidden_states": heard, "use_cache_branch": np.array([False])}
    for clips in (2, 0):  # readers give a past of no tokens, or one of no clips
        for layer in range(size.layers):
            for part in ("decoder.key", "decoder.value", "encoder.key", "encoder.value"):
                past = np.zeros((clips, 2, 0, WIDTH // 2), dtype=np.float32)
                inputs[f"past_key_values.{layer}.{part}"] = past
        results = decoder.run(None, {**inputs, "input_ids": ids[:, :3].numpy()})
        assert np.allclose(results[0], expected[:, :3], **CLOSE)
    for position in (3, 4):
        cache = {name.replace("present", "past_key_values"): value for name, value in zip(names, results, strict=True)}
        del cache["logits"]
        inputs = {"encoder_hidden_states": heard, "use_cache_branch": np.array([True]), **cache}
        results = decoder.run(None, {**inputs, "input_ids": ids[:, position : position + 1].numpy()})
        assert np.allclose(results[0][:, 0], expected[:, position], **CLOSE)
        assert results[1].shape == (2, 2, position + 1, WIDTH // 2)
        assert results[3].shape == (2, 2, 1500, WIDTH // 2)


def test_large_weights_lie_beside_their_graph(converted, tmp_path, monkeypatch):
    _, whisper, _ = converted
    monkeypatch.setattr(onnx_graphs, "_LARGEST", 1000)
    onnx_graphs._save(onnx_graphs.encoder(whisper), tmp_path / onnx_graphs.ENCODER)
    assert (tmp_path / f"{onnx_graphs.ENCODER}_data").is_file()
    assert (tmp_path / onnx_graphs.ENCODER).stat().st_size < 100_000
    onnxruntime.InferenceSession(str(tmp_path / onnx_graphs.ENCODER))
