"""Words that agree and words that differ, counted as the WER counts them."""

import pytest

from tmsearch.evaluation.alignment import align, confusions
from tmsearch.evaluation.evaluate import score

TEXTS = [
    ("Please dial 1, now. It's fine", "please tile one it is fine fine"),
    ("", "something"),
    ("Nothing heard", ""),
    ("", ""),
    ("<b>colour</b> & 'quotes'", "color"),
    ("a b c d", "d c b a"),
]


@pytest.mark.parametrize(("said", "heard"), TEXTS)
def test_the_edits_are_those_of_the_wer(said, heard):
    pieces = align(said, heard, "en")
    (clip,) = score(["one"], [said], [heard], "en").clips
    counts = {
        "substitute": sum(len(piece.reference) for piece in pieces if piece.kind == "substitute"),
        "delete": sum(len(piece.reference) for piece in pieces if piece.kind == "delete"),
        "insert": sum(len(piece.hypothesis) for piece in pieces if piece.kind == "insert"),
    }
    assert counts == {"substitute": clip.substitutions, "delete": clip.deletions, "insert": clip.insertions}


def test_nothing_is_lost():
    pieces = align(*TEXTS[0], "en")
    assert " ".join(word for piece in pieces for word in piece.reference) == "please dial one now it is fine"
    assert " ".join(word for piece in pieces for word in piece.hypothesis) == "please tile one it is fine fine"


def test_confusions_are_counted():
    pairs = [("dial it now", "tile it"), ("dial one", "tile one more")]
    found = confusions(align(said, heard, "en") for said, heard in pairs)
    assert found == [("dial", "tile", 2), ("", "more", 1), ("now", "", 1)]
