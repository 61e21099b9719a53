import math
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from tmsearch.training import state
from tmsearch.training.state import DIVERGED_MEAN_OF, DivergenceError, DivergenceMonitor


def test_what_counts_as_diverged():
    losses = DivergenceMonitor(vocabulary=1000)
    for step in range(1, 6):
        losses.add(step, 2.0, 1.0)
    for step in range(6, 14):
        losses.add(step, 7.5, 1.0)  # above three times the first and above guessing (6.9), but not for long enough
    with pytest.raises(DivergenceError, match=r"step 14: the loss diverged, from 2 to a mean of 6.95"):
        losses.add(14, 7.5, 1.0)
    for bad in (math.nan, math.inf):
        with pytest.raises(DivergenceError, match=f"step 3: the loss is {bad}"):
            DivergenceMonitor(1000).add(3, bad, 1.0)
        with pytest.raises(DivergenceError, match=f"step 3: the gradient's norm is {bad}"):
            DivergenceMonitor(1000).add(3, 2.0, bad)


def test_a_poor_training_is_not_a_diverged_one():
    losses = DivergenceMonitor(vocabulary=1000)
    for step in range(1, 100):
        losses.add(step, 1.0 if step < 5 else 6.5, 1.0)  # six times worse, yet better than guessing
    restored = DivergenceMonitor(1000)
    restored.set_json(losses.to_json())
    assert (restored.first, restored.last) == (1.0, [6.5] * DIVERGED_MEAN_OF)


def test_prefetching_is_over_before_a_gpus_work_is_captured():
    allowed = threading.Event()
    prepared = []
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(lambda: allowed.wait(10) and prepared.append("batch"))
        threading.Timer(0.05, allowed.set).start()
        state.TrainState.finish_prefetching(SimpleNamespace(_prefetched={(2, 16): future}))
        assert prepared == ["batch"]
