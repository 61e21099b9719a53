"""The most doubtful transcript comes first, whatever a model that repeats itself makes of it."""

from tmsearch.data_quality import label_errors
from tmsearch.evaluation.scores import ClipScore


def test_the_share_of_words_in_error_ranks_and_repetitions_count_once():
    right = ClipScore("right", "a b c d", "a b c e", 1, 0, 0, 4)
    loop = ClipScore("loop", "a b c d", "a b c d" + " d" * 90, 0, 0, 90, 4)
    wrong = ClipScore("wrong", "a b c d", "w x y z v w", 4, 0, 2, 4)
    assert [score.name for score in label_errors.ranked([right, loop, wrong])] == ["wrong", "loop", "right"]
