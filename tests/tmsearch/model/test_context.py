import pytest

from tmsearch.config import TrainConfig
from tmsearch.errors import InputError
from tmsearch.model.context import ContextRule, context_rule, max_context_seconds
from tmsearch.model.forward import thinned


def test_a_clip_is_heard_for_its_length_and_a_margin_in_whole_steps():
    rule = ContextRule(max_positions=500, step_positions=25, full_positions=1500, silence=True)
    assert [rule.positions(seconds) for seconds in (0.1, 0.3, 0.31, 2.0, 9.8, 9.9, 14.0)] == [
        25,
        25,
        50,
        125,
        500,
        500,
        500,
    ]
    assert rule.seconds == 10.0


def test_without_a_step_all_clips_are_heard_alike():
    assert [ContextRule(500, 0, 1500, True).positions(seconds) for seconds in (0.1, 9.0)] == [500, 500]


def test_runs_hold_every_clip_once_shorter_ones_first():
    runs = list(ContextRule(500, 50, 1500, True).length_groups([4.0, 0.5, 3.9, 9.0, 0.7]))
    assert runs == [(100, [1, 4]), (500, [0, 2]), (1000, [3])]


def test_the_longest_context_is_what_the_longest_clip_needs_unless_said():
    assert max_context_seconds(TrainConfig(), 30.0, 14.73) == 15.0
    assert max_context_seconds(TrainConfig(), 30.0, 29.9) == 30.0
    assert max_context_seconds(TrainConfig(), 4.0, 3.9) == 4.0
    assert max_context_seconds(TrainConfig(context_seconds=20.0), 30.0, 14.73) == 20.0
    assert context_rule(TrainConfig(context_step=1.0), 30.0, 9.0) == ContextRule(475, 50, 1500, True)
    assert not context_rule(TrainConfig(context_silence=False), 30.0, 9.0).silence


def test_more_than_the_model_hears_is_refused():
    with pytest.raises(InputError, match=r"^context_seconds: 16: openai/whisper-small hears 4 s at most$"):
        max_context_seconds(TrainConfig(context_seconds=16.0), 4.0, 3.0)


def test_what_the_encoder_works_through_counts_the_few_positions_of_silence():
    cut, heard = (ContextRule(500, 25, 1500, silence).mean_seconds([2.0, 9.9]) for silence in (False, True))
    assert cut == pytest.approx((2.5 + 10.0) / 2)
    assert heard - cut == pytest.approx(0.02 * (len(thinned(1375)) + len(thinned(1000))) / 2)
