"""The folder for faster-whisper has the model's alignment heads, languages, suppressed tokens, mel bins and words."""

import json

import pytest

from tests.support.whisper_sizes import SIZES
from tmsearch.errors import InputError
from tmsearch.export import model_folder
from tmsearch.export.conversion import ctranslate2_folder

faster_whisper = pytest.importorskip(
    "faster_whisper", reason="faster-whisper is not installed: the extra faster-whisper has it"
)


@pytest.mark.parametrize("name", SIZES)
def test_faster_whisper_reads_every_size(whispers, name, tmp_path):
    whisper, size = whispers[name], SIZES[name]
    language = "en" if whisper.is_multilingual else None
    model_folder.export(whisper, tmp_path / "best", language=language, task="transcribe")
    (tmp_path / "out").mkdir()
    ctranslate2_folder.write(whisper, tmp_path / "best", tmp_path / "out", "float16")

    settings = whisper.model.generation_config
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["alignment_heads"] == [list(pair) for pair in size.alignment_heads]
    assert config["suppress_ids"] == settings.suppress_tokens
    assert config["suppress_ids_begin"] == settings.begin_suppress_tokens
    if whisper.is_multilingual:
        start = settings.decoder_start_token_id
        assert config["lang_ids"] == list(range(start + 1, start + 1 + size.languages))
    words = json.loads((tmp_path / "out" / "vocabulary.json").read_text())
    assert len(words) == size.vocabulary
    assert words[-1501:] == [f"<|{index * 0.02:.2f}|>" for index in range(1501)]

    loaded = faster_whisper.WhisperModel(str(tmp_path / "out"), compute_type="float32", local_files_only=True)
    assert loaded.model.n_mels == size.n_mels
    assert loaded.feature_extractor.mel_filters.shape[0] == size.n_mels
    assert loaded.model.is_multilingual == whisper.is_multilingual
    assert loaded.hf_tokenizer.token_to_id("<|notimestamps|>") == settings.no_timestamps_token_id


def test_what_the_converter_refuses_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="ctranslate2 does not convert it"):
        ctranslate2_folder.write(None, tmp_path, tmp_path / "out", "float16")
