"""Each operator against float64 arithmetic written out by loops."""

import math

import pytest
import torch

from anybit.formats import TensorFormat
from anybit.models.interpreter import Setting, run
from anybit.models.plan import Op, Plan, WeightRef
from anybit.tensors import quantize


class Fixed:
    def __init__(self, **weights):
        self.weights = weights

    def resolve(self, ref):
        value = self.weights[ref.name]
        return value if ref.rows is None else value[ref.rows[0] : ref.rows[1]]


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def execute(op, weights=None, constants=None, setting=None, position=0, last_only=False, **buffers):
    plan = Plan((), (), {"logits": 1}, constants or {}, 1, 1, 1, 1, 99)
    out = run(plan, Fixed(**(weights or {})), [op], buffers, setting, position, None, last_only)
    return out[op.output]


def close(got, want, scale=1.0):
    return torch.allclose(
        got.double(), torch.as_tensor(want, dtype=torch.float64).reshape(got.shape), atol=2e-6 * scale
    )


@pytest.mark.parametrize("spec", [None, "int8/row", "int4/g4", "int6/b2x4", "bf16"])
def test_embedding(spec):
    table = random(9, 8)
    stored = table if spec is None else quantize(table, TensorFormat.parse(spec))
    values = table if spec is None else stored.dequantize()
    ids = torch.tensor([3, 0, 8, 3])
    got = execute(Op("embedding", ("ids",), "x", (WeightRef("t"),), {"factor": 1.5}), {"t": stored}, ids=ids)
    assert close(got, torch.stack([values[i] * 1.5 for i in ids.tolist()]))


def test_rms_norm():
    x, gain = random(3, 12), random(6, seed=1)
    got = execute(
        Op("rms_norm", ("x",), "y", (WeightRef("g"),), {"eps": 0.1, "offset": 1.0, "heads": 2}), {"g": gain}, x=x
    )
    want = []
    for row in x.double():
        for head in (row[:6], row[6:]):
            rms = math.sqrt(sum(v * v for v in head.tolist()) / 6 + 0.1)
            want += [v / rms * (g + 1) for v, g in zip(head.tolist(), gain.double().tolist(), strict=True)]
    assert close(got, want)


def test_linear_with_bias_slice_and_accumulation():
    x, w, b, y = random(3, 5), random(9, 5, seed=1), random(9, seed=2), random(3, 4, seed=3)
    op = Op("linear", ("x",), "y", (WeightRef("w", (2, 6)), WeightRef("b", (2, 6))), {"accumulate": 1})
    got = execute(op, {"w": w, "b": b}, x=x, y=y)
    assert close(got, y.double() + x.double() @ w[2:6].double().T + b[2:6].double(), 10)


def test_hooks_see_input_and_product():
    seen = {}
    x, w, y = random(3, 5), random(4, 5, seed=1), random(3, 4, seed=3)
    setting = Setting(
        on_linear=lambda ref, v: seen.__setitem__("in", (ref, v)), on_output=lambda ref, v: seen.__setitem__("out", v)
    )
    execute(Op("linear", ("x",), "y", (WeightRef("w"),), {"accumulate": 1}), {"w": w}, setting=setting, x=x, y=y)
    assert seen["in"][0] == WeightRef("w") and torch.equal(seen["in"][1], x)
    assert close(seen["out"], x.double() @ w.double().T, 10)


def test_activations_are_rounded_where_the_weight_is_quantized_only():
    x, w = random(3, 8), random(4, 8, seed=1)
    act = TensorFormat.parse("int8/row")
    op = Op("linear", ("x",), "y", (WeightRef("w"),))
    assert close(execute(op, {"w": w}, setting=Setting(act=act), x=x), x.double() @ w.double().T, 10)
    q = quantize(w, TensorFormat.parse("int4/g4"))
    scale = x.abs().amax(1, keepdim=True).double() / 127
    rounded = torch.round(x.double() / scale) * scale
    assert close(execute(op, {"w": q}, setting=Setting(act=act), x=x), rounded @ q.dequantize().double().T, 10)


def test_rope():
    x, table = random(3, 20), torch.tensor([1.0, 0.1, 0.01])
    op = Op("rope", ("x",), "x", (), {"heads": 2, "table": "t", "factor": 0.9})
    got = execute(op, constants={"t": table}, position=7, x=x)
    want = x.double().clone()
    for t in range(3):
        for head in (0, 10):
            for i in range(3):
                angle = (7 + t) * float(table[i])
                a, b = float(x[t, head + i]), float(x[t, head + 3 + i])
                want[t, head + i] = 0.9 * (a * math.cos(angle) - b * math.sin(angle))
                want[t, head + 3 + i] = 0.9 * (b * math.cos(angle) + a * math.sin(angle))
    assert close(got, want)


@pytest.mark.parametrize("window, softcap", [(0, 0.0), (3, 0.0), (0, 1.5), (4, 2.0)])
def test_attention(window, softcap):
    tokens, heads, kv, dim = 7, 4, 2, 3
    q, k, v = random(tokens, heads * dim), random(tokens, kv * dim, seed=1), random(tokens, kv * dim, seed=2)
    attrs = {"layer": 0, "heads": heads, "kv_heads": kv, "scale": 0.7, "window": window, "softcap": softcap}
    got = execute(Op("attention", ("q", "k", "v"), "a", (), attrs), q=q, k=k, v=v)
    want = torch.zeros(tokens, heads * dim, dtype=torch.float64)
    for t in range(tokens):
        for h in range(heads):
            g = h // (heads // kv)
            first = 0 if window == 0 else max(0, t - window + 1)
            query = q[t, h * dim : h * dim + dim].double()
            keys = [k[s, g * dim : g * dim + dim].double() for s in range(first, t + 1)]
            scores = [0.7 * float(query @ key) for key in keys]
            scores = [softcap * math.tanh(s / softcap) if softcap else s for s in scores]
            share = [math.exp(s) for s in scores]
            for s, p in zip(range(first, t + 1), share, strict=True):
                want[t, h * dim : h * dim + dim] += p / sum(share) * v[s, g * dim : g * dim + dim].double()
    assert close(got, want, 3)


def test_attention_in_query_blocks_equals_one(monkeypatch):
    from anybit.models import interpreter

    q, k, v = random(9, 8), random(9, 4, seed=1), random(9, 4, seed=2)
    attrs = {"layer": 0, "heads": 4, "kv_heads": 2, "scale": 1.0, "window": 4, "softcap": 0.0}
    op = Op("attention", ("q", "k", "v"), "a", (), attrs)
    whole = execute(op, q=q, k=k, v=v)
    monkeypatch.setattr(interpreter, "QUERY_ROWS", 2)
    assert torch.allclose(execute(op, q=q, k=k, v=v), whole, atol=1e-6)


def test_leading_dimensions_are_independent_sequences():
    q, k, v = random(2, 9, 8), random(2, 9, 4, seed=1), random(2, 9, 4, seed=2)
    attrs = {"layer": 0, "heads": 4, "kv_heads": 2, "scale": 1.0, "window": 0, "softcap": 0.0}
    op = Op("attention", ("q", "k", "v"), "a", (), attrs)
    both = execute(op, q=q, k=k, v=v)
    assert torch.allclose(both[1], execute(op, q=q[1], k=k[1], v=v[1]), atol=1e-6)


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_tanh"])
def test_glu(name):
    gate, up = random(2, 5), random(2, 5, seed=1)
    formulas = {
        "silu": lambda x: x / (1 + math.exp(-x)),
        "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
        "gelu_tanh": lambda x: x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    }
    want = [formulas[name](g) * u for g, u in zip(gate.flatten().tolist(), up.flatten().tolist(), strict=True)]
    assert close(execute(Op("glu", ("g", "u"), "g", (), {"activation": name}), g=gate, u=up), want)


def test_add_softcap_last():
    a, b = random(3, 4), random(3, 4, seed=1)
    assert close(execute(Op("add", ("a", "b"), "a"), a=a, b=b), a.double() + b.double())
    assert close(execute(Op("softcap", ("a",), "a", (), {"cap": 2.0}), a=a), 2 * torch.tanh(a.double() / 2))
    assert torch.equal(execute(Op("last", ("a",), "a"), a=a, last_only=True), a[-1:])
    assert torch.equal(execute(Op("last", ("a",), "a"), a=a), a)


def test_gradients_flow_and_inputs_stay():
    x = random(3, 6).requires_grad_()
    before = x.detach().clone()
    w = random(6, 6, seed=1)
    plan = Plan((), (), {"logits": 1}, {"t": torch.tensor([1.0])}, 1, 1, 1, 1, 99)
    ops = [
        Op("rms_norm", ("x",), "h", (WeightRef("g"),), {"eps": 1e-5}),
        Op("rope", ("h",), "h", (), {"heads": 3, "table": "t"}),
        Op("attention", ("h", "h", "h"), "h", (), {"layer": 0, "heads": 3, "kv_heads": 3, "scale": 1.0}),
        Op("linear", ("h",), "x", (WeightRef("w"),), {"accumulate": 1}),
    ]

    def f(value):
        return run(plan, Fixed(g=torch.ones(6), w=w), ops, {"x": value})["x"].square().sum()

    f(x).backward()
    step = 1e-3 * random(3, 6, seed=2)
    with torch.no_grad():
        slope = (f(x + step) - f(x - step)) / 2
    assert float((x.grad * step).sum()) == pytest.approx(float(slope), rel=5e-3)
    assert torch.equal(x.detach(), before)


def test_multiply_computes_every_product_of_linear_layers():
    x, w, b = random(2, 3, 5), random(9, 5, seed=1), random(9, seed=2)
    sites = []

    def doubled(site, a, c):
        sites.append((site, a.shape, c.shape))
        return 2 * (a @ c.T)

    op = Op("linear", ("x",), "y", (WeightRef("w", (2, 6)), WeightRef("b", (2, 6))))
    got = execute(op, {"w": w, "b": b}, setting=Setting(multiply=doubled), x=x)
    assert close(got, 2 * x.double() @ w[2:6].double().T + b[2:6].double(), 10)
    assert sites == [("w[2:6]", (6, 5), (4, 5))]


def test_multiply_computes_the_products_of_attention():
    q, k, v = random(2, 5, 12), random(2, 5, 6, seed=1), random(2, 5, 6, seed=2)
    op = Op("attention", ("q", "k", "v"), "a", (), {"layer": 3, "heads": 4, "kv_heads": 2, "scale": 0.5})
    plain, sites = execute(op, q=q, k=k, v=v), []

    def recorded(site, a, c):
        sites.append(site)
        return a @ c.T

    assert close(execute(op, setting=Setting(multiply=recorded), q=q, k=k, v=v), plain)
    assert sites == ["scores.3"] * 4 + ["mixing.3"] * 4
    # Scores of zero mean every visible value counts the same.
    flat = execute(op, setting=Setting(multiply=lambda s, a, c: (a @ c.T) * (s != "scores.3")), q=q, k=k, v=v)
    assert close(flat[:, :, 0], v.cumsum(1)[:, :, 0] / torch.arange(1, 6))
