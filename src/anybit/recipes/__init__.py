"""Recipes: what to do with a model (`Recipe`), what that would mean (`preflight`), and doing it, resumably (`run`)."""

from anybit.recipes.pipeline import Progress, Result, run
from anybit.recipes.preflight import Preflight, preflight
from anybit.recipes.recipe import Calibration, Override, Recipe

__all__ = ["Calibration", "Override", "Preflight", "Progress", "Recipe", "Result", "preflight", "run"]
