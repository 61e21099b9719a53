import math

import pytest
import torch

from tmsearch.loss import DIVERGED_MEAN_OF, IGNORED, Diverged, Losses, cross_entropy


def test_what_counts_as_diverged():
    losses = Losses(vocabulary=1000)
    for step in range(1, 6):
        losses.add(step, 2.0, 1.0)
    for step in range(6, 14):
        losses.add(step, 7.5, 1.0)  # above three times the first and above guessing (6.9), but not for long enough
    with pytest.raises(Diverged, match=r"step 14: the loss diverged, from 2 to a mean of 6.95"):
        losses.add(14, 7.5, 1.0)
    for bad in (math.nan, math.inf):
        with pytest.raises(Diverged, match=f"step 3: the loss is {bad}"):
            Losses(1000).add(3, bad, 1.0)
        with pytest.raises(Diverged, match=f"step 3: the gradient's norm is {bad}"):
            Losses(1000).add(3, 2.0, bad)


def test_a_poor_training_is_not_a_diverged_one():
    losses = Losses(vocabulary=1000)
    for step in range(1, 100):
        losses.add(step, 1.0 if step < 5 else 6.5, 1.0)  # six times worse, yet better than guessing
    restored = Losses(1000)
    restored.set_json(losses.to_json())
    assert (restored.first, restored.last) == (1.0, [6.5] * DIVERGED_MEAN_OF)


def test_loss_is_that_of_torch_and_ignores_padding():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 11), torch.tensor([[1, 2, 3], [4, IGNORED, IGNORED]])
    flat = torch.cat([logits[0], logits[1, :1]])
    expected = torch.nn.functional.cross_entropy(flat, torch.tensor([1, 2, 3, 4]), label_smoothing=0.1)
    assert cross_entropy(logits, labels, 4, 0.1).item() == pytest.approx(expected.item())
    logits[1, 1:] = 1e4
    assert cross_entropy(logits, labels, 4, 0.1).item() == pytest.approx(expected.item())
