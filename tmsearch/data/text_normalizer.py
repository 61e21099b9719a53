"""Text as WER compares it: Whisper's own normalisers."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

# Written without spaces between words, so that a "word" is a character: Radford et al. 2022, appendix C, and
# Cantonese, which large-v3 added.
UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
# How an apostrophe is typed is nothing that was said. Whisper's rules for contractions know the plain one only, so
# that a reference with a typographic one would cost an error in each don't, whatever the model heard.
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\uff07", "'"))


@lru_cache(maxsize=8)
def normalizer(language: str) -> Callable[[str], str]:
    """The function that both sides of a WER go through: English's for `en`, else the basic one."""
    code = language.strip().lower()
    if code in ("en", "english"):
        english = _stripped(EnglishTextNormalizer())
        return lambda text: english(text.translate(_APOSTROPHES))
    return _stripped(BasicTextNormalizer(split_letters=code in UNSPACED))


def _stripped(normalise: Callable[[str], str]) -> Callable[[str], str]:
    """The normalisers leave a space at either end of some texts."""
    return lambda text: " ".join(normalise(text).split())
