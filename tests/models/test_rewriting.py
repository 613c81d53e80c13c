"""Whatever is rewritten, the logits of every family stay; the oracle is the untouched model."""

from dataclasses import replace

import pytest
import torch
from tests.models.conftest import MODELS

from anybit import models
from anybit.errors import RecipeError
from anybit.models import TorchExecutor, online
from anybit.models.fold_graph import sites
from anybit.models.rewriting import Rewrite, RewrittenEntry, rotate_residual
from anybit.models.weights import MemoryEntry, WeightStore
from anybit.transforms.hadamard import Rotation, block_size

IDS = [3, 90, 17, 17, 64, 5, 121, 44, 8, 30, 77, 12]


def logits(model):
    return TorchExecutor(model.plan, model.weights).forward(IDS, "all")


def assert_same(a, b):
    before, after = logits(a), logits(b)
    assert (after - before).norm() <= 1e-5 * before.norm()


def random_change(site, what, generator):
    if what == "scale":
        return torch.exp(torch.randn(site.units, generator=generator))
    if what == "permute":
        return torch.randperm(site.units, generator=generator)
    return torch.linalg.qr(torch.randn(site.units, site.units, generator=generator, dtype=torch.float64))[0].float()


@pytest.mark.parametrize("what", ["scale", "permute", "rotate"])
@pytest.mark.parametrize("name", MODELS)
def test_logits_stay_under_every_change_a_site_allows(tiny_model, name, what):
    model = models.load(tiny_model(name)[1])
    rewrite, generator = Rewrite(model.weights), torch.Generator().manual_seed(1)
    found = [site for site in sites(model.plan) if what in site.allows]
    assert found
    for site in found:
        getattr(rewrite, what)(site, random_change(site, what, generator))
    changed = replace(model, weights=rewrite.store())
    assert_same(model, changed)
    site = found[-1]
    assert not torch.equal(changed.weights.get(site.read[0].name if site.read else site.made[0].name).float(),
                           model.weights.get(site.read[0].name if site.read else site.made[0].name).float())  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_logits_stay_when_the_residual_stream_is_rotated(tiny_model, name):
    model = models.load(tiny_model(name)[1])
    rewrite = Rewrite(model.weights)
    width = model.plan.buffers["x"]
    left = rotate_residual(model.plan, rewrite, Rotation(block_size(width), 5))
    tied, post = "tied" in name or "gemma" in name, "gemma" in name
    assert bool(left) == tied and any(len(each.after) > 1 for each in left) == post
    changed = replace(model, plan=online.insert(model.plan, left), weights=rewrite.store())
    assert_same(model, changed)
    reader = next(op.weights[0].name for op in model.plan.ops if op.kind == "linear")
    assert not torch.allclose(changed.weights.get(reader), model.weights.get(reader).float())


def test_rewrites_of_a_rewritten_model_add_up(tiny_model):
    model = models.load(tiny_model("gemma3")[1])
    changed, generator = model, torch.Generator().manual_seed(2)
    for what in ("permute", "rotate", "scale", "permute"):
        rewrite = Rewrite(changed.weights)
        for site in sites(model.plan):
            if what in site.allows:
                getattr(rewrite, what)(site, random_change(site, what, generator))
        changed = replace(changed, weights=rewrite.store())
    assert_same(model, changed)


def test_snug_gains_keep_their_dtype_and_the_function():
    model = models.load("anybit-tiny")
    rewrite, generator = Rewrite(model.weights), torch.Generator().manual_seed(3)
    for site in (site for site in sites(model.plan) if site.kind == "norm"):
        wanted = torch.exp(torch.randn(site.units, generator=generator))
        used = rewrite.scale(site, wanted, snug=True)
        assert torch.allclose(used, wanted, rtol=2**-8)  # half a step of bfloat16
    changed = replace(model, weights=rewrite.store())
    assert all(changed.weights.dtype(n) == torch.bfloat16 for n in changed.weights.names() if "norm" in n)
    assert_same(model, changed)


def test_a_gain_of_zero_is_left_alone(tiny_model):
    model = models.load(tiny_model("llama")[1])
    name = "model.layers.0.input_layernorm.weight"
    gains = model.weights.get(name).clone()
    gains[3] = 0
    model = replace(model, weights=WeightStore({**model.weights.entries, name: MemoryEntry(gains)}))
    rewrite = Rewrite(model.weights)
    site = next(site for site in sites(model.plan) if site.kind == "norm")
    used = rewrite.scale(site, torch.full((site.units,), 3.0), snug=True)
    assert used[3] == 1 and used[4] == pytest.approx(3.0, rel=1e-6)
    assert_same(model, replace(model, weights=rewrite.store()))


def test_matrices_are_rewritten_when_they_are_read(tiny_model):
    model = models.load(tiny_model("llama")[1])
    rewrite = Rewrite(model.weights)
    site = next(site for site in sites(model.plan) if site.kind == "ud")
    rewrite.scale(site, torch.full((site.units,), 2.0))
    entry = rewrite.store().entries[site.read[0].name]
    assert isinstance(entry, RewrittenEntry) and entry.dtype == torch.float32
    assert entry.nbytes == entry.read().nbytes and entry.shape == tuple(entry.read().shape)
    assert torch.equal(entry.read((2, 4)), model.weights.get(site.read[0].name)[2:4] / 2)
    assert isinstance(rewrite.store(memory=True).entries[site.read[0].name], MemoryEntry)


def test_what_a_site_does_not_allow_is_refused(tiny_model):
    model = models.load(tiny_model("llama")[1])
    rewrite = Rewrite(model.weights)
    norm = next(site for site in sites(model.plan) if site.kind == "norm")
    with pytest.raises(RecipeError, match="cannot be changed by permute"):
        rewrite.permute(norm, torch.arange(norm.units))
    with pytest.raises(RecipeError, match="zero, infinite or NaN"):
        rewrite.scale(norm, torch.zeros(norm.units))
    with pytest.raises(RecipeError, match=r"48 channels; got 47"):
        rewrite.scale(norm, torch.ones(47))
    stream = sites(model.plan)[-1]
    with pytest.raises(RecipeError, match="no permutation"):
        rewrite.permute(stream, torch.zeros(stream.units, dtype=torch.int64))
