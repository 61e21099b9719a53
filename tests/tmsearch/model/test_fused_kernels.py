"""A GPU's kernels for a training step, run here as the functions that they are compiled from, beside the modules."""

import copy

import pytest
import torch

from tests.support import toy_whisper
from tests.support.varlen import clip_by_clip, clip_by_clip_into
from tmsearch.model import attention, forward, layers, trainable
from tmsearch.model import whisper as model
from tmsearch.model.kernels import bundles, formulas
from tmsearch.model.kernels.fused import FusedKernels, layers_for
from tmsearch.training import step
from tmsearch.training.optim import mixed_precision
from tmsearch.training.step import Stepper
from tmsearch.training.token_table import TokenTable

COMPILED = formulas.compiled
COMPILED_UPDATE = mixed_precision.compiled_update
CPU = torch.device("cpu")
CLIPS = ((2, 60), (1, 120))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy"))


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    """All clips at once; kernels as the functions that they are compiled from."""
    monkeypatch.setattr(attention, "varlen_attn", clip_by_clip)
    monkeypatch.setattr(attention, "varlen_attn_out", clip_by_clip_into)
    monkeypatch.setattr(attention, "is_packed", lambda layer, device: True)
    monkeypatch.setattr(formulas, "compiled", lambda function: function)
    monkeypatch.setattr(mixed_precision, "compiled_update", lambda: mixed_precision.update)


def micro_batch(seed=0, labels=3 * 7):
    generator = torch.Generator().manual_seed(seed)
    mels = tuple(torch.randn(clips, 80, frames, generator=generator) for clips, frames in CLIPS)
    inputs = torch.randint(0, 250, (3, 7), generator=generator)  # [clips, tokens]
    return forward.MicroBatch(mels, inputs, torch.arange(3 * 7), inputs.flatten() + 1, labels)


def stepper(toy, monkeypatch, fused, **knobs):
    """A model that is trained by fused kernels or by its modules."""
    monkeypatch.setattr(step.devices, "uses_fused_kernels", lambda config, device, width: fused)
    config = toy_whisper.config(toy, **{"precision": "bf16", "learning_rate": 1e-3, **knobs})
    whisper = model.load(config)
    torch.manual_seed(3)
    trainable.prepare(whisper, config)
    made = Stepper(whisper, config, CPU)
    made.model.train()
    return made


def weight_gradients(made):
    """By name; those that the kernels keep among them."""
    names = {id(weight): name for name, weight in made.weights.items()}
    gradients = {name: weight.grad.clone() for name, weight in made.weights.items() if weight.grad is not None}
    if made._kernels is not None:
        parts = [part for cast in made._kernels.weights.values() for part in cast.trained_parts()]
        gradients.update({names[id(part.weight)]: part.gradient.clone() for part in parts})
    return gradients


@pytest.mark.parametrize("is_cast", [False, True], ids=["own weights", "casts, side by side"])
def test_in_float64_gradients_are_those_of_the_modules(toy, monkeypatch, is_cast):
    gradients = {}
    for fused in (False, True):
        made = stepper(toy, monkeypatch, False, precision="float32")
        made.model.double()
        made.token_table = TokenTable(made.model)
        if fused:
            made._kernels = FusedKernels(torch.float64)
            if is_cast:
                monkeypatch.setattr(bundles, "needs_cast", lambda weight, dtype: True)
                made._kernels.prepare(made.model, False)
                assert [len(weight.linears) for weight in made._kernels.weights.values()].count(4) == 1
            made._layers = layers.eager_layers(made._kernels)
            made.token_table = TokenTable(made.model, made._kernels)
        part = micro_batch()
        part = forward.MicroBatch(
            tuple(mel.double() for mel in part.mels), part.decoder_inputs, part.label_positions, part.labels, 21
        )
        made.backward(part)
        made.backward(part)
        gradients[fused] = weight_gradients(made)
    assert gradients[True].keys() == gradients[False].keys()
    for name, gradient in gradients[False].items():
        assert torch.allclose(gradients[True][name], gradient, rtol=1e-9, atol=1e-12 * float(gradient.norm())), name


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"freeze_encoder_layers": 1},
        {"freeze_encoder": True},
        {"lora_r": 2, "lora_dropout": 0.0},
        {"gradient_checkpointing": True},
        {"stochastic_depth": 0.4},
    ],
    ids=["plain", "first layer frozen", "encoder frozen", "adapters", "checkpointing", "skipped layers"],
)
def test_training_is_that_of_the_modules_but_for_rounding(toy, monkeypatch, knobs):
    """Losses and weights after four steps of two micro-batches each, with clipping at work and decay."""
    losses = {}
    weights = {}
    for fused in (False, True):
        made = stepper(toy, monkeypatch, fused, max_grad_norm=0.5, weight_decay=0.1, **knobs)
        losses[fused] = []
        for number in range(1, 5):
            parts = [micro_batch(number, labels=42), micro_batch(10 + number, labels=42)]
            losses[fused].append(made.launch(number, parts).measured)
        weights[fused] = {name: weight.detach().clone() for name, weight in made.weights.items()}
    # bfloat16 has 8 bits: products differ by 1/256 where a sum was rounded otherwise.
    assert torch.allclose(torch.stack(losses[True]), torch.stack(losses[False]), rtol=0.02)
    first = model.load(toy_whisper.config(toy)).model
    started = {name: weight.detach() for name, weight in first.named_parameters()}
    for name, weight in weights[False].items():
        moved = float((weight - started[name]).norm()) if name in started else float(weight.norm())
        assert float((weights[True][name] - weight).norm()) < 0.35 * moved, name
    assert not any(weight.grad is not None for weight in made.weights.values())


def test_weights_that_are_bfloat16_are_taken_as_they_are(toy, monkeypatch):
    """Beside float32 weights of the same values."""
    gradients = {}
    for low_memory in (False, True):
        made = stepper(toy, monkeypatch, True, low_memory=low_memory)
        made.model.bfloat16()
        for module in made.model.modules():
            # A CPU's layer norm takes one format; a GPU's autocast casts for it.
            if not low_memory or isinstance(module, torch.nn.LayerNorm):
                module.float()
        made.token_table = TokenTable(made.model)
        made._kernels = FusedKernels()
        made._kernels.prepare(made.model, False)
        made._layers = layers.eager_layers(made._kernels)
        for seed in (0, 1):
            made.backward(micro_batch(seed, labels=42))
        gradients[low_memory] = weight_gradients(made)
    assert not made._kernels.weights, "nothing is cast"
    assert gradients[True].keys() == gradients[False].keys()
    for name, gradient in gradients[False].items():
        difference = float((gradients[True][name].float() - gradient.float()).norm())
        assert difference < 0.03 * float(gradient.float().norm()), name


def test_one_update_is_torchs(toy, monkeypatch):
    """Of equal gradients, with a clip, in float32: to rounding."""
    made = stepper(toy, monkeypatch, True, max_grad_norm=0.01, weight_decay=0.1, layer_decay=0.8)
    torch_made = stepper(toy, monkeypatch, False, max_grad_norm=0.01, weight_decay=0.1, layer_decay=0.8)
    for number in range(1, 4):
        made.backward(micro_batch(number))
        for name, gradient in weight_gradients(made).items():
            torch_made.weights[name].grad = gradient.float()
        norms = []
        for trained in (made, torch_made):
            step.optimizer.set_rates(trained.optimizer, trained.config, number)
            norms.append(float(step.optimizer.clip(trained.optimizer, trained.weights.values(), 0.01)))
            trained.optimizer.step()
            trained.optimizer.zero_grad(set_to_none=True)
        assert norms[0] == pytest.approx(norms[1], rel=1e-5)
        assert norms[0] > 0.01
    for name, weight in torch_made.weights.items():
        assert torch.allclose(made.weights[name], weight, rtol=1e-5, atol=1e-7), name
    expected = step.optimizer.moments(torch_made.optimizer, torch_made.weights)
    moments = step.optimizer.moments(made.optimizer, made.weights)
    assert moments.keys() == expected.keys()
    for name, moment in expected.items():
        assert torch.allclose(moments[name].cpu(), moment, rtol=1e-4, atol=1e-9), name


def test_a_kernel_updates_the_weights_of_some_layers_and_their_moments_lie_as_they_do(toy, monkeypatch):
    """Also where some were skipped, or have moments from a checkpoint."""
    sizes = []

    def counted(weight, *others):
        sizes.append(len(weight))
        mixed_precision.update(weight, *others)

    monkeypatch.setattr(mixed_precision, "compiled_update", lambda: counted)
    made = stepper(toy, monkeypatch, True)
    stacks = [
        sum(weight.numel() for name, weight in made.weights.items() if f"{stack}.layers" in name and weight.ndim == 2)
        for stack in ("encoder", "decoder")
    ]
    stacks.append(made.token_table.outputs.numel())
    made.launch(1, [micro_batch(1)])
    assert sizes == stacks
    moments = copy.deepcopy(step.optimizer.moments(made.optimizer, made.weights))
    step.optimizer.set_moments(made.optimizer, made.weights, moments)
    made.launch(2, [micro_batch(2)])
    assert sizes == 2 * stacks
    bundle = next(iter(made._kernels.weights.values()))._bundle
    layer = made.model.model.encoder.layers[1]
    first = made._kernels.weights[id(layer.fc1)]
    made.backward(micro_batch(4))
    first.gradient = None
    sizes.clear()
    made.optimizer.step()
    assert sizes == [first._numbers.start, len(bundle.exact) - first._numbers.stop, *stacks[1:]]
    counts = {int(made.optimizer.state[weight]["step"]) for weight in (layer.fc1.weight, layer.fc2.weight)}
    assert counts == {2, 3}


def casts_are_those_of_the_weights(made):
    pairs = [pair for weight in made._kernels.weights.values() for pair in weight.casts()]
    assert len(pairs) > 20
    return all(torch.equal(cast, exact.to(cast.dtype)) for exact, cast in pairs)


def test_casts_follow_their_weights(toy, monkeypatch):
    made = stepper(toy, monkeypatch, True)
    for number in (1, 2):
        made.launch(number, [micro_batch(number)])
        assert casts_are_those_of_the_weights(made)
        assert not any(weight.is_stale() for weight in made._kernels.weights.values())
    earlier = {name: weight.detach() + 0.25 for name, weight in made.weights.items()}
    trainable.set_weights(model.Whisper(**{**vars(model.load(made.config)), "model": made.model}), earlier)
    assert all(weight.is_stale() for weight in made._kernels.weights.values())
    made._kernels.refresh()
    assert casts_are_those_of_the_weights(made)


def test_training_goes_on_from_saved_moments_to_the_bit(toy, monkeypatch):
    whole = stepper(toy, monkeypatch, True)
    for number in (1, 2):
        whole.launch(number, [micro_batch(number)])
    saved = copy.deepcopy({name: weight.detach() for name, weight in whole.weights.items()})
    moments = copy.deepcopy(step.optimizer.moments(whole.optimizer, whole.weights))
    resumed = stepper(toy, monkeypatch, True)
    with torch.no_grad():
        for name, weight in resumed.weights.items():
            weight.copy_(saved[name])
    step.optimizer.set_moments(resumed.optimizer, resumed.weights, moments)
    for number in (3, 4):
        expected = whole.launch(number, [micro_batch(number)]).measured
        assert torch.equal(resumed.launch(number, [micro_batch(number)]).measured, expected)
    for name, weight in whole.weights.items():
        assert torch.equal(resumed.weights[name], weight), name


def test_what_does_not_compile_is_left_to_torch(toy, monkeypatch, caplog):
    """The optimizer's kernel fails at the second step, before it changes anything."""

    def fails(*arguments):
        raise torch._dynamo.exc.TorchDynamoException("no compiler")

    made = stepper(toy, monkeypatch, True)
    expected = stepper(toy, monkeypatch, True)
    before = {name: weight.detach().clone() for name, weight in made.weights.items()}
    for number in (1, 2, 3):
        if number == 2:
            made.optimizer._kernel = fails
        made.launch(number, [micro_batch(number)])
        expected.launch(number, [micro_batch(number)])
    assert "could not be compiled" in caplog.text
    for name, weight in expected.weights.items():
        moved = float((weight - before[name]).detach().norm())
        assert float((made.weights[name] - weight).detach().norm()) < 0.1 * moved, name


def test_kernels_that_do_not_compile_leave_layers_to_their_modules(toy, monkeypatch, caplog):
    def fails(function):
        raise torch._dynamo.exc.TorchDynamoException("no compiler")

    expected = stepper(toy, monkeypatch, True).launch(1, [micro_batch()]).measured
    monkeypatch.setattr(formulas, "compiled", fails)
    made = stepper(toy, monkeypatch, True)
    assert torch.allclose(made.launch(1, [micro_batch()]).measured, expected, rtol=0.02)
    assert casts_are_those_of_the_weights(made)
    assert caplog.text.count("norms could not be compiled") == 1


def test_an_evaluations_encoder_is_that_of_the_modules(toy, monkeypatch):
    """Without gradients, from the weights as they are: within what bfloat16 rounds."""
    made = stepper(toy, monkeypatch, True)
    assert layers_for(made.config, CPU, 16) is not layers.EAGER
    states = {}
    made.model.train(False)
    for name, how in (("modules", layers.EAGER), ("kernels", layers_for(made.config, CPU, 16))):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            states[name] = forward.encode(made.model, micro_batch().mels, True, how).states
    assert torch.allclose(states["kernels"], states["modules"], rtol=0.05, atol=0.05)
    monkeypatch.setattr(step.devices, "uses_fused_kernels", lambda config, device, width: False)
    assert layers_for(made.config, CPU, 16) is layers.EAGER


def test_each_kernel_is_compiled_once_for_all_layers_weights_and_batches(toy, monkeypatch):
    """Dynamo gives up a function that it has compiled eight times, and runs it operation by operation from then on."""
    graphs = []

    def count(graph, inputs, options=None):
        graphs.append(graph)
        return graph.forward

    compile_function = torch.compile
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", lambda function, **how: compile_function(function, backend=count, **how))
    monkeypatch.setattr(formulas, "compiled", COMPILED)
    monkeypatch.setattr(mixed_precision, "compiled_update", COMPILED_UPDATE)
    COMPILED.cache_clear()
    made = stepper(toy, monkeypatch, True)
    for number in (1, 2, 3):
        made.launch(number, [micro_batch(number)])
    COMPILED.cache_clear()
    torch._dynamo.reset()
    # A norm alone and with a sum, each with its gradient, and GELU's; AdamW of weights at offset 0 and of others, which
    # torch never takes to be alike.
    assert len(graphs) <= 7
