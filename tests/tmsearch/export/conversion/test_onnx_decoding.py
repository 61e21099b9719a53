"""onnxruntime with the converted graphs writes the tokens that our own decoding writes."""

import pytest
import torch

from tests.support.whisper_sizes import SIZES
from tmsearch.export.conversion import onnx_graphs
from tmsearch.export.conversion.onnx_decoding import OnnxWhisper
from tmsearch.model.decoding import Decoder
from tmsearch.model.tokens import prompt_ids

pytest.importorskip("onnx", reason="onnx is not installed: the extra onnx has it")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: the extra onnx has it")


@pytest.mark.parametrize("name", ["tiny.en", "large-v3"])
def test_decoding_in_onnxruntime_gives_our_own_tokens(whispers, name, tmp_path):
    whisper = whispers[name]
    onnx_graphs.write(whisper, tmp_path)
    graphs = OnnxWhisper(tmp_path)
    settings = whisper.model.generation_config
    end, suppressed, first = settings.eos_token_id, settings.suppress_tokens, settings.begin_suppress_tokens
    mel = torch.randn(1, SIZES[name].n_mels, 3000, generator=torch.Generator().manual_seed(2))
    prompt = prompt_ids(whisper, "en", "transcribe")
    own = Decoder(whisper).greedy([mel], prompt, 5)[0].ids
    assert len(own) == 5
    assert graphs.greedy(mel.numpy(), prompt, end, suppressed, first, 5) == own
    assert graphs.greedy(mel.numpy(), prompt, end, [], [own[0]], 1) != own[:1], "suppressed tokens are not written"
    assert graphs.greedy(mel.numpy(), prompt, own[2], suppressed, first, 5) == own[: own.index(own[2])]
