import numpy as np
import pytest
import torch

from anybit.errors import RecipeError
from anybit.quantize.statistics import Statistics


def test_is_the_token_average_of_2_x_xt() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((n, 12)) for n in (1, 7, 30)]
    statistics = Statistics(12, dtype=torch.float64)
    for part in parts:
        statistics.add(torch.from_numpy(part))
    x = np.concatenate(parts)
    expected = 2 * x.T @ x / len(x)
    assert statistics.tokens == 38
    np.testing.assert_allclose(statistics.hessian.numpy(), expected, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(statistics.second_moment.numpy(), (x * x).mean(0), rtol=1e-13)


def test_leading_dimensions_are_tokens_and_input_is_untouched() -> None:
    x = torch.randn(2, 5, 4)
    before = x.clone()
    a, b = Statistics(4), Statistics(4)
    a.add(x)
    b.add(x.reshape(10, 4))
    a.add(torch.empty(0, 4))
    assert torch.equal(a.hessian, b.hessian) and a.tokens == b.tokens == 10
    assert torch.equal(x, before)
    assert a.hessian.dtype == torch.float32


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_refuses_non_finite_inputs_and_keeps_what_it_had(bad: float) -> None:
    statistics = Statistics(3, name="model.layers.0.mlp.up_proj")
    statistics.add(torch.ones(2, 3))
    kept = statistics.hessian.clone()
    x = torch.ones(2, 3)
    x[1, 2] = bad
    with pytest.raises(RecipeError, match=r"model\.layers\.0\.mlp\.up_proj.*NaN"):
        statistics.add(x)
    assert torch.equal(statistics.hessian, kept) and statistics.tokens == 2


def test_refuses_wrong_width_dtype_and_shape() -> None:
    with pytest.raises(RecipeError, match="5 columns"):
        Statistics(3).add(torch.ones(2, 5))
    with pytest.raises(RecipeError, match="float16"):
        Statistics(3, dtype=torch.float16)
    with pytest.raises(RecipeError, match="at least one"):
        Statistics(0)
    with pytest.raises(RecipeError, match="square"):
        Statistics.from_hessian(torch.ones(2, 3), 1)


def test_from_hessian_copies() -> None:
    h = torch.eye(3)
    statistics = Statistics.from_hessian(h, 10)
    h[0, 0] = 5
    assert statistics.hessian[0, 0] == 1 and statistics.tokens == 10 and statistics.columns == 3


def test_magnitudes_are_kept_beside_the_second_moments() -> None:
    x = torch.randn(3, 40, 6)
    statistics = Statistics(6)
    for part in x:
        statistics.add(part)
    flat = x.reshape(-1, 6).abs()
    torch.testing.assert_close(statistics.mean_absolute, flat.mean(0))
    assert torch.equal(statistics.largest, flat.amax(0))
    assert statistics.mean_absolute.dtype == statistics.largest.dtype == torch.float32
