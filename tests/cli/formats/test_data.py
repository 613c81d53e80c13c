"""What must hold for data.py: unit variance, the model's own weights, and a clear refusal where there are none."""

from __future__ import annotations

import numpy as np
import pytest

from anybit.cli.formats.data import WEIGHTS, distributions, model_or_none, weights


def test_weights_are_those_of_the_model_scaled_to_unit_variance(tiny_folder):
    from anybit import models

    found = weights(str(tiny_folder))
    assert 0 < len(found) <= WEIGHTS and np.var(found) == pytest.approx(1, abs=0.05)
    store = models.load(tiny_folder).weights
    names = [n for n in store.names() if len(store.shape(n)) == 2 and np.prod(store.shape(n)) >= 4096]
    first = store.get(names[0]).float().double()
    assert found[0] == pytest.approx(float(first.flatten()[0] / store.get(names[0]).float().std()), rel=1e-6)


def test_distributions_have_the_model_by_its_name(tiny_folder):
    assert list(distributions(None)) == ["gaussian", "laplace"]
    assert list(distributions(str(tiny_folder) + "/"))[2] == tiny_folder.name
    assert model_or_none("none") is None and model_or_none("x") == "x"
