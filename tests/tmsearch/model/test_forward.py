import numpy as np
import pytest
import soundfile
import torch
from transformers import WhisperFeatureExtractor

from tests.support import toy_whisper
from tmsearch import demo
from tmsearch.config import TrainConfig
from tmsearch.model import forward, trainable
from tmsearch.model import whisper as model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy"))


def load(folder, **knobs):
    config = toy_whisper.config(folder, **knobs)
    whisper = model.load(config)
    torch.manual_seed(0)
    trainable.prepare(whisper, config)
    return whisper.model.eval()


def mels(*runs):
    rng = torch.Generator().manual_seed(1)
    return [torch.randn(clips, 80, frames, generator=rng) for clips, frames in runs]


def decoded(net, runs, ids):
    return forward.decode(net, net.model.decoder.embed_tokens(ids), forward.encode(net, runs))


def ids(clips, places=7):
    return torch.randint(0, 250, (clips, places), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("knobs", [{}, {"lora_r": 2, "lora_targets": "q_proj,v_proj,fc1"}], ids=["full", "adapters"])
def test_at_the_whole_context_it_is_transformers_own(folder, knobs):
    net, [whole] = load(folder, **knobs), mels((3, 200))
    with torch.no_grad():
        theirs = net.model(input_features=whole, decoder_input_ids=ids(3), use_cache=False)
        encoded = forward.encode(net, [whole])
        assert torch.allclose(encoded.states, theirs.encoder_last_hidden_state.flatten(0, 1), atol=1e-5)
        assert torch.allclose(decoded(net, [whole], ids(3)), theirs.last_hidden_state, atol=1e-4)


def test_a_run_hears_what_a_model_cut_to_its_length_hears(folder):
    net, [short] = load(folder), mels((2, 120))
    with torch.no_grad():
        ours = forward.encode(net, [short]).states
        encoder = net.model.encoder
        encoder.embed_positions = torch.nn.Embedding.from_pretrained(encoder.embed_positions.weight[:60])
        net.config.max_source_positions = 60
        theirs = encoder(short).last_hidden_state.flatten(0, 1)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_clip_does_not_hear_its_neighbours(folder):
    net, runs = load(folder), mels((2, 60), (1, 100), (3, 200))
    with torch.no_grad():
        together = decoded(net, runs, ids(6))
        first = 0
        for run in runs:
            alone = decoded(net, [run], ids(6)[first : first + len(run)])
            assert torch.allclose(together[first : first + len(run)], alone, atol=1e-4)
            first += len(run)


def test_a_place_does_not_see_those_behind_it(folder):
    net, runs = load(folder), mels((2, 60))
    changed = ids(2).clone()
    changed[:, 4:] = 3
    with torch.no_grad():
        one, other = decoded(net, runs, ids(2)), decoded(net, runs, changed)
    assert torch.equal(one[:, :4], other[:, :4])
    assert not torch.allclose(one[:, 4:], other[:, 4:])


def test_gradients_are_those_of_transformers(folder):
    ours, theirs = load(folder), load(folder)
    [whole] = mels((2, 200))
    # The states' squares would not do: behind a layer norm their sum hardly depends on anything.
    weights = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(3))
    (decoded(ours, [whole], ids(2)) * weights).sum().backward()
    out = theirs.model(input_features=whole, decoder_input_ids=ids(2), use_cache=False)
    (out.last_hidden_state * weights).sum().backward()
    expected = {name: weight.grad for name, weight in theirs.named_parameters() if weight.grad is not None}
    found = {name: weight.grad for name, weight in ours.named_parameters() if weight.grad is not None}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-3, atol=1e-3 * float(gradient.abs().max())), name


@pytest.mark.parametrize("knob", ["dropout", "attention_dropout", "stochastic_depth"])
def test_what_regularises_does_so_in_training_only(folder, knob):
    net, runs = load(folder, **{knob: 0.5}), mels((2, 60))
    with torch.no_grad():
        calm = decoded(net, runs, ids(2))
        assert torch.equal(calm, decoded(net, runs, ids(2)))
        net.train()
        torch.manual_seed(3)
        noisy = [decoded(net, runs, ids(2)) for _ in range(4)]
    assert any(not torch.equal(calm, one) for one in noisy)
    assert any(not torch.equal(noisy[0], one) for one in noisy[1:])


@pytest.mark.parametrize("count", [1, 2, 7, 100, 1375])
def test_thinned_silence_stands_for_all_of_it_close_together_at_both_ends(count):
    places, lengths = zip(*forward.thinned(count), strict=True)
    assert sum(lengths) == count
    assert len(places) <= 24
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    assert all(start <= place < start + length for start, place, length in zip(starts, places, lengths, strict=True))
    assert lengths[0] == lengths[-1] == 1
    assert forward.thinned(0) == ()


def padded(run, frames):
    """The run as its users hear it: silence, which is its lowest value, up to `frames`."""
    quiet = run.amin(dim=(1, 2), keepdim=True).expand(*run.shape[:2], frames - run.shape[2])
    return torch.cat([run, quiet], dim=2)


def test_all_of_the_silence_is_the_whole_encoder(folder, monkeypatch):
    monkeypatch.setattr(forward, "thinned", lambda count: tuple((place, 1) for place in range(count)))
    net, runs = load(folder), [run.abs() for run in mels((3, 120), (2, 60))]
    for run in runs:
        run[:, :, -6:] = 0.0  # as quiet as what the convolutions see beyond the window's end
    with torch.no_grad():
        ours = forward.decode(net, net.model.decoder.embed_tokens(ids(5)), forward.encode(net, runs, silence=True))
        theirs = decoded(net, [padded(run, 200) for run in runs], ids(5))
    assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.skipif(not demo.CORPUS.is_dir(), reason="the embedded demo is not there")
def test_thinned_silence_gives_most_of_what_cutting_it_takes():
    whisper = model.load(TrainConfig(model=str(demo.FOLDER / "micro")))
    net, extractor = whisper.model.eval(), WhisperFeatureExtractor.from_pretrained(demo.FOLDER / "micro")
    lost, left = [], []
    for path in sorted(demo.CORPUS.rglob("*.flac"))[:12]:
        wave, rate = soundfile.read(path, dtype="float32")
        wave = np.repeat(wave, extractor.sampling_rate // rate)
        mel = extractor(wave, sampling_rate=extractor.sampling_rate, return_tensors="pt").input_features
        own = round(50 * (len(wave) / extractor.sampling_rate + 0.2))
        with torch.no_grad():
            whole = forward.encode(net, [mel]).states[:own]
            cut, thinned = (forward.encode(net, [mel[..., : 2 * own]], silence).states for silence in (False, True))
        lost.append(float((cut - whole).norm() / whole.norm()))
        left.append(float((thinned[:own] - whole).norm() / whole.norm()))
    assert max(left) < 0.1
    assert sum(left) < sum(lost) / 3
