import numpy as np
import pytest
import soundfile
import torch
from transformers import WhisperFeatureExtractor

from tests.support import toy_whisper
from tmsearch.config import TrainConfig
from tmsearch.demo.paths import CORPUS, DEMO
from tmsearch.model import forward, trainable
from tmsearch.model import whisper as model
from tmsearch.model.context import Places


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy"))


def load(folder, **knobs):
    config = toy_whisper.config(folder, **knobs)
    whisper = model.load(config)
    torch.manual_seed(0)
    trainable.prepare(whisper, config)
    return whisper.model.eval()


def mels(*shapes):
    """Random log-mels, a group for each (clips, frames)."""
    rng = torch.Generator().manual_seed(1)
    return [torch.randn(clips, 80, frames, generator=rng) for clips, frames in shapes]


def decoded(net, groups, ids):
    return forward.decode(net, net.model.decoder.embed_tokens(ids), forward.encode(net, groups))


def ids(clips, tokens=7):
    return torch.randint(0, 250, (clips, tokens), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("knobs", [{}, {"lora_r": 2, "lora_targets": "q_proj,v_proj,fc1"}], ids=["full", "adapters"])
def test_at_full_context_it_is_transformers_own(folder, knobs):
    net = load(folder, **knobs)
    [full] = mels((3, 200))
    with torch.no_grad():
        expected = net.model(input_features=full, decoder_input_ids=ids(3), use_cache=False)
        encoded = forward.encode(net, [full])
        assert torch.allclose(encoded.states, expected.encoder_last_hidden_state.flatten(0, 1), atol=1e-5)
        assert torch.allclose(decoded(net, [full], ids(3)), expected.last_hidden_state, atol=1e-4)


def test_a_group_is_encoded_as_by_a_model_cut_to_its_length(folder):
    net = load(folder)
    [short] = mels((2, 120))
    with torch.no_grad():
        states = forward.encode(net, [short]).states
        encoder = net.model.encoder
        encoder.embed_positions = torch.nn.Embedding.from_pretrained(encoder.embed_positions.weight[:60])
        net.config.max_source_positions = 60
        expected = encoder(short).last_hidden_state.flatten(0, 1)
    assert torch.allclose(states, expected, atol=1e-5)


def test_a_clip_does_not_attend_to_its_neighbours(folder):
    net = load(folder)
    groups = mels((2, 60), (1, 100), (3, 200))
    with torch.no_grad():
        together = decoded(net, groups, ids(6))
        first = 0
        for group in groups:
            alone = decoded(net, [group], ids(6)[first : first + len(group)])
            assert torch.allclose(together[first : first + len(group)], alone, atol=1e-4)
            first += len(group)


def test_a_token_does_not_attend_to_later_ones(folder):
    net = load(folder)
    groups = mels((2, 60))
    changed_ids = ids(2).clone()
    changed_ids[:, 4:] = 3
    with torch.no_grad():
        states = decoded(net, groups, ids(2))
        changed = decoded(net, groups, changed_ids)
    assert torch.equal(states[:, :4], changed[:, :4])
    assert not torch.allclose(states[:, 4:], changed[:, 4:])


def test_gradients_are_those_of_transformers(folder):
    net = load(folder)
    reference = load(folder)
    [full] = mels((2, 200))
    # The states' squares would not do: behind a layer norm their sum hardly depends on anything.
    weights = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(3))
    (decoded(net, [full], ids(2)) * weights).sum().backward()
    out = reference.model(input_features=full, decoder_input_ids=ids(2), use_cache=False)
    (out.last_hidden_state * weights).sum().backward()
    expected = {name: weight.grad for name, weight in reference.named_parameters() if weight.grad is not None}
    gradients = {name: weight.grad for name, weight in net.named_parameters() if weight.grad is not None}
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(gradients[name], gradient, rtol=1e-3, atol=1e-3 * float(gradient.abs().max())), name


@pytest.mark.parametrize("knob", ["dropout", "attention_dropout", "stochastic_depth"])
def test_what_regularises_does_so_in_training_only(folder, knob):
    net = load(folder, **{knob: 0.5})
    groups = mels((2, 60))
    with torch.no_grad():
        calm = decoded(net, groups, ids(2))
        assert torch.equal(calm, decoded(net, groups, ids(2)))
        net.train()
        torch.manual_seed(3)
        noisy = [decoded(net, groups, ids(2)) for _ in range(4)]
    assert any(not torch.equal(calm, states) for states in noisy)
    assert any(not torch.equal(noisy[0], states) for states in noisy[1:])


def padded(mel, frames):
    """The group with silence, which is its clips' lowest value, up to `frames`."""
    quiet = mel.amin(dim=(1, 2), keepdim=True).expand(*mel.shape[:2], frames - mel.shape[2])
    return torch.cat([mel, quiet], dim=2)


def test_silence_that_is_not_thinned_gives_the_full_encoder(folder, monkeypatch):
    monkeypatch.setattr(forward, "thinned", lambda count: tuple((offset, 1) for offset in range(count)))
    net = load(folder)
    groups = [mel.abs() for mel in mels((3, 120), (2, 60))]
    for mel in groups:
        mel[:, :, -6:] = 0.0  # as quiet as what the convolutions see beyond the window's end
    with torch.no_grad():
        encoded = forward.encode(net, groups, silence=True)
        states = forward.decode(net, net.model.decoder.embed_tokens(ids(5)), encoded)
        expected = decoded(net, [padded(mel, 200) for mel in groups], ids(5))
    assert torch.allclose(states, expected, atol=1e-4)


def test_places_that_leave_nothing_out_give_the_full_encoder(folder):
    net = load(folder)
    groups = [mel.abs() for mel in mels((3, 120), (2, 60))]
    for mel in groups:
        mel[:, :, -6:] = 0.0  # as quiet as what the convolutions see beyond the window's end
    every = Places(tuple(range(100)), (1,) * 100)
    with torch.no_grad():
        encoded = forward.encode(net, groups, silence=True, places=[(every,) * 3, (every,) * 2])
        states = forward.decode(net, net.model.decoder.embed_tokens(ids(5)), encoded)
        expected = decoded(net, [padded(mel, 200) for mel in groups], ids(5))
    assert torch.allclose(states, expected, atol=1e-4)


def test_quiet_that_is_thinned_stands_for_all_of_it(folder):
    """A position that stands for equal ones is what all of them are: the count is in the attention."""
    net = load(folder)
    net.model.encoder.embed_positions.weight.data.zero_()
    [mel] = mels((2, 200))
    mel[:, :, 40:] = mel[:, :, 40:41].clone()
    every = Places(tuple(range(100)), (1,) * 100)
    last = Places((*range(30), 40, 98, 99), (*(1,) * 30, 68, 1, 1))
    with torch.no_grad():
        whole = forward.encode(net, [mel], places=[(every, every)]).states.view(2, 100, -1)
        few = forward.encode(net, [mel], places=[(last, last)]).states.view(2, 33, -1)
    assert torch.allclose(few[:, :30], whole[:, :30], atol=1e-5)


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the embedded demo is not there")
def test_thinned_silence_recovers_most_of_what_cutting_it_loses():
    whisper = model.load(TrainConfig(model="demo/micro"))
    net = whisper.model.eval()
    extractor = WhisperFeatureExtractor.from_pretrained(DEMO / "micro")
    lost_by_cutting = []
    lost_by_thinning = []
    for path in sorted(CORPUS.rglob("*.flac"))[:12]:
        wave, rate = soundfile.read(path, dtype="float32")
        wave = np.repeat(wave, extractor.sampling_rate // rate)
        mel = extractor(wave, sampling_rate=extractor.sampling_rate, return_tensors="pt").input_features
        own = round(50 * (len(wave) / extractor.sampling_rate + 0.2))
        with torch.no_grad():
            full = forward.encode(net, [mel]).states[:own]
            cut = forward.encode(net, [mel[..., : 2 * own]], silence=False).states
            thinned = forward.encode(net, [mel[..., : 2 * own]], silence=True).states
        lost_by_cutting.append(float((cut - full).norm() / full.norm()))
        lost_by_thinning.append(float((thinned[:own] - full).norm() / full.norm()))
    assert max(lost_by_thinning) < 0.1
    assert sum(lost_by_thinning) < sum(lost_by_cutting) / 3
