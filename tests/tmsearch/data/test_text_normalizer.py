"""Texts as WER compares them: Whisper's own normalizers, held by golden texts."""

import pytest

from tmsearch.data.text_normalizer import describe, normalizer


@pytest.mark.parametrize(
    ("language", "written", "compared"),
    [
        ("en", "Mr. Brown's colour isn't GREY, it's twenty-one!", "mister brown is color is not gray it is 21"),
        ("en", "[noise] Uh, I'd say nine-fifteen (laughs)", "i would say 915"),
        ("en", "5 o'clock", "50 clock"),  # an odd rule of Whisper's own, kept for the sake of comparing
        ("English", "Hello,   world.", "hello world"),
        ("de", "Größe: 3,5 Äpfel!", "größe 3 5 äpfel"),
        ("zh", "你好\uff0c世界", "你 好 世 界"),
        ("th", "สวัสดี", "ส วั ส ดี"),
        ("Thai", "สวัสดี", "ส วั ส ดี"),
        ("Japanese", "今日は", "今 日 は"),
        ("hi", "हिन्दी में, किताब!", "हिन्दी में किताब"),
        ("ar", "كِتَاب", "كِتَاب"),
        ("yo", "ọ̀rọ̀ ❤️", "ọ̀rọ̀"),
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


def test_combining_marks_are_kept_only_where_the_language_is_written_with_them():
    assert normalizer("hi", "whisper")("हिन्दी") == "ह न द"  # Whisper's own, as studies before 0.2.0 had it
    assert normalizer("fi")("ka\u0303\u0301la") == normalizer("fi", "whisper")("ka\u0303\u0301la")
    assert describe("hi") == "Whisper's basic normalizer with combining marks kept within words"
    assert describe("hi", "whisper") == describe("de") == "Whisper's basic normalizer"
    assert describe("English") == "Whisper's English normalizer"
    assert describe("ja") == "Whisper's basic normalizer, each character a word"


def test_marks_asked_for_english_are_not_passed_over_in_silence():
    """A model of English that learns another language, as one without a multilingual checkpoint tries."""
    assert normalizer("en", "marks")("Perché no? È così, 20%.") == "perché no è così 20"
    assert describe("en", "marks") == "Whisper's basic normalizer with combining marks kept within words"
    assert describe("en", "whisper") == describe("en")
