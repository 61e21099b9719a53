"""WERs that may be per cent are asked about, never guessed."""

from pathlib import Path

import pytest

from tmsearch.errors import InputError
from tmsearch.importers.record import HandRun, digest, in_fractions

LOG = Path("log.csv")


def run_of(*wers):
    curve = tuple((20 * (index + 1), wer) for index, wer in enumerate(wers))
    return HandRun("run", digest("x"), {}, curve, "finished", "trained by hand", 40)


def test_per_cent_is_asked_for():
    with pytest.raises(InputError, match=r"--percent: WERs up to 41\.5"):
        in_fractions(run_of(41.5, 30.0), LOG, None)
    assert in_fractions(run_of(41.5, 30.0), LOG, True).curve == ((20, 0.415), (40, 0.30))
    assert in_fractions(run_of(41.5, 30.0), LOG, False).curve == ((20, 41.5), (40, 30.0))


def test_fractions_are_taken_as_they_are():
    assert in_fractions(run_of(2.2, 0.5), LOG, None).curve == ((20, 2.2), (40, 0.5))
