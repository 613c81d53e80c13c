"""A model in emulated arithmetic: which products are emulated, by what rule, and the gain that removes the rule's bias at each of them.

    plain = Emulation(Product("lmul_add", "e8m4"), where="attention")
    corrected = calibrated(plain, model.plan, model.weights, windows)
    evaluation.perplexity(TorchExecutor(model.plan, model.weights, multiply=corrected), windows)

The approximate rules of `ops.product` are biased: L-Mul with 4 mantissa bits gives 5 % more than the product (arXiv 2410.00907). One gain a
site, sum |exact| / sum |approximate| over what flows through it, folds into any scale of the output and costs nothing at run time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from torch import Tensor

from anybit.errors import AnybitError
from anybit.models.executor import TorchExecutor
from anybit.models.plan import Plan
from anybit.models.weights import Weights
from anybit.ops import Accumulator, Product, emulated_matmul, matmul

Where = Literal["all", "attention", "linear"]


@dataclass(frozen=True)
class Emulation:
    """`interpreter.Multiply` by `ops.matmul(multiply=…, accumulate=…)`; products elsewhere than `where` are torch's, in float32.

    where: "attention" (queries times keys, probabilities times values), "linear" (weights) or "all".
    gains: site -> gain instead of the product's own.  AnybitError for another `where`.
    """

    product: Product
    where: Where = "all"
    accumulate: Accumulator | None = None
    gains: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.where not in get_args(Where):
            raise AnybitError(f"products are emulated in {', '.join(get_args(Where))}; got {self.where!r}")

    def covers(self, site: str) -> bool:
        """Is the product of that site emulated?"""
        attention = site.startswith(("scores.", "mixing."))
        return self.where == "all" or attention == (self.where == "attention")

    def __call__(self, site: str, x: Tensor, w: Tensor) -> Tensor:
        if not self.covers(site):
            return x @ w.T
        product = replace(self.product, gain=self.gains.get(site, self.product.gain))
        return matmul(x, w, multiply=product, accumulate=self.accumulate)


def calibrated(emulation: Emulation, plan: Plan, weights: Weights, windows: Iterable[Sequence[int]]) -> Emulation:
    """The emulation with a gain for each site it covers, from exact runs over windows of token ids. AnybitError without windows."""
    unit = replace(emulation.product, gain=1.0)
    sums: dict[str, tuple[float, float]] = {}

    def observe(site: str, x: Tensor, w: Tensor) -> Tensor:
        if emulation.covers(site):
            a, b = x.float().abs(), w.float().abs()
            exact, approximate = sums.get(site, (0.0, 0.0))
            exact += float((a.double().sum(0) * b.double().sum(0)).sum())
            approximate += float(emulated_matmul(a, b, unit).double().sum())
            sums[site] = exact, approximate
        return x @ w.T

    windows = list(windows)
    if not windows:
        raise AnybitError("the gains of emulated products are calibrated on windows of token ids; there are none")
    executor = TorchExecutor(plan, weights, multiply=observe)
    for window in windows:
        executor.reset()
        executor.forward(window)
    found = {site: exact / approximate for site, (exact, approximate) in sums.items() if exact > 0 and approximate > 0}
    return replace(emulation, gains=found)
