import pytest
import torch

from anybit.allocate.metrics import output_error as module
from anybit.allocate.metrics.output_error import lookup_error, output_error


@pytest.fixture(params=[3, 1024])
def rows_at_a_time(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", request.param)


def test_is_the_fisher_weighted_squared_output_difference(rows_at_a_time: None) -> None:
    torch.manual_seed(0)
    x, w, v = (torch.randn(*s, dtype=torch.float64) for s in ((40, 6), (10, 6), (10, 6)))
    f = torch.rand(10, dtype=torch.float64)
    hessian = 2 * x.T @ x / 40
    direct = 0.5 * float((((x @ (w - v).T) ** 2).mean(0) * f).sum())
    assert output_error(w, v, hessian, f) == pytest.approx(direct, rel=1e-12)
    plain = 0.5 * float(((x @ (w - v).T) ** 2).sum() / 40)
    assert output_error(w, v, hessian) == pytest.approx(plain, rel=1e-12)


def test_predicts_the_loss_increase_of_a_small_change_of_one_output() -> None:
    """Where only one logit changes, the diagonal of G is all that counts, and Δ is the true KL to second order."""
    torch.manual_seed(1)
    x, w = torch.randn(500, 6, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64)
    v = w.clone()
    v[2] += 1e-3 * torch.randn(6, dtype=torch.float64)
    p = torch.softmax(x @ w.T, 1)
    kl = (p * (torch.log(p) - torch.log_softmax(x @ v.T, 1))).sum(1).mean()
    # Independence of x and g is K-FAC's assumption; weighing each token by its own curvature removes it from this
    # check.
    curvature = p[:, 2] * (1 - p[:, 2])
    scaled = x * (curvature / curvature.mean()).sqrt()[:, None]
    fisher = torch.zeros(5, dtype=torch.float64)
    fisher[2] = curvature.mean()
    assert output_error(w, v, 2 * scaled.T @ scaled / 500, fisher) == pytest.approx(float(kl), rel=5e-3)


def test_lookup_error_weighs_rows_by_frequency(rows_at_a_time: None) -> None:
    torch.manual_seed(2)
    table, values = torch.randn(8, 4), torch.randn(8, 4)
    ids = torch.tensor([0, 3, 3, 7, 1, 3])
    fisher = torch.rand(4)
    frequency = torch.bincount(ids, minlength=8) / 6
    direct = 0.5 * float((((table - values)[ids].double() ** 2) * fisher).sum(1).mean())
    assert lookup_error(table, values, frequency, fisher) == pytest.approx(direct, rel=1e-6)
    assert lookup_error(table, table, frequency) == 0
