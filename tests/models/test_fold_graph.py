"""Sites cover what they say: every channel once, and only changes that leave the function as it is (`test_rewriting` applies them)."""

import pytest
import torch
from tests.models.conftest import MODELS

from anybit import models
from anybit.models.fold_graph import KINDS, sites


@pytest.mark.parametrize("name", MODELS)
def test_every_family_has_every_kind_but_the_norm_of_a_tied_head(tiny_model, name):
    plan = models.load(tiny_model(name)[1]).plan
    found = sites(plan)
    count = {kind: sum(site.kind == kind for site in found) for kind in KINDS}
    assert count["ud"] == plan.layers and count["vo"] == plan.layers * plan.kv_heads and count["residual"] == 1
    assert count["qk"] >= plan.layers
    uses = [op.weights[0].name for op in plan.ops if op.weights]
    tied = uses.count(uses[0]) > 1  # of the embedding
    assert count["norm"] == 2 * plan.layers + (0 if tied else 1)


@pytest.mark.parametrize("name", MODELS)
def test_parts_lie_within_their_tensors_and_name_no_channel_twice(tiny_model, name):
    model = models.load(tiny_model(name)[1])
    for site in sites(model.plan):
        for part in (*site.made, *site.read, *site.follow):
            shape = model.weights.shape(part.name)
            flat = part.index.reshape(-1)
            assert part.index.shape[0] == site.units
            assert len(flat.unique()) == len(flat) and int(flat.min()) >= 0 and int(flat.max()) < shape[part.dim]


def test_values_of_one_head_are_read_by_its_whole_group(tiny_model):
    plan = models.load(tiny_model("llama")[1]).plan  # 6 heads of 8, 2 kv heads
    site = [site for site in sites(plan) if site.kind == "vo"][1]
    assert site.made[0].index[:, 0].tolist() == list(range(8, 16))
    assert site.read[0].index[1].tolist() == [25, 33, 41]
    assert plan.ops[site.readers[0]].weights[0].name.endswith("o_proj.weight")


def test_pairs_of_rope_are_scaled_and_reordered_only(tiny_model):
    plan = models.load(tiny_model("phi3_short")[1]).plan  # 6 of 8 channels are rotated
    pairs, alone = [site for site in sites(plan) if site.kind == "qk"][::2][:2]
    kinds = {site.made[0].index.shape[1]: site for site in (s for s in sites(plan) if s.kind == "qk")}
    assert kinds[2].allows == {"scale", "reorder"} and kinds[2].units == 3
    assert kinds[1].allows == {"scale", "permute", "rotate"} and kinds[1].units == 2
    assert torch.equal(kinds[1].made[0].index[:, 0] % 8, torch.tensor([6, 7]))
    assert pairs.kind == alone.kind == "qk"
