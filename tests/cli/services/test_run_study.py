"""What a study at work finds in its environment, and what is said at its end."""

import pytest

from search.records import Configuration, Rung, StudyRecord
from search.study import Summary
from tmsearch.cli.services import run_study
from tmsearch.cli.services.knobs import load_space

HALVES = """
study: halves
data: {dataset: demo, language: en}
budget: {max_steps: 80, rungs: [40, 80], spend: auto}
train: {model: demo/nano}
search: {learning_rate: {low: 1e-6, high: 1e-2, log: true}}
"""


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)


def test_the_training_process_gets_an_allocator_for_changing_lengths_unless_told_otherwise(two_gpus, monkeypatch):
    assert run_study.torch_environment()["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):  # its older name counts as well
        with monkeypatch.context() as patch:
            patch.setenv(name, "max_split_size_mb:512")
            assert "PYTORCH_ALLOC_CONF" not in run_study.torch_environment()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "PYTORCH_ALLOC_CONF" not in run_study.torch_environment()


def test_a_plan_that_was_exceeded_leaves_less_to_a_larger_one(tmp_path):
    """Six to the first rung and three to the end are 4.5 trainings, where 4 were planned; twelve are planned 7."""
    file = tmp_path / "halves.yaml"
    file.write_text(HALVES)
    space = load_space(str(file), (), None)
    history = []
    for number in range(6):
        steps = (40, 80) if number < 3 else (40,)
        rungs = tuple(Rung(step, 0.5 - 0.001 * step, {}) for step in steps)
        state = "finished" if number < 3 else "pruned"
        history.append(Configuration(number, "sampled", {}, {}, state, rungs=rungs))
    record = StudyRecord("halves", space.to_json(), "", 0, 6, False, "", 0.0)
    (line,) = run_study._more_lines("done", Summary(record, tuple(history), {}))
    assert line.startswith("the plan of 4.0 trainings in full is spent; 3 pruned trials could still win, with 1.5 more")
    assert "--trials 12 plans 2.5 more" in line
