import subprocess
import sys

import pytest

from tmsearch.config import TrainConfig
from tmsearch.errors import InputError
from tmsearch.model.context import (
    LEAD_PIECES,
    TAIL_PIECES,
    ContextRule,
    context_rule,
    dealt,
    full_context,
    max_context_seconds,
    thinned,
)


def test_a_clip_gets_its_length_and_a_margin_in_whole_steps():
    rule = ContextRule(max_positions=500, step_positions=25, full_positions=1500, silence=True)
    expected = {0.1: 25, 0.3: 25, 0.31: 50, 2.0: 125, 9.8: 500, 9.9: 500, 14.0: 500}
    assert {seconds: rule.positions(seconds) for seconds in expected} == expected
    assert rule.seconds == 10.0


@pytest.mark.parametrize(
    ("positions", "size", "expected"),
    [
        ([10, 50, 20, 40], 2, [[0, 1], [2, 3]]),
        ([100, 1, 1, 1, 1], 3, [[0, 4], [1, 2, 3]]),
        ([5, 5, 5], 1, [[0], [1], [2]]),
        ([7, 9], 4, [[0, 1]]),
    ],
)
def test_parts_of_a_batch_have_about_as_many_positions_each(positions, size, expected):
    assert sorted(dealt(positions, size)) == expected


def test_without_a_step_all_clips_get_the_same_context():
    assert [ContextRule(500, 0, 1500, True).positions(seconds) for seconds in (0.1, 9.0)] == [500, 500]
    assert full_context(1500) == ContextRule(1500, 0, 1500, False)


def test_length_groups_hold_every_clip_once_shorter_ones_first():
    groups = list(ContextRule(500, 50, 1500, True).length_groups([4.0, 0.5, 3.9, 9.0, 0.7]))
    assert groups == [(100, [1, 4]), (500, [0, 2]), (1000, [3])]


def test_the_longest_context_is_what_the_longest_clip_needs_unless_configured():
    assert max_context_seconds(TrainConfig(), 30.0, 14.73) == 15.0
    assert max_context_seconds(TrainConfig(), 30.0, 29.9) == 30.0
    assert max_context_seconds(TrainConfig(), 4.0, 3.9) == 4.0
    assert max_context_seconds(TrainConfig(context_seconds=20.0), 30.0, 14.73) == 20.0
    assert context_rule(TrainConfig(context_step=1.0), 30.0, 9.0) == ContextRule(475, 50, 1500, True)
    assert not context_rule(TrainConfig(context_silence=False), 30.0, 9.0).silence


def test_more_than_the_model_takes_is_refused():
    with pytest.raises(InputError, match=r"^train.context_seconds: 16: openai/whisper-small takes 4 s at most; leave"):
        max_context_seconds(TrainConfig(context_seconds=16.0), 4.0, 3.0)


def test_the_mean_context_counts_the_few_positions_of_silence():
    cut = ContextRule(500, 25, 1500, False).mean_seconds([2.0, 9.9])
    with_silence = ContextRule(500, 25, 1500, True).mean_seconds([2.0, 9.9])
    assert cut == pytest.approx((2.5 + 10.0) / 2)
    assert with_silence - cut == pytest.approx(0.02 * (len(thinned(1375)) + len(thinned(1000))) / 2)


@pytest.mark.parametrize("count", [1, 2, 7, 100, 1375])
def test_thinned_silence_stands_for_all_of_it_dense_at_both_ends(count):
    offsets, lengths = zip(*thinned(count), strict=True)
    assert sum(lengths) == count
    assert len(offsets) <= 24
    start = 0
    for offset, length in zip(offsets, lengths, strict=True):
        assert start <= offset < start + length
        start += length
    assert lengths[0] == lengths[-1] == 1
    assert thinned(0) == ()


def test_context_and_cost_need_no_torch():
    code = (
        "import sys\nfrom tmsearch import model_sizes\nfrom tmsearch.model import context, cost\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


QUIET = ContextRule(500, 25, 1500, True, quiet=True)


@pytest.mark.parametrize(
    ("own", "lead", "end"),
    [(475, 0, 475), (475, 100, 300), (475, 10, 300), (475, 470, 475), (500, 0, 20), (25, 0, 25), (475, 101, 474)],
)
def test_places_hold_all_speech_and_stand_for_the_whole_window(own, lead, end):
    places = QUIET.places(own, lead, end)
    assert sum(places.counts) == 1500
    assert list(places.positions) == sorted(set(places.positions))
    counts = dict(zip(places.positions, places.counts, strict=True))
    assert all(counts[position] == 1 for position in range(lead, end))
    assert len(places) <= own + TAIL_PIECES
    dense = len(places) - TAIL_PIECES - (LEAD_PIECES if places.counts[1] > 1 or lead > LEAD_PIECES else 0)
    assert dense % 25 == 0 or dense == own


def test_clips_with_equally_much_speech_share_a_length_wherever_it_stands():
    lengths = {len(QUIET.places(own, lead, lead + 200)) for own, lead in ((475, 60), (450, 100), (425, 150))}
    assert lengths == {200 + LEAD_PIECES + TAIL_PIECES}


def test_a_clip_that_fills_the_window_has_no_silence_behind():
    rule = ContextRule(1500, 25, 1500, True, quiet=True)
    places = rule.places(1500, 0, 1500)
    assert places.positions == tuple(range(1500))
    assert set(places.counts) == {1}


def test_quiet_is_thinned_only_as_silence_is():
    with pytest.raises(InputError, match="context_quiet: true: needs context_silence"):
        context_rule(TrainConfig(context_quiet=True, context_silence=False), 30.0, 9.0)
    with pytest.raises(InputError, match="context_quiet: true: needs context_silence and a context_step"):
        context_rule(TrainConfig(context_quiet=True, context_step=0.0), 30.0, 9.0)
