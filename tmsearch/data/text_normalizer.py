"""Text as WER compares it: Whisper's own normalizers."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

# Written without spaces between words, so that a "word" is a character: Radford et al. 2022, appendix C, and
# Cantonese, which large-v3 added.
UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
# How an apostrophe is typed cannot be heard. Whisper's rules for contractions match the plain one only, so a
# reference with a typographic one would cost an error in each don't, whatever the hypothesis says.
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\uff07", "'"))


@lru_cache(maxsize=8)
def normalizer(language: str) -> Callable[[str], str]:
    """The function that reference and hypothesis both go through: the English one for `en`, else the basic one."""
    code = language.strip().lower()
    if code in ("en", "english"):
        english = _trimmed(EnglishTextNormalizer())
        return lambda text: english(text.translate(_APOSTROPHES))
    return _trimmed(BasicTextNormalizer(split_letters=code in UNSPACED))


def _trimmed(normalize: Callable[[str], str]) -> Callable[[str], str]:
    """Without the space that the normalizers leave at either end of some texts."""
    return lambda text: " ".join(normalize(text).split())
