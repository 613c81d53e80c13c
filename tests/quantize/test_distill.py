"""The method is learned blocks and a pass over all of them with its own settings."""

import pytest
import torch
from tests.quantize.test_gptq import problem

from anybit.formats import TensorFormat
from anybit.quantize import distill, gradient_ptq


def test_starts_as_learned_blocks_do_under_its_own_name() -> None:
    weight, stats = problem()
    fmt = TensorFormat.parse("int3/g16")
    ours, theirs = distill.quantize(weight, fmt, stats), gradient_ptq.quantize(weight, fmt, stats)
    assert torch.equal(ours.qtensor.codes, theirs.qtensor.codes) and ours.report.method == "distill"
    assert ours.unrounded is not None and torch.equal(ours.unrounded, theirs.unrounded)


def test_the_pass_over_the_model_has_its_own_settings() -> None:
    options = distill.Options(steps=7, model_steps=11, model_rate=0.5, model_scale_rate=0.25, batch=3, seed=9)
    whole = options.whole()
    assert (whole.steps, whole.rate, whole.scale_rate, whole.batch, whole.seed) == (11, 0.5, 0.25, 3, 9)
    assert whole.loss == "kl" and options.loss == "mse"
    frozen = distill.Options(scales=False, optimizer="sign").whole()
    assert not frozen.scales and frozen.optimizer == "sign"
    with pytest.raises(ValueError, match="0 or more"):
        distill.Options(model_steps=-1)


def test_two_layers_are_learned_together() -> None:
    g = torch.Generator().manual_seed(0)
    x, up, down = (torch.randn(*shape, generator=g) for shape in ((16, 32, 24), (48, 24), (12, 48)))
    up, down, fmt = up / 5, down / 7, TensorFormat.parse("int2/g8")
    names = {"up": up, "down": down}
    parts = {key: (w, gradient_ptq.rtn.quantize(w, fmt).qtensor) for key, w in names.items()}

    def logits(weights, windows):
        return (torch.tanh(x[list(windows)] @ weights["up"].T) @ weights["down"].T).flatten(0, 1)

    done = distill.finish(parts, logits, lambda windows: logits(names, windows), 16, distill.Options(model_steps=150))
    assert done.kept and done.after < 0.6 * done.before
    assert all(done.weights[key].format == fmt for key in names)
