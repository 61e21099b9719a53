"""Words that agree and words that differ, counted as the WER counts them."""

import pytest

from tmsearch.evaluation.alignment import align, confusions
from tmsearch.evaluation.error_rates import score

TEXTS = [
    ("Please dial 1, now. It's fine", "please tile one it is fine fine"),
    ("", "something"),
    ("Nothing heard", ""),
    ("", ""),
    ("<b>colour</b> & 'quotes'", "color"),
    ("a b c d", "d c b a"),
]


@pytest.mark.parametrize(("reference", "hypothesis"), TEXTS)
def test_the_edits_are_those_of_the_wer(reference, hypothesis):
    spans = align(reference, hypothesis, "en")
    (clip,) = score(["one"], [reference], [hypothesis], "en").clips
    counts = {
        "substitute": sum(len(span.reference) for span in spans if span.kind == "substitute"),
        "delete": sum(len(span.reference) for span in spans if span.kind == "delete"),
        "insert": sum(len(span.hypothesis) for span in spans if span.kind == "insert"),
    }
    assert counts == {"substitute": clip.substitutions, "delete": clip.deletions, "insert": clip.insertions}


def test_nothing_is_lost():
    spans = align(*TEXTS[0], "en")
    assert " ".join(word for span in spans for word in span.reference) == "please dial one now it is fine"
    assert " ".join(word for span in spans for word in span.hypothesis) == "please tile one it is fine fine"


def test_confusions_are_counted():
    pairs = [("dial it now", "tile it"), ("dial one", "tile one more")]
    counts = confusions(align(reference, hypothesis, "en") for reference, hypothesis in pairs)
    assert counts == [("dial", "tile", 2), ("", "more", 1), ("now", "", 1)]
