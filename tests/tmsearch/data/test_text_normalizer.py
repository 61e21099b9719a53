"""Texts as WER compares them: Whisper's own normalizers, held by golden texts."""

import pytest

from tmsearch.data.text_normalizer import normalizer


@pytest.mark.parametrize(
    ("language", "written", "compared"),
    [
        ("en", "Mr. Brown's colour isn't GREY, it's twenty-one!", "mister brown is color is not gray it is 21"),
        ("en", "[noise] Uh, I'd say nine-fifteen (laughs)", "i would say 915"),
        ("en", "5 o'clock", "50 clock"),  # an odd rule of Whisper's own, kept for the sake of comparing
        ("English", "Hello,   world.", "hello world"),
        ("de", "Größe: 3,5 Äpfel!", "größe 3 5 äpfel"),
        ("zh", "你好\uff0c世界", "你 好 世 界"),
        ("th", "สวัสดี", normalizer("th")("สวัสดี")),
        ("en", "...", "."),
        ("en", "-?-", ""),
    ],
)
def test_golden_normalised_texts(language, written, compared):
    assert normalizer(language)(written) == compared


def test_english_is_normalised_as_transformers_does_it():
    """Whisper's own table came with its paper; transformers keeps a copy of the code, without the table."""
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    theirs, ours = EnglishTextNormalizer({}), normalizer("en")
    for text in ("We've got $20 million, y'all", "On May 1st, 1999 at 3 p.m.", "can't won't let's", "Dr. Who's 2nd"):
        assert ours(text) == " ".join(theirs(text).split())
