"""Which batches go through which graphs, and when graphs are made."""

import contextlib

import pytest
import torch

from tests.support import toy_whisper
from tests.support.captured_steps import BATCHES, CPU, micro_batch, pretend, stepper
from tests.support.recorder import CpuRecorder
from tmsearch.config import TrainConfig
from tmsearch.model import attention, trainable
from tmsearch.model import whisper as model
from tmsearch.model.kernels import captured
from tmsearch.model.kernels import recorder as recorder_module
from tmsearch.model.kernels.captured import Shape
from tmsearch.model.kernels.trained_layers import KeptLayers


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy"))


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    pretend(monkeypatch)


def shapes_recorded(toy, batches, monkeypatch, **settings):
    """How many shapes are recorded by the end of each step."""
    for name, value in settings.items():
        monkeypatch.setattr(captured, name, value)
    recorder = CpuRecorder()
    made = stepper(toy, recorder)
    counts = []
    for number, batch in enumerate(batches, start=1):
        made.launch(number, [batch])
        counts.append(len(recorder.recordings) // 2)
    return counts


LONG = micro_batch(7, frames=(150, 200))
LONGER = micro_batch(8, frames=(190, 200))


def test_a_shape_is_recorded_when_it_is_met_again(toy, monkeypatch):
    assert shapes_recorded(toy, [BATCHES[0], LONG, BATCHES[1], LONG, BATCHES[2]], monkeypatch) == [0, 0, 1, 2, 2]


def test_a_batch_goes_through_larger_graphs_until_it_has_its_own(toy, monkeypatch):
    rows = []
    replay = captured._ShapeGraphs.replay_forward
    monkeypatch.setattr(
        captured._ShapeGraphs, "replay_forward", lambda graphs: rows.append(graphs.shape.rows) or replay(graphs)
    )
    batches = [LONGER, LONGER, LONG, LONG, LONG, BATCHES[0]]
    assert shapes_recorded(toy, batches, monkeypatch, ROWS_STEP=16, OWN_SIGHTINGS=3) == [0, 1, 1, 1, 2, 2]
    # By its own, then a smaller batch twice by the same and once by its own; the last is too small for either.
    assert rows[0] == rows[1] == rows[2] > rows[3]
    assert len(rows) == 4


def test_what_fills_up_a_batch_may_be_longer_than_its_clips(toy, monkeypatch):
    """Attention's launch is for clips of a certain length: rows behind it would be whatever was in memory."""
    monkeypatch.setattr(captured, "ROWS_STEP", 16)
    monkeypatch.setattr(captured, "MOST_FILLING", 8)
    replayed, launched = stepper(toy, CpuRecorder()), stepper(toy, None)
    for number, batch in enumerate([LONGER, LONGER, micro_batch(9, frames=(20, 30))], start=1):
        given, expected = (made.launch(number, [batch]).measured for made in (replayed, launched))
        torch.testing.assert_close(given, expected, rtol=0.02, atol=0.02)
    assert replayed.captured._sightings.total() == 3
    assert len(replayed.captured._graphs) == 1


def test_there_is_an_end_to_graphs(toy, monkeypatch):
    assert shapes_recorded(toy, [LONG, LONG, BATCHES[0], BATCHES[1]], monkeypatch, MOST_GRAPHS=1) == [0, 1, 1, 1]


def test_without_room_everything_is_launched(toy):
    recorder = CpuRecorder()
    recorder.room = False
    made = stepper(toy, recorder)
    for number in range(1, 5):
        made.launch(number, [BATCHES[0]])
    assert recorder.recordings == []
    assert recorder.asked == 1


@pytest.mark.parametrize(
    ("knobs", "is_capturable"),
    [
        ({}, True),
        ({"gradient_checkpointing": True}, True),
        ({"dropout": 0.1}, True),
        ({"stochastic_depth": 0.1}, False),
        ({"lora_r": 8, "lora_dropout": 0.05}, True),
        ({"dropout": 0.1, "gradient_checkpointing": True}, False),
        ({"lora_dropout": 0.1, "gradient_checkpointing": True}, True),  # of no adapters
        ({"low_memory": True}, True),
    ],
    ids=str,
)
def test_what_is_not_the_same_launches_in_every_step_is_not_captured(knobs, is_capturable):
    assert captured.is_capturable(TrainConfig(**knobs)) is is_capturable


def test_large_batches_are_filled_up_more_coarsely():
    ends = torch.tensor([0, 1], dtype=torch.int32)
    packed = attention.Packed((1,), 1, ends, None, torch.zeros(1))
    for rows, tokens, shape in ((2_000, 24, (2_048, 24)), (8_200, 64, (8_704, 64)), (9_000, 66, (9_216, 80))):
        filled_up = captured.shape_of(torch.zeros(rows, 1), torch.zeros(1, tokens, 1), packed, 448)
        assert (filled_up.rows, filled_up.tokens) == shape


def test_a_shape_has_no_more_tokens_than_the_decoder_has_positions():
    ends = torch.tensor([0, 70], dtype=torch.int32)
    packed = attention.Packed((70,), 70, ends, None, torch.zeros(4))
    for most, tokens in ((448, 8), (7, 7)):
        shape = captured.shape_of(torch.zeros(70, 4), torch.zeros(1, 6, 4), packed, most)
        assert shape == Shape(128, 1, tokens, False)


def test_filled_up_shapes():
    of_batch = Shape(1024, 16, 40, True)
    assert Shape(1024, 16, 48, True).holds(of_batch)
    assert Shape(1280, 16, 40, True).holds(of_batch)
    for other in ((1536, 16, 40, True), (512, 16, 40, True), (1024, 8, 40, True), (1024, 16, 32, True)):
        assert not Shape(*other).holds(of_batch)
    assert not Shape(1024, 16, 40, False).holds(of_batch)


class Cuda:
    """torch.cuda's part in a capture, noted."""

    def __init__(self, monkeypatch):
        self.events = []
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: "side")
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: "graph")
        monkeypatch.setattr(torch.cuda, "graph", self.graph)

    @contextlib.contextmanager
    def graph(self, *arguments, capture_error_mode):
        self.events.append((*arguments, capture_error_mode))
        yield
        self.events.append("end")


def test_both_passes_are_captured_in_one_pool_and_stream_for_this_thread_alone(monkeypatch):
    cuda = Cuda(monkeypatch)
    recorder = recorder_module.CudaRecorder(torch.device("cuda"))
    assert recorder.record(lambda: cuda.events.append("work") or 7) == (7, "graph")
    assert cuda.events == [("graph", "pool", "side", "thread_local"), "work", "end"]


@pytest.mark.parametrize(("value", "is_made"), [("", True), ("on", True), ("off", False)])
def test_a_variable_turns_graphs_off(monkeypatch, value, is_made):
    Cuda(monkeypatch)
    monkeypatch.setenv("TMSEARCH_CUDA_GRAPHS", value)
    assert (recorder_module.recorder_for(torch.device("cuda")) is not None) is is_made
    assert recorder_module.recorder_for(CPU) is None


@pytest.mark.parametrize(("free", "has_room"), [(20e9, True), (12e9, False)])
def test_room_is_three_times_what_a_pass_takes(monkeypatch, free, has_room):
    Cuda(monkeypatch)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 22e9)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 32e9)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 33e9)  # 11 of them are free again
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80e9))
    assert recorder_module.CudaRecorder(torch.device("cuda")).has_room() is has_room


def test_a_model_that_was_moved_gets_layers_of_its_own(toy, monkeypatch):
    monkeypatch.setattr(recorder_module, "recorder_for", lambda device: CpuRecorder())
    kept = KeptLayers()
    config = toy_whisper.config(toy, precision="bf16")
    whisper = model.load(config)
    trainable.prepare(whisper, config)
    first = kept.get(whisper.model, config, CPU)
    assert kept.get(whisper.model, config, CPU) is first
    bias = whisper.model.model.encoder.layers[0].fc1.bias
    bias.data = bias.data.clone()
    assert kept.get(whisper.model, config, CPU) is not first
    kept.clear()
    assert kept._last is None


def test_another_thread_is_waited_for_before_a_graph_is_recorded(toy):
    recorder = CpuRecorder()
    made = stepper(toy, recorder)
    waited = []
    made.captured.before_capture = lambda: waited.append(len(recorder.recordings))
    for number, batch in enumerate(BATCHES, start=1):
        made.launch(number, [batch])
    assert waited == [0]
