import os
from pathlib import Path

import pytest
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from tests.support import toy_whisper
from tmsearch.config import TrainConfig
from tmsearch.demo.paths import DEMO
from tmsearch.errors import InputError
from tmsearch.model import whisper as model
from tmsearch.model.tokens import label_ids, prompt_ids
from tmsearch.model.whisper import Whisper

ASSETS = Path(os.environ.get("TMSEARCH_ASSETS", Path(__file__).parents[3].parent / "shared/assets"))
MICRO = DEMO / "micro"


def whisper(tokenizer, *, multilingual=True):
    """A Whisper of which only the tokenizer counts."""
    return Whisper(None, tokenizer, None, "toy", multilingual, 100)


@pytest.fixture(scope="module")
def large_v3():
    """A tokenizer with the ids of large-v3's special tokens: 50,257 of text, 100 languages, and the rest in order."""
    specials = (
        "<|endoftext|>",
        "<|startoftranscript|>",
        *(f"<|{code}|>" for code in LANGUAGES),
        "<|translate|>",
        "<|transcribe|>",
        "<|startoflm|>",
        "<|startofprev|>",
        "<|nospeech|>",
        "<|notimestamps|>",
    )
    return whisper(toy_whisper.tokenizer(specials, filled_to=50_257))


SPACE, LETTER_H, LETTER_I = (
    sorted(toy_whisper.bytes_to_unicode().values()).index(letter) for letter in ("Ġ", "h", "i")
)


@pytest.mark.parametrize(
    ("language", "task", "prefix"),
    [
        ("en", "transcribe", [50259, 50360, 50364]),
        ("English", "transcribe", [50259, 50360, 50364]),
        ("de", "translate", [50261, 50359, 50364]),
        ("yue", "transcribe", [50358, 50360, 50364]),
    ],
)
def test_golden_ids_of_large_v3(large_v3, language, task, prefix):
    assert label_ids(large_v3, "hi", language, task) == [*prefix, SPACE, LETTER_H, LETTER_I, 50257]
    assert prompt_ids(large_v3, language, task) == [50258, *prefix]


@pytest.mark.skipif(not (ASSETS / "whisper-tiny.en").is_dir(), reason="needs ../shared/assets/whisper-tiny.en")
def test_golden_ids_of_tiny_en():
    from transformers import WhisperTokenizer

    tiny = whisper(WhisperTokenizer.from_pretrained(ASSETS / "whisper-tiny.en"), multilingual=False)
    assert label_ids(tiny, "Hello there.", "en", "transcribe") == [50362, 18435, 612, 13, 50256]
    assert prompt_ids(tiny, "en", "transcribe") == [50257, 50362]


@pytest.mark.skipif(not MICRO.is_dir(), reason="the embedded micro Whisper is not there")
def test_ids_of_micro_read_back():
    micro = model.load(TrainConfig(model="demo/micro"))
    ids = label_ids(micro, "Golf five, move.", "en", "transcribe")
    tokens = micro.tokenizer.convert_ids_to_tokens(ids)
    assert tokens[:3] == ["<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    assert tokens[-1] == "<|endoftext|>"
    assert micro.tokenizer.decode(ids, skip_special_tokens=True) == " Golf five, move."


def test_an_english_only_model_has_no_language_tokens_and_takes_no_other_language():
    english = whisper(toy_whisper.tokenizer(), multilingual=False)
    ids = {name: english.tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("notimestamps", "endoftext")}
    assert label_ids(english, "hi", "en", "transcribe")[::4] == [ids["notimestamps"], ids["endoftext"]]
    with pytest.raises(InputError, match="toy: an English-only model cannot transcribe from 'de'"):
        prompt_ids(english, "de", "transcribe")
    with pytest.raises(InputError, match="cannot translate from 'en'"):
        prompt_ids(english, "en", "translate")


def test_labels_never_start_a_transcript_and_end_once(large_v3):
    ids = label_ids(large_v3, "hi <|startoftranscript|> <|endoftext|> <|en|>", "en", "transcribe")
    assert 50258 not in ids
    assert ids.count(50257) == 1
    assert ids.count(50259) == 1
    assert large_v3.tokenizer.decode(ids[3:-1]) == " hi <|startoftranscript|> <|endoftext|> <|en|>"


def test_white_space_of_the_table_is_not_learned(large_v3):
    tidy = label_ids(large_v3, "a b", "en", "transcribe")
    assert label_ids(large_v3, " a \n\t b ", "en", "transcribe") == tidy
    assert label_ids(large_v3, "  ", "en", "transcribe") == [50259, 50360, 50364, 50257]


def test_an_unknown_language_or_task_is_reported(large_v3):
    with pytest.raises(InputError, match=r"toy: knows no <\|xx\|>; check data.language"):
        label_ids(large_v3, "hi", "xx", "transcribe")
    with pytest.raises(InputError, match=r"knows no <\|sing\|>"):
        label_ids(large_v3, "hi", "en", "sing")
