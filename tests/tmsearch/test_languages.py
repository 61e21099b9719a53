"""A language has one name, by whatever name it is given."""

import pytest
from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

from tmsearch.config import DataConfig
from tmsearch.languages import MARKED, NAMES, UNSPACED, language_code


def test_codes_and_names_are_whispers():
    assert NAMES == LANGUAGES
    for name, code in TO_LANGUAGE_CODE.items():
        assert language_code(name) == code
    assert set(MARKED | UNSPACED) <= set(LANGUAGES)


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("Japanese", "ja"),
        (" jpn ", "ja"),
        ("ja-JP", "ja"),
        ("zh_Hant_TW", "zh"),
        ("Mandarin", "zh"),
        ("zh-yue", "yue"),
        ("THAI", "th"),
        ("jv", "jw"),
        ("nb-NO", "no"),
        ("iw", "he"),
        ("fil", "tl"),
        ("Haitian Creole", "ht"),
        ("deu", "de"),
    ],
)
def test_every_name_of_a_language_is_resolved_to_whispers(written, code):
    assert language_code(written) == code
    assert DataConfig(dataset="x", language=written).language == code


def test_what_is_no_language_is_refused_with_a_hint():
    with pytest.raises(ValueError, match=r"did you mean ja \(japanese\)"):
        language_code("japanes")
    with pytest.raises(ValueError, match="give a code such as en"):
        language_code("xx")
