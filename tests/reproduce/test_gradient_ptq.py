"""Every row of the experiment is a recipe; the whole quick run is slow."""

import pytest

from anybit import recipes
from anybit.reproduce import gradient_ptq
from anybit.reproduce.experiment import Context


def test_the_usual_recipe_is_valid_and_learns_roundings_alone():
    recipe = recipes.Recipe.parse(gradient_ptq._recipe(gradient_ptq.USUAL))
    assert recipe.method == "gradient_ptq" and recipe.options == {"start": "rtn", "scales": False}


@pytest.mark.slow
def test_the_quick_run(tmp_path, shared_data):
    figures = gradient_ptq.run(Context(shared_data, tmp_path), quick=True)
    assert figures["usual"]["kl"] < figures["rtn"]["kl"]
