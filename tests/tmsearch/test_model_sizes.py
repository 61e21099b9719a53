import json

import pytest

from tmsearch.errors import InputError
from tmsearch.model_sizes import BASIC_SIZES, millions_of_parameters, recommended_learning_rate


def test_sizes_of_models():
    assert 1 < millions_of_parameters("demo/micro") < 2
    assert millions_of_parameters("openai/whisper-large-v3") > millions_of_parameters("openai/whisper-tiny.en") == 39
    assert millions_of_parameters("someone/else") is None


@pytest.mark.parametrize(
    ("model", "millions", "rate"),
    [
        ("openai/whisper-large", 1550.0, 4.4e-6),
        ("openai/whisper-large-v1", 1550.0, 4.4e-6),
        ("openai/whisper-large-v2", 1550.0, 5e-6),
        ("openai/whisper-large-v3-turbo", 809.0, 5e-6),
        ("distil-whisper/distil-large-v3", 756.0, 5e-6),
        ("distil-whisper/distil-small.en", 166.0, 1.25e-5),
        ("Someone/Whisper-BASE-tuned", 74.0, 2.5e-5),
    ],
)
def test_a_name_is_of_the_first_size_that_it_contains(model, millions, rate):
    assert millions_of_parameters(model) == millions
    assert recommended_learning_rate({"model": model}) == rate


def test_a_folder_is_known_by_its_width_and_adapters_have_a_rate_of_their_own(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"d_model": 1280}))
    assert recommended_learning_rate({"model": str(tmp_path)}) == 5e-6
    assert recommended_learning_rate({"model": "someone/else", "lora_r": 8}) == pytest.approx(3.16e-4, rel=1e-3)


def test_a_model_of_unknown_size_has_no_rate():
    with pytest.raises(InputError, match="no recommended learning_rate is known"):
        recommended_learning_rate({"model": "someone/else"})


def test_basic_sizes_grow():
    assert [size.name for size in BASIC_SIZES] == ["tiny", "base", "small", "medium", "large-v3"]
