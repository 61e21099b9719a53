"""Copies beside the training: on a device that makes them as late as it may, and on the CPU."""

import shutil
import threading

import pytest
import torch

from tests.support import toy_whisper
from tmsearch.training import checkpoint_writer, checkpoints, train
from tmsearch.training.checkpoint_writer import CheckpointWriter, CudaLane, HostBuffers, PlainLane
from tmsearch.training.checkpoints import Checkpoint
from tmsearch.training.train import ModelCache


class LateStream:
    """A CUDA stream that does its work only once somebody waits for it, as a busy device may."""

    def __init__(self, *_):
        self.work = []
        self.waited = []

    def wait_stream(self, other):
        self.waited.append(other)

    def wait_event(self, event):
        event.synchronize()


_ONE_AT_A_TIME = threading.Lock()


class LateEvent:
    def record(self, stream):
        self.stream, self.count = stream, len(stream.work)

    def synchronize(self):
        with _ONE_AT_A_TIME:  # asked from two threads: neither may go on while the other still copies
            while self.stream.work and self.count:
                self.stream.work.pop(0)()
                self.count -= 1


class LateLane(CudaLane):
    """The lane of a GPU, whose copies are work of its stream; plain memory stands for pinned."""

    def __init__(self):
        super().__init__(torch.device("cpu"))
        self._buffers = HostBuffers(is_pinned=False)

    def _copy(self, target, source):
        self._stream.work.append(lambda: target.copy_(source))


@pytest.fixture
def device(monkeypatch):
    """The stream that the training's own work goes to, which is done at once."""
    main = LateStream()
    monkeypatch.setattr(torch.cuda, "Stream", LateStream)
    monkeypatch.setattr(torch.cuda, "Event", LateEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: threading.Lock())
    return main


def a_checkpoint(step, value=1.0):
    tensors = {
        "weights": {"a": torch.full((4, 3), value), "b": torch.full((3,), value, dtype=torch.bfloat16)},
        "moments": {"step/a": torch.tensor(value), "exp_avg/a": torch.full((4, 3), value)},
    }
    return Checkpoint(step, tensors, {})


def change(checkpoint, value):
    for named in checkpoint.tensors.values():
        for tensor in named.values():
            tensor.fill_(value)


@pytest.mark.parametrize("is_late", [False, True])
def test_what_is_saved_is_what_there_was_whatever_is_trained_meanwhile(tmp_path, device, is_late):
    writer = CheckpointWriter(LateLane() if is_late else PlainLane())
    changing = a_checkpoint(1, 1.0)
    for step in (1, 2, 3):
        writer.write(tmp_path, Checkpoint(step, changing.tensors, {}), instead_of=step - 1 if step == 2 else None)
        writer.before_update()
        change(changing, step + 1.0)
    writer.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000002", "step-000003"]
    for step in (2, 3):
        saved = checkpoints.load(tmp_path / f"step-{step:06d}").tensors
        expected = a_checkpoint(step, float(step)).tensors
        for group, named in expected.items():
            assert all(torch.equal(saved[group][name], tensor) for name, tensor in named.items())


def test_the_comparison_above_can_fail(tmp_path, device):
    """Without the wait, the late device copies what the next update made of the tensors."""
    lane = LateLane()
    writer = CheckpointWriter(lane)
    changing = a_checkpoint(1, 1.0)
    hold = threading.Event()
    finish = lane.finish
    lane.finish = lambda: (hold.wait(10), finish())
    writer.write(tmp_path, changing)
    change(changing, 2.0)
    hold.set()
    writer.wait()
    assert checkpoints.load(tmp_path / "step-000001").tensors["weights"]["a"][0, 0] == 2.0


def test_copies_wait_for_the_training_and_its_next_update_for_them(tmp_path, device):
    lane = LateLane()
    lane.start(a_checkpoint(1).tensors)
    assert lane._stream.waited == [device], "copies come after what was launched before"
    assert len(lane._stream.work) == 4
    lane.before_update()
    assert lane._stream.work == []


def test_a_training_with_late_copies_equals_one_without(tmp_path, device):
    """Through train(): what stands in the way of the optimizer's step is the writer's wait."""
    toy = toy_whisper.whisper_folder(tmp_path / "toy")
    speech = toy_whisper.speech(toy_whisper.corpus_folder(tmp_path / "corpus"), tmp_path / "cache")
    config = toy_whisper.config(toy)
    saved = {}
    for name, lane in (("plain", None), ("late", LateLane())):
        cache = ModelCache(lane)
        stretch = toy_whisper.stretch(tmp_path / name, 1)
        train.train(config, speech, stretch, lambda step: None, model_cache=cache)
        # On to the next rung from memory, and another trial on the same model: both change what is being copied.
        for knobs, first in (({}, 1), ({"seed": 1}, 0)):
            stretch = toy_whisper.stretch(tmp_path / f"{name}{first}", 2, first_step=first)
            train.train(toy_whisper.config(toy, **knobs), speech, stretch, lambda step: None, model_cache=cache)
        saved[name] = [checkpoints.load(path).tensors for path in sorted(tmp_path.glob(f"{name}*/step-*"))]
    assert len(saved["plain"]) == 3
    for plain, late in zip(saved["plain"], saved["late"], strict=True):
        for group, named in plain.items():
            assert all(torch.equal(tensor, late[group][name]) for name, tensor in named.items())


def test_host_memory_is_laid_out_once_and_without_overlap(monkeypatch):
    monkeypatch.setattr(checkpoint_writer, "_BLOCK", 256)
    buffers = HostBuffers(is_pinned=False)
    weights = {str(size): torch.zeros(size) for size in (1, 40, 100, 3, 0)}
    tensors = {"weights": weights, "moments": {"x": torch.ones(7)}}
    for _ in range(2):
        targets = buffers.like(tensors)
        for number, named in enumerate(targets.values()):
            for name, target in named.items():
                assert target.shape == tensors["moments" if number else "weights"][name].shape
                target.fill_(float(len(name) + number))
        for number, named in enumerate(targets.values()):
            assert all((target == float(len(name) + number)).all() for name, target in named.items())
        assert len(buffers._blocks) == 3, "the second time in the same places"
    assert sum(block.numel() for block in buffers._blocks) < 1024


def test_a_checkpoint_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", str(tmp_path))

    writer = CheckpointWriter(PlainLane())
    monkeypatch.setattr(checkpoints, "save_into", full)
    writer.write(tmp_path, a_checkpoint(1))
    with pytest.raises(OSError, match="No space left"):
        writer.wait()
    writer.write(tmp_path, a_checkpoint(1))
    writer.then(pytest.fail)
    with pytest.raises(OSError, match="No space left"):
        writer.wait()


def test_a_trial_whose_checkpoints_were_removed_meanwhile_gets_none_and_no_error(tmp_path):
    lane = PlainLane()
    writer = CheckpointWriter(lane)
    lane.finish = lambda: shutil.rmtree(tmp_path / "claim")
    writer.write(tmp_path / "claim", a_checkpoint(1))
    writer.wait()
    assert not list(tmp_path.iterdir())


def test_what_follows_a_checkpoint_comes_after_it(tmp_path):
    lane = PlainLane()
    writer = CheckpointWriter(lane)
    hold = threading.Event()
    lane.finish = lambda: hold.wait(10) and None
    there = []
    folder = writer.write(tmp_path / "a", a_checkpoint(1))
    writer.then(lambda: there.append(folder.is_dir()))
    writer.wait_for(tmp_path / "b")
    assert there == [], "another trial does not wait for it"
    hold.set()
    writer.wait_for(tmp_path / "a")
    assert there == [True]


def test_a_process_that_ends_lets_a_checkpoint_beside_the_training_get_to_the_disk(tmp_path, device):
    lane = LateLane()
    writer = CheckpointWriter(lane)
    hold = threading.Event()
    finish = lane.finish
    lane.finish = lambda: (hold.wait(10), finish())
    folder = writer.write(tmp_path, a_checkpoint(1))
    writer.linger(0.01)
    assert not folder.exists(), "no longer than it may"
    hold.set()
    writer.linger(10.0)
    assert folder.is_dir()
