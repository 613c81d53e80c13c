from pathlib import Path

import pytest

from anybit import models
from anybit.errors import RecipeError
from anybit.recipes import items
from anybit.recipes.recipe import Recipe

from .conftest import weights


def test_roles_and_readers(model: Path, tied: Path) -> None:
    loaded = models.load(model)
    found = {item.name: item for item in items.quantizable(loaded)}
    assert len(found) == 2 + 2 * 7
    assert found["model.embed_tokens.weight"].role == "embedding"
    assert found["lm_head.weight"].role == "lm_head"
    down = found["model.layers.1.mlp.down_proj.weight"]
    assert (down.role, down.shape, down.parameters) == ("linear", (32, 80), 2560)
    for item in found.values():
        assert all(loaded.plan.ops[index].weights[0].name == item.name for index in item.ops)
    roles = [item.role for item in items.quantizable(models.load(tied))]
    assert roles.count("tied") == 1 and roles.count("linear") == 14 and len(roles) == 15


def test_accounting_counts_every_stored_byte(model: Path, tied: Path) -> None:
    for path, is_tied in ((model, False), (tied, True)):
        loaded = models.load(path)
        found = items.quantizable(loaded)
        accounting = items.account(loaded, found)
        stored = weights(is_tied)
        assert accounting.parameters == sum(t.numel() for t in stored.values())
        assert accounting.source_bytes == sum(t.nbytes for t in stored.values())
        assert accounting.other_bytes == sum(t.nbytes for t in stored.values() if t.ndim == 1)
        assert accounting.bits_per_weight(accounting.source_bytes - accounting.other_bytes) == 16
        budget = accounting.item_budget(4.0)
        assert accounting.bits_per_weight(budget) <= 4.0 < accounting.bits_per_weight(budget + 1)
        assert items.size(found[0], "keep", accounting) == stored[found[0].name].nbytes


def test_uniform_defaults_and_overrides(model: Path, tied: Path) -> None:
    found = items.quantizable(models.load(model))
    recipe = Recipe.parse(
        {"weights": "int4/g16", "overrides": [{"pattern": "*.k_proj.*", "weights": "keep"}], "lm_head": "nf4/g16"}
    )
    chosen = items.fixed_formats(recipe, found)
    assert chosen["model.embed_tokens.weight"] == "int8/row" and chosen["lm_head.weight"] == "nf4/g16"
    assert chosen["model.layers.0.self_attn.k_proj.weight"] == "keep"
    assert chosen["model.layers.0.self_attn.q_proj.weight"] == "int4/g16"
    budget = items.fixed_formats(Recipe.parse({"bits": 4, "embeddings": "int8/row"}), found)
    assert budget["model.embed_tokens.weight"] == "int8/row" and budget["lm_head.weight"] is None
    both = items.fixed_formats(
        Recipe.parse({"weights": "int4/g16", "lm_head": "int6/row"}), items.quantizable(models.load(tied))
    )
    assert both["model.embed_tokens.weight"] == "int6/row"


def test_an_override_that_matches_nothing_is_refused(model: Path) -> None:
    recipe = Recipe.parse({"weights": "int4/g16", "overrides": [{"pattern": "*.kproj.*", "weights": "keep"}]})
    with pytest.raises(RecipeError, match=r"'\*\.kproj\.\*' matches none of the model's 16"):
        items.fixed_formats(recipe, items.quantizable(models.load(model)))


def test_short_groups_are_said() -> None:
    item = items.Item("w", (4, 80), "linear", (0,))
    assert (
        items.short_groups(item, "int4/g32")
        == "w: 80 columns in groups of 32: the last group of 16 is short (3 groups)"
    )
    assert items.short_groups(item, "int4/g40") is None
    assert items.short_groups(item, "int4/row") is None
    assert items.short_groups(item, "keep") is None
