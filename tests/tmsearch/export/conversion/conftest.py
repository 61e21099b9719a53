"""Whispers of the published sizes at toy widths, made once."""

import pytest

from tests.support import whisper_sizes


@pytest.fixture(scope="session")
def whispers():
    """By the name of their size."""
    return {name: whisper_sizes.whisper(name) for name in whisper_sizes.SIZES}
