"""The average of weights over a share of the steps: its reach, its exactness, what becomes of the weights meanwhile."""

import pytest
import torch
from torch import nn

from tmsearch.config import TrainConfig
from tmsearch.model import cost
from tmsearch.training.optim import average
from tmsearch.training.optim.average import WeightAverage


def after(steps, share, dtype=torch.float32):
    """The average of a weight that is the number of the step, and the weight."""
    weight = nn.Parameter(torch.zeros(3, dtype=dtype))
    averaged = WeightAverage({"w": weight}, share)
    for step in range(1, steps + 1):
        weight.data.fill_(step)
        averaged.update(step)
    return averaged, weight


@pytest.mark.parametrize("share", [0.1, 0.25, 1.0])
@pytest.mark.parametrize("steps", [60, 100, 800])
def test_it_is_as_old_as_the_mean_of_the_last_share_of_the_steps_at_every_rung(share, steps):
    averaged, _ = after(steps, share)
    age = steps - float(averaged.values["w"][0])
    assert age == pytest.approx(share * steps / 2, abs=0.03 * steps)


def test_over_all_steps_it_is_their_mean():
    averaged, _ = after(20, 1.0)
    assert averaged.values["w"].tolist() == pytest.approx([10.5] * 3)


def test_the_first_step_is_all_of_it():
    assert after(1, 0.2)[0].values["w"].tolist() == [1.0] * 3


def test_long_trainings_update_it_seldom_but_often_enough_and_the_plan_knows():
    share = 0.2
    for steps in (60, 800, 10_000):
        updates = [step for step in range(1, steps + 1) if average.is_update(step, share)]
        planned = cost.average_updates(TrainConfig(max_steps=steps, average_share=share))
        assert planned == pytest.approx(len(updates), rel=0.1)
        reach = [step for step in updates if step > (1 - share) * steps]
        assert len(reach) >= min(cost.AVERAGE_UPDATES, share * steps)
    assert len(updates) < 0.1 * 10_000
    assert all(average.is_update(rung, share) for rung in (100, 200, 400, 800))


def test_small_changes_of_bfloat16_weights_are_not_lost():
    """Each update moves it by less than bfloat16 resolves."""
    weight = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    averaged = WeightAverage({"w": weight}, 0.5)
    for step in range(1, 65):
        weight.data.fill_(1.0 if step <= 32 else 1.0 + 2**-7)
        averaged.update(step)
    assert averaged.values["w"].dtype == torch.float32
    assert 0.5 * 2**-7 < float(averaged.values["w"]) - 1.0 < 2**-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_come_back_to_the_bit_and_stay_where_they_are(dtype):
    averaged, weight = after(40, 0.5, dtype)
    weight.data.copy_(torch.tensor([0.1, -3.3, 7.7]))
    before, address = weight.detach().clone(), weight.data_ptr()
    seen = []

    def interrupted():
        with averaged.in_place():
            seen.append((weight.detach().clone(), weight.data_ptr()))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.equal(seen[0][0], averaged.values["w"].to(dtype))
    assert seen[0][1] == address
    assert torch.equal(weight.detach(), before)


def test_an_average_of_other_weights_is_refused():
    averaged, _ = after(2, 0.5)
    with pytest.raises(ValueError, match="of other weights"):
        averaged.restore({"w": torch.zeros(4)})
    with pytest.raises(ValueError, match="of other weights"):
        averaged.restore({"v": torch.zeros(3)})
