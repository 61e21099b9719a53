import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from tmsearch.training.optim import stochastic_rounding
from tmsearch.training.optim.stochastic_rounding import NoiseTable, StochasticRoundingAdamW, round_stochastically


def rounded(value, count):
    """`count` roundings of one number, bfloat16 [count]."""
    noise = NoiseTable(count, torch.device("cpu"), is_wide=False)
    noise.renew()
    exact = torch.full((count,), float(value))
    round_stochastically(exact, noise.stretch(count))
    assert torch.equal(exact, exact.bfloat16().float()) or not exact.isfinite().all()
    return exact.bfloat16()


def parameters(shapes):
    """bfloat16 weights with gradients, alike at each call."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(shape, generator=generator).bfloat16()) for shape in shapes]
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=generator).bfloat16()
    return weights


def stored(weights, stepper):
    """Weights, moments and step counts, copied."""
    return [tensor.clone() for weight in weights for tensor in (weight.detach(), *stepper.state[weight].values())]


def adamw(weights, **knobs):
    group = {"params": weights, "weight_decay": 0.1}
    return StochasticRoundingAdamW([group], 0.01, (0.8, 0.9), 1e-8, **knobs)


class KernelCounter(TorchDispatchMode):
    """Counts what is launched: every aten operation but views."""

    def __init__(self):
        super().__init__()
        self.launched = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.launched += not func.is_view
        return func(*args, **(kwargs or {}))


def updated(shapes, steps=2, **knobs):
    weights = parameters(shapes)
    torch.manual_seed(0)
    stepper = adamw(weights, **knobs)
    for _ in range(steps):
        stepper.step()
    return stored(weights, stepper)


SHAPES = [(40, 9), (7,), (300,), (16, 16), (1,), (33, 5)]


@pytest.mark.parametrize("chunk", [20, 257])
def test_weights_gathered_in_chunks_are_updated_as_each_by_itself(monkeypatch, chunk):
    # The same noise for all: which stretch of the table a weight gets depends on what it is gathered with.
    monkeypatch.setattr(NoiseTable, "stretch", lambda table, count: torch.full((count,), 12345, dtype=torch.int32))
    together = updated(SHAPES)
    monkeypatch.setattr(stochastic_rounding, "_CPU_CHUNK", chunk)
    for apart, gathered in zip(updated(SHAPES), together, strict=True):
        assert torch.equal(apart, gathered)


def test_the_kernel_to_be_compiled_does_what_gathering_does(monkeypatch):
    for name in ("wide_stretch", "stretch"):
        monkeypatch.setattr(NoiseTable, name, lambda table, count: torch.zeros(count, dtype=torch.int32))
    gathered = updated(SHAPES, steps=3)
    calls = []

    def uncompiled(function, **settings):
        calls.append(settings)
        return function

    monkeypatch.setattr(torch, "compile", uncompiled)
    monkeypatch.setattr(stochastic_rounding, "_LARGE", 50)  # the smaller ones are gathered all the same
    for one_by_one, together in zip(updated(SHAPES, steps=3, is_compiled=True), gathered, strict=True):
        # Without noise all is cut off, so that an ulp of float32 may be one of bfloat16: seldom, and never more.
        assert torch.allclose(one_by_one.float(), together.float(), rtol=2**-7, atol=2**-9)
        assert (one_by_one != together).float().mean() < 0.1
    assert calls == [{"dynamic": True}]


def test_a_kernel_that_cannot_be_compiled_is_done_without(monkeypatch):
    warnings = []
    monkeypatch.setattr(stochastic_rounding._log, "warning", lambda text, *words: warnings.append(text % words))

    def broken(*_):
        raise torch._dynamo.exc.TorchDynamoException("no C compiler")

    monkeypatch.setattr(torch, "compile", lambda function, **settings: broken)
    monkeypatch.setattr(stochastic_rounding, "_LARGE", 50)
    weights = parameters(SHAPES)
    before = [weight.detach().clone() for weight in weights]
    stepper = adamw(weights, is_compiled=True)
    stepper.step()
    assert all(not torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))
    stepper.step()
    assert warnings == ["the optimizer's kernel could not be compiled (no C compiler); going on without"]


def test_the_kernel_to_be_compiled_is_pointwise_from_end_to_end():
    """A compiler makes one kernel of pointwise operations on tensors of one shape: it reads and writes each once."""
    piece = [torch.zeros(8, dtype=torch.bfloat16) for _ in range(4)]
    noise = torch.zeros(8, dtype=torch.int32)
    numbers = [torch.tensor(0.5) for _ in range(6)]
    graph = make_fx(stochastic_rounding.update)(*piece, noise, *numbers).graph
    operations = [node.target for node in graph.nodes if node.op == "call_function"]
    assert len(operations) > 20
    aten = torch.ops.aten
    casts = {aten._to_copy.default, aten.copy_.default, aten.view.dtype, aten.detach.default}
    assert {operation for operation in operations if torch.Tag.pointwise not in operation.tags} <= casts


def test_many_weights_take_a_few_kernels():
    """Weight by weight it was 24 kernels each: 30,346 for large-v3's 1,258 weights."""
    weights = parameters([(24, 24)] * 50 + [(24,)] * 80)
    stepper = adamw(weights)
    stepper.step()  # makes the moments
    with KernelCounter() as counter:
        stepper.step()
    # a draw of noise, one chunk, and the step counts
    assert counter.launched < 40


def test_with_a_compiler_a_large_weight_takes_one_kernel(monkeypatch):
    """Launches at large-v3's shapes, as a GPU would get them, without its memory."""
    launched = []
    monkeypatch.setattr(torch, "compile", lambda function, **settings: lambda *tensors: launched.append(tensors))
    layer = [(1280, 1280)] * 4 + [(5120, 1280), (1280, 5120)] + [(1280,)] * 8 + [(5120,)]
    with torch.device("meta"):
        weights = [torch.nn.Parameter(torch.empty(shape, dtype=torch.bfloat16)) for shape in layer]
    for weight in weights:
        weight.grad = torch.empty_like(weight)
        weight.grad.requires_grad_(False)
    stepper = adamw(weights, is_compiled=True)
    monkeypatch.setattr(NoiseTable, "renew", lambda table: None)
    monkeypatch.setattr(stepper, "_update_gathered", lambda pieces, group, count: launched.append(pieces))
    stepper.step()
    sizes = [len(tensors[0]) for tensors in launched[:-1]]
    assert sizes == [1280 * 1280] * 4 + [5120 * 1280] * 2
    assert [piece.count for piece in launched[-1]] == [1280] * 8 + [5120]


def test_scratch_is_as_long_as_the_weights_that_are_gathered(monkeypatch):
    monkeypatch.setattr(stochastic_rounding, "compiled_update", lambda: stochastic_rounding.update)
    lengths = {}
    for is_compiled in (False, True):
        stepper = adamw(parameters([(300, 300), (24,)]), is_compiled=is_compiled)
        stepper.step()
        lengths[is_compiled] = {len(buffer) for buffer in stepper._buffers}
    assert lengths == {False: {300 * 300 + 24}, True: {24}}


def test_the_same_seed_gives_the_same_update_and_another_another():
    first, again = updated(SHAPES), updated(SHAPES)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    weights = parameters(SHAPES)
    torch.manual_seed(1)
    stepper = adamw(weights)
    stepper.step()
    stepper.step()
    assert not all(torch.equal(a, b) for a, b in zip(first, stored(weights, stepper), strict=True))


def test_a_weight_without_a_gradient_is_left_alone_and_counts_its_own_steps():
    weights = parameters([(5, 5), (6,)])
    stepper = adamw(weights)
    stepper.step()
    kept = stored(weights[1:], stepper)
    weights[1].grad = None
    stepper.step()
    assert all(torch.equal(a, b) for a, b in zip(kept, stored(weights[1:], stepper), strict=True))
    weights[1].grad = torch.ones(6, dtype=torch.bfloat16)
    stepper.step()
    assert [float(stepper.state[weight]["step"]) for weight in weights] == [3, 2]


def test_a_gradient_that_is_laid_out_otherwise_changes_the_same_numbers():
    plain, turned = parameters([(30, 20)]), parameters([(30, 20)])
    turned[0].grad = plain[0].grad.t().contiguous().t()
    assert not turned[0].grad.is_contiguous()
    for weights in (plain, turned):
        torch.manual_seed(0)
        adamw(weights).step()
    assert torch.equal(plain[0], turned[0])


def test_stretches_of_the_table_begin_at_many_offsets():
    noise = NoiseTable(2**14, torch.device("cpu"), is_wide=False)
    torch.manual_seed(0)
    noise.renew()
    starts = {noise.stretch(2**14).storage_offset() for _ in range(200)}
    assert len(starts) > 100
    assert {start % 16 for start in starts} == {0}


@pytest.mark.parametrize("is_compiled", [False, True], ids=["gathered", "kernel"])
def test_updates_are_unbiased_over_many_weights(monkeypatch, is_compiled):
    """Each weight has its rounding error, and their mean has none: for the weight and for both moments."""
    monkeypatch.setattr(stochastic_rounding, "compiled_update", lambda: stochastic_rounding.update)
    count = 200_000
    weight = torch.nn.Parameter(torch.ones(count, dtype=torch.bfloat16))
    weight.grad = torch.full((count,), 0.3, dtype=torch.bfloat16)
    torch.manual_seed(0)
    stepper = StochasticRoundingAdamW([{"params": [weight]}], 1e-3, (0.9, 0.999), 1e-8, is_compiled)
    stepper.step()
    slope = float(weight.grad[0])
    state = stepper.state[weight]
    means = ((weight, 1 - 1e-3), (state["exp_avg"], 0.1 * slope), (state["exp_avg_sq"], 1e-3 * slope**2))
    for values, expected in means:
        neighbours = sorted(set(values.tolist()))
        assert len(neighbours) == 2
        spacing = neighbours[1] - neighbours[0]
        mean = float(values.detach().double().mean())
        assert mean == pytest.approx(expected, abs=0.01 * spacing)  # nine standard errors
    errors = [(state[name].double() - state[name].double().mean()).sign() for name in ("exp_avg", "exp_avg_sq")]
    errors.append((weight.detach().double() - weight.detach().double().mean()).sign())
    for first, second in ((0, 1), (0, 2), (1, 2)):  # one rounding tells nothing of another of the same weight
        together = torch.corrcoef(torch.stack([errors[first], errors[second]]))[0, 1]
        assert abs(float(together)) < 0.02


def test_rounding_goes_to_a_neighbour_and_is_right_on_average():
    torch.manual_seed(0)
    low, high = 1.0, 1.0 + 2**-7  # neighbours in bfloat16
    values = rounded(low + 0.3 * (high - low), 20_000)
    assert set(values.tolist()) == {low, high}
    assert float((values == high).float().mean()) == pytest.approx(0.3, abs=0.015)


@pytest.mark.parametrize("value", [0.0, 1.5, -2.0, 2**-126, float("inf"), float("-inf")])
def test_what_bfloat16_can_hold_stays(value):
    assert set(rounded(value, 100).tolist()) == {value}


def test_what_is_not_finite_stays_so():
    assert not rounded(float("nan"), 1000).isfinite().any()


def distance_left(dtype, make_optimizer):
    """A linear regression: how far from its solution 600 updates of 1e-4 end."""
    torch.manual_seed(0)
    inputs, truth = torch.randn(64, 32), torch.randn(32) * 0.02 + 1
    weight = torch.nn.Parameter(torch.ones(32, dtype=dtype))
    stepper = make_optimizer([{"params": [weight], "weight_decay": 0.0}])
    for _ in range(600):
        ((inputs @ weight.float() - inputs @ truth) ** 2).mean().backward()
        stepper.step()
        stepper.zero_grad()
    return float((weight.detach().float() - truth).norm())


def test_small_updates_are_not_lost_as_they_are_with_rounding_to_the_nearest():
    exact = distance_left(torch.float32, lambda groups: torch.optim.AdamW(groups, lr=1e-4))
    nearest = distance_left(torch.bfloat16, lambda groups: torch.optim.AdamW(groups, lr=1e-4))
    rounding = distance_left(torch.bfloat16, lambda groups: StochasticRoundingAdamW(groups, 1e-4, (0.9, 0.999), 1e-8))
    start = float((torch.randn(32) * 0.02).norm())
    assert exact < rounding < 0.6 * start < nearest


def test_one_update_is_adamws_but_for_rounding():
    weights = [torch.nn.Parameter(torch.linspace(0.5, 2, 64, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16)]
    optimizers = (
        torch.optim.AdamW([{"params": weights[:1], "weight_decay": 0.1}], lr=0.01, betas=(0.8, 0.9)),
        StochasticRoundingAdamW([{"params": weights[1:], "weight_decay": 0.1}], 0.01, (0.8, 0.9), 1e-8),
    )
    for weight, stepper in zip(weights, optimizers, strict=True):
        for step in (1.0, 3.0):
            weight.grad = torch.linspace(1, 2, 64, dtype=weight.dtype) * step
            stepper.step()
    assert torch.allclose(weights[0], weights[1].float(), atol=2**-6)
    exact, moved = ((weight.detach().float() - torch.linspace(0.5, 2, 64)).mean().item() for weight in weights)
    assert moved == pytest.approx(exact, abs=2e-3)
    assert abs(moved) > 1e-2
