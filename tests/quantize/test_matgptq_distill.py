"""Slices are learned together: what is served on the way is what the stored codes serve, and every width gains."""

import pytest
import torch
from tests.quantize.test_gptq import problem

from anybit import tensors
from anybit.formats import TensorFormat
from anybit.quantize import matgptq, matgptq_distill
from anybit.quantize.matgptq_distill import Options, _Code


def test_starts_as_matgptq_does_under_its_own_name() -> None:
    weight, stats = problem()
    fmt = TensorFormat.parse("int8/g16")
    ours = matgptq_distill.quantize(weight, fmt, stats, Options())
    theirs = matgptq.quantize(weight, fmt, stats, matgptq.Options(bits="2,3,4,8", weights="0.01,0.1,0.3,1"))
    assert torch.equal(ours.qtensor.codes, theirs.qtensor.codes) and ours.report.method == "matgptq_distill"


@pytest.mark.parametrize("spec", ["int8/g16", "int8/row", "int8/g16:e4m3fn+t", "int8/tensor", "int8/b4x16"])
def test_what_is_served_on_the_way_is_what_the_stored_codes_serve(spec: str) -> None:
    g = torch.Generator().manual_seed(0)
    q = tensors.quantize(torch.randn(8, 48, generator=g), TensorFormat.parse(spec))
    code = _Code(q, 2)
    widths = (1, 2, 3, 4, 6, 8)
    for moved in (False, True):
        if moved:
            with torch.no_grad():
                code.offset.copy_(0.3 * torch.randn(8, 48, generator=g))
                code.scales.stretch.copy_(0.1 * torch.randn(code.scales.stretch.shape, generator=g))
        stored = code.harden()
        assert torch.equal(stored.codes, q.codes) != moved and stored.format == q.format
        for bits, value in zip(widths, code.values(widths), strict=True):
            torch.testing.assert_close(value.detach(), stored.at_bits(bits).dequantize(), rtol=1e-5, atol=1e-6)
    sum(value.square().sum() for value in code.values(widths)).backward()
    assert code.offset.grad is not None and bool((code.offset.grad != 0).any())
    assert code.scales.stretch.grad is not None and bool((code.scales.stretch.grad != 0).any())


def test_every_width_of_two_layers_gains() -> None:
    g = torch.Generator().manual_seed(0)
    x, up, down = (torch.randn(*shape, generator=g) for shape in ((16, 32, 24), (48, 24), (12, 48)))
    fmt = TensorFormat.parse("int8/g8")
    exact = {"up": up / 5, "down": down / 7}
    parts = {key: (w, tensors.quantize(w, fmt)) for key, w in exact.items()}

    def logits(weights: dict[str, torch.Tensor], windows: list[int]) -> torch.Tensor:
        return (torch.tanh(x[list(windows)] @ weights["up"].T) @ weights["down"].T).flatten(0, 1)

    def divergence(found: dict[str, tensors.QTensor], bits: int) -> float:
        want = logits(exact, list(range(16))).log_softmax(-1)
        got = logits({key: q.at_bits(bits).dequantize() for key, q in found.items()}, list(range(16))).log_softmax(-1)
        return float((want.exp() * (want - got)).sum(-1).mean())

    options = Options(bits="2,3,4", weights="1,1,1", losses="1,3,15", model_steps=200, held_out=0.0)
    done = matgptq_distill.finish(parts, logits, lambda windows: logits(exact, windows), 16, options)
    assert done.kept and done.after < 0.7 * done.before
    for bits in (2, 3, 4):
        assert divergence(dict(done.weights), bits) < divergence({key: q for key, (_, q) in parts.items()}, bits)
    again = matgptq_distill.finish(parts, logits, lambda windows: logits(exact, windows), 16, options)
    assert all(torch.equal(done.weights[key].codes, again.weights[key].codes) for key in parts)


def test_refusals() -> None:
    for losses in ("1,2", "1,2,3,x", "0,0,0,0", "-1,1,1,1"):
        with pytest.raises(ValueError):
            Options(losses=losses)
    with pytest.raises(ValueError, match="0 or more"):
        Options(model_steps=-1)
