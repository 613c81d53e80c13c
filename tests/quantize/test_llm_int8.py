"""Against the formulas of the paper in float64, and what it is for."""

import torch

from anybit import ops
from anybit.formats import TensorFormat
from anybit.quantize import llm_int8
from anybit.transforms.split import Options, outlier_columns

ROW = TensorFormat.parse("int8/row")


def problem() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(40, 200, generator=g), torch.randn(32, 200, generator=g)
    x[:, [17, 120]] *= 60
    return x, w


def decomposed(x: torch.Tensor, w: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """As a plan computes it: an int8 product without the columns, and a dense one of them."""
    kept, rest = w.clone(), x.clone()
    kept[:, columns], rest[:, columns] = 0.0, 0.0
    q = llm_int8.quantize(kept, ROW).qtensor
    return ops.matmul(rest, q, act=ROW) + x[:, columns] @ w[:, columns].T


def test_the_product_is_that_of_the_paper() -> None:
    x, w = problem()
    columns = outlier_columns(x.abs().amax(0), Options(ratio=6.0))
    assert columns.tolist() == [17, 120]
    a, b = x.double(), w.double()
    a[:, columns], b[:, columns] = 0.0, 0.0
    ca, cb = a.abs().amax(1, keepdim=True), b.abs().amax(1, keepdim=True)
    integers = torch.round(a * 127 / ca) @ torch.round(b * 127 / cb).T
    wanted = integers * ca * cb.T / 127**2 + x.double()[:, columns] @ w.double()[:, columns].T
    got = decomposed(x, w, columns)
    assert (got - wanted).norm() <= 1e-3 * wanted.norm()


def test_it_keeps_what_plain_rows_lose() -> None:
    x, w = problem()
    exact = x @ w.T
    plain = ops.matmul(x, llm_int8.quantize(w, ROW).qtensor, act=ROW)
    ours = decomposed(x, w, torch.tensor([17, 120]))
    assert (ours - exact).norm() < (plain - exact).norm() / 5


def test_a_row_of_zeros_stays_zero() -> None:
    w = torch.randn(4, 32)
    w[2] = 0
    assert torch.equal(llm_int8.quantize(w, ROW).qtensor.dequantize()[2], torch.zeros(32))
