import os
from pathlib import Path

import pytest
import torch

from tests.support import toy_whisper
from tests.support.varlen import clip_by_clip_into
from tmsearch.config import TrainConfig
from tmsearch.demo.paths import DEMO
from tmsearch.model import attention, decoding, forward
from tmsearch.model import whisper as model
from tmsearch.model.decoding import Decoder, Groups, loop_period, transcribe
from tmsearch.model.tokens import prompt_ids

ASSETS = Path(os.environ.get("TMSEARCH_ASSETS", Path(__file__).parents[3].parent / "shared/assets"))
MICRO = DEMO / "micro"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A random model whose clips end at many lengths: its end token resembles the third of the first clip's."""
    whisper = model.load(TrainConfig(model=str(toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy")))))
    whisper.model.eval()
    third = greedy_ids(whisper, hums(whisper, 1), prompt_ids(whisper, "en", "transcribe"), 3)[0][2]
    table = whisper.model.model.decoder.embed_tokens.weight
    with torch.no_grad():
        table[whisper.model.config.eos_token_id] = 1.01 * table[third]
    return whisper


def greedy_ids(whisper, mels, prompt, max_tokens):
    return [hypothesis.ids for hypothesis in Decoder(whisper).greedy([mels], prompt, max_tokens)]


def hums(whisper, count, seconds=None):
    """Log-mels of clips that differ in pitch and length, so that a model ends them at different lengths."""
    from tmsearch.features.log_mel import from_samples

    rng = torch.Generator().manual_seed(0)
    waves = [
        0.3 * torch.sin(torch.arange(3000 + 1500 * index) * 0.02 * (index + 1))
        + 0.05 * torch.randn(3000 + 1500 * index, generator=rng)
        for index in range(count)
    ]
    frames = round(100 * (seconds or whisper.seconds))
    return from_samples([wave.numpy() for wave in waves], whisper.extractor, frames)


def generated(whisper, mels, new_tokens, **options):
    """The batch by transformers' own loop: text ids without the end."""
    stop = whisper.model.config.eos_token_id
    out = whisper.model.generate(mels, max_length=new_tokens, **options)  # which Whisper counts after the prompt
    return [[index for index in row if index != stop] for row in out.tolist()]


@pytest.mark.parametrize("language", ["en", "de"])
def test_toy_decodes_as_generate_does(toy, language):
    mels = hums(toy, 12)
    prompt = prompt_ids(toy, language, "transcribe")
    ids = greedy_ids(toy, mels, prompt, 30)
    assert ids == generated(toy, mels, 30, language=language, task="transcribe")
    # Clips that all end together would not show that the batch shrinks rightly.
    assert len({len(row) for row in ids}) > 2


def test_a_hypothesis_does_not_depend_on_its_batch(toy):
    mels, prompt = hums(toy, 12), prompt_ids(toy, "en", "transcribe")
    together = greedy_ids(toy, mels, prompt, 30)
    assert together == [greedy_ids(toy, mels[index : index + 1], prompt, 30)[0] for index in range(12)]


def test_length_is_bounded_by_the_cap_and_by_the_decoders_positions(toy):
    mels, prompt = hums(toy, 4), prompt_ids(toy, "en", "transcribe")
    free = greedy_ids(toy, mels, prompt, 10_000)
    assert max(len(row) for row in free) <= 64 - len(prompt)
    assert greedy_ids(toy, mels, prompt, 3) == [row[:3] for row in free]


def trimmed(whisper, seconds):
    """transformers' own model with its positions cut."""
    encoder, count = whisper.model.model.encoder, round(50 * seconds)
    encoder.embed_positions = torch.nn.Embedding.from_pretrained(encoder.embed_positions.weight[:count])
    whisper.model.config.max_source_positions = count
    return whisper


def test_clips_of_their_own_context_decode_as_generate_does(tmp_path):
    folder = toy_whisper.whisper_folder(tmp_path, seed=2)
    whisper = model.load(TrainConfig(model=str(folder)))
    whisper.model.eval()
    short, long = hums(whisper, 5, 1.0), hums(whisper, 3, 1.6)
    prompt = prompt_ids(whisper, "en", "transcribe")
    ids = [hypothesis.ids for hypothesis in Decoder(whisper).greedy([short, long], prompt, 20)]
    expected = []
    for mels, seconds in ((short, 1.0), (long, 1.6)):
        cut = trimmed(model.load(TrainConfig(model=str(folder))), seconds)
        cut.model.eval()
        expected += generated(cut, mels, 20, language="en", task="transcribe")
    assert ids == expected


def test_text_comes_without_special_tokens(toy):
    prompt = prompt_ids(toy, "en", "transcribe")
    texts = [text for text, _ in transcribe(toy, iter([Groups([hums(toy, 3)]), Groups([hums(toy, 2)])]), prompt, 20)]
    assert len(texts) == 5
    assert texts[:2] == texts[3:]
    assert not any("<|" in text for text in texts)


@pytest.fixture(scope="module")
def babbler(tmp_path_factory):
    """A random model that never ends and soon repeats itself, as its end token is forbidden."""
    whisper = model.load(TrainConfig(model=str(toy_whisper.whisper_folder(tmp_path_factory.mktemp("babbler"), seed=3))))
    whisper.model.eval()
    whisper.model.generation_config.suppress_tokens = [whisper.model.config.eos_token_id]
    return whisper


def test_a_loop_is_cut_early_and_counted_with_all_its_words(babbler, monkeypatch):
    prompt = prompt_ids(babbler, "en", "transcribe")
    mels = hums(babbler, 12)
    hypotheses = Decoder(babbler).greedy([mels], prompt, 60)
    assert any(hypothesis.is_loop for hypothesis in hypotheses)
    assert all(len(hypothesis.ids) == 60 for hypothesis in hypotheses)
    monkeypatch.setattr(decoding, "loop_period", lambda ids: 0)
    uncut = Decoder(babbler).greedy([mels], prompt, 60)
    assert not any(hypothesis.is_loop for hypothesis in uncut)
    assert [hypothesis.ids for hypothesis in hypotheses] == [hypothesis.ids for hypothesis in uncut]


def test_a_loop_is_recognized_by_its_end():
    assert loop_period([1, 2, 3] + [7, 8] * 12) == 2
    assert loop_period([7] * 24) == 1
    assert loop_period([7] * 23) == 0
    assert loop_period([1, 2, 3, 4, 5, 6, 7, 8] * 4) == 8
    assert loop_period([1, 2, 3, 4, 5, 6, 7, 8] * 3) == 0
    assert loop_period([7, 8] * 12 + [9]) == 0
    assert loop_period([]) == 0


class RecordedGraph:
    """torch.cuda's streams and graphs on a CPU: a step that is captured is not run, and runs at each replay."""

    def __init__(self, monkeypatch):
        self.events = []
        self.captured = None
        decode_next = decoding._Batch.decode_next

        def run_or_record(batch):
            self.events.append("token")
            if self.events[-2:-1] == ["capture thread_local"]:
                self.captured = lambda: decode_next(batch)
            else:
                decode_next(batch)

        monkeypatch.setattr(decoding._Batch, "decode_next", run_or_record)
        monkeypatch.setattr(decoding.devices, "uses_graphs", lambda device: True)
        for name in ("Stream", "current_stream", "stream", "CUDAGraph"):
            monkeypatch.setattr(torch.cuda, name, lambda *arguments: self)
        monkeypatch.setattr(torch.cuda, "graph", self.capture)

    def capture(self, graph, capture_error_mode):
        self.events.append(f"capture {capture_error_mode}")
        return self

    def wait_stream(self, stream):
        self.events.append("wait")

    def replay(self):
        self.captured()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


def test_a_token_is_decoded_beside_the_stream_and_then_captured_for_this_thread_alone(toy, monkeypatch):
    recorded = RecordedGraph(monkeypatch)
    prompt = prompt_ids(toy, "en", "transcribe")
    expected = greedy_ids(toy, hums(toy, 5), prompt, 20)
    decoder = Decoder(toy)
    recorded.events.clear()
    with torch.no_grad():
        encoded = forward.encode(toy.model, [hums(toy, 5)])
        batch = decoder._captured_batch(encoded, prompt, 20)
        assert [hypothesis.ids for hypothesis in batch.run(encoded)] == expected
        # Another batch is captured anew, as its keys are by group.
        assert decoder._captured_batch(encoded, prompt, 20) is not batch
    assert recorded.events == ["wait", "token", "wait", "capture thread_local", "token"]


@pytest.mark.parametrize("has_graphs", [True, False], ids=["graphs", "launched"])
def test_the_graph_of_a_packed_batch_serves_smaller_ones(toy, monkeypatch, has_graphs):
    prompt = prompt_ids(toy, "en", "transcribe")
    many = [hums(toy, 5, 1.6), hums(toy, 3, 2.0)]
    few = [hums(toy, 4, 1.2)]
    larger = [hums(toy, 9, 2.0)]
    expected = [
        [hypothesis.ids for hypothesis in Decoder(toy).greedy(mels, prompt, 20, True)] for mels in (many, few, larger)
    ]
    recorded = RecordedGraph(monkeypatch)
    monkeypatch.setattr(decoding.devices, "uses_graphs", lambda device: has_graphs)
    monkeypatch.setattr(attention, "varlen_attn_out", clip_by_clip_into)
    monkeypatch.setattr(attention, "is_packed", lambda layer, device: True)
    decoder = Decoder(toy)
    ids = []
    with torch.no_grad():
        for mels in (many, few, larger):
            encoded = forward.encode(toy.model, mels, True)
            batch = decoder._captured_batch(encoded, prompt, 20)
            ids.append([hypothesis.ids for hypothesis in batch.run(encoded)])
    assert ids == expected
    # The second batch fits into the first.
    assert recorded.events.count("capture thread_local") == (2 if has_graphs else 0)


@pytest.mark.skipif(not MICRO.is_dir(), reason="the embedded micro Whisper is not there")
def test_micro_decodes_as_generate_does():
    whisper = model.load(TrainConfig(model="demo/micro"))
    whisper.model.eval()
    mels = hums(whisper, 8)
    prompt = prompt_ids(whisper, "en", "transcribe")
    ids = greedy_ids(whisper, mels, prompt, 40)
    assert ids == generated(whisper, mels, 40, language="en", task="transcribe")


@pytest.mark.skipif(not (ASSETS / "whisper-tiny.en").is_dir(), reason="needs ../shared/assets/whisper-tiny.en")
def test_tiny_en_decodes_real_speech_as_generate_does():
    import soundfile

    from tmsearch.features.log_mel import from_samples

    whisper = model.load(TrainConfig(model=str(ASSETS / "whisper-tiny.en")))
    whisper.model.eval()
    clips = sorted((ASSETS / "allison-throat").glob("conf-*.flac"))[:4]
    waves = [soundfile.read(clip, dtype="float32")[0] for clip in clips]
    mels = from_samples(waves, whisper.extractor, 500)
    prompt = prompt_ids(whisper, "en", "transcribe")
    ids = greedy_ids(whisper, mels, prompt, 12)
    assert ids == generated(trimmed(whisper, 5.0), mels, 12)
