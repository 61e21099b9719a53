"""Text as WER compares it: Whisper's own normalizers, with combining marks kept where a language writes with them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import lru_cache

from tmsearch.languages import UNSPACED, code_if_known, usual_normalizer

# How an apostrophe is typed cannot be heard. Whisper's rules for contractions match the plain one only, so a
# reference with a typographic one would cost an error in each don't, whatever the hypothesis says.
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\uff07", "'"))


@lru_cache(maxsize=8)
def normalizer(language: str, rule: str | None = None) -> Callable[[str], str]:
    """The function that reference and hypothesis both go through: the English one for `en`, else the basic one.

    Args:
        language: any name of the texts' language.
        rule: one of config.NORMALIZERS, "marks" being the basic one whatever the language; None: the one usual for
            the language.
    """
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    code = code_if_known(language)
    if _is_english(code, rule):
        english = _trimmed(EnglishTextNormalizer())
        return lambda text: english(text.translate(_APOSTROPHES))
    basic = BasicTextNormalizer(split_letters=code in UNSPACED)
    if (rule or usual_normalizer(code)) == "marks":
        basic.clean = _symbols_removed
    return _trimmed(basic)


def describe(language: str, rule: str | None = None) -> str:
    """Which normalizer `normalizer` gives, in words."""
    code = code_if_known(language)
    if _is_english(code, rule):
        return "Whisper's English normalizer"
    text = "Whisper's basic normalizer"
    if (rule or usual_normalizer(code)) == "marks":
        text += " with combining marks kept within words"
    if code in UNSPACED:
        text += ", each character a word"
    return text


def _is_english(code: str, rule: str | None) -> bool:
    return code == "en" and rule != "marks"


def characters(normal_text: str, language: str) -> str:
    """A normalized text as CER counts it: without the spaces that stand between the characters of some languages."""
    return normal_text.replace(" ", "") if code_if_known(language) in UNSPACED else normal_text


def _symbols_removed(text: str) -> str:
    """Symbols, punctuation and stray marks as spaces: as Whisper does, but for the marks of letters and digits."""
    cleaned = ""
    for character in unicodedata.normalize("NFKC", text):
        category = unicodedata.category(character)[0]
        is_stray_mark = category == "M" and (not cleaned or cleaned[-1] == " ")
        cleaned += " " if category in "SP" or is_stray_mark else character
    return cleaned


def _trimmed(normalize: Callable[[str], str]) -> Callable[[str], str]:
    """Without the space that the normalizers leave at either end of some texts."""
    return lambda text: " ".join(normalize(text).split())
