"""Block-diagonal affine transforms (BATQuant, arXiv 2603.16590): inside every block of channels that share a scale, and nowhere else.

A linear layer y = x Wᵀ stays as it is where x becomes x P and W becomes W P⁻ᵀ, for any invertible P = diag(P_1 … P_k).  A rotation over
the whole width carries the energy of an outlier into blocks that had none; here each block is transformed by itself.  P_i = B_i ⊗ A with A
[g, g] shared by all blocks and B_i [m, m] of its own, g m being the size of a block (8 and 4 for 32 in the paper): a block of x, seen as
m rows of g, becomes B_iᵀ X A.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.transforms.hadamard import block_size, hadamard

STARTS = ("auto", "hadamard", "identity", "orthogonal")
LEAST_KEPT = 0.3
"""Share of a block's extremes below which a clipping bound would be a collapse."""


@dataclass(frozen=True)
class Options:
    """block, shared: sizes of a block and of its shared factor A.  act: format of the activations that the transform is learned for.

    clip: learn bounds for the activations of each block too.  steps, rate, clip_rate, batch, held_out: of the trainer
    (`quantize.reconstruct`); no steps leave the start.  start: "hadamard" (H ⊗ H), "identity", "orthogonal" (random, the paper's), or
    "auto": either of the first two; a model is learned from both, twice the time, and keeps what its predictions diverge less with on
    held-out windows; of a layer or block alone (`batquant.learn`), for every value the one that errs less there before learning.
    condition: largest condition number of a factor; one above is replaced by its nearest orthogonal matrix.  seed: of batches and start.
    """

    block: int = 32
    shared: int = 8
    act: str = "mxfp4"
    clip: bool = True
    steps: int = 200
    rate: float = 0.005
    clip_rate: float = 0.02
    batch: int = 4
    held_out: float = 0.125
    start: str = "auto"
    condition: float = 30.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.block < 1 or self.shared < 1 or self.block % self.shared:
            raise ValueError(f"the shared factor's size divides the block's; got {self.shared} and {self.block}")
        if self.start not in STARTS:
            raise ValueError(f"a start is {', '.join(STARTS[:-1])} or {STARTS[-1]}; got {self.start!r}")
        if not 1 < self.condition < float("inf"):
            raise ValueError(f"the largest condition number is a number above 1; got {self.condition:g}")
        TensorFormat.parse(self.act)

    def fits(self, width: int, name: str) -> None:
        """RecipeError where blocks do not divide the inputs of a layer."""
        if width % self.block:
            raise RecipeError(
                f"block_affine: blocks of {self.block} do not divide the {width} inputs of {name}; choose another block size"
            )


@dataclass(frozen=True, eq=False)
class BlockAffine:
    """x -> x P along the last dimension.

    shared: A [g, g].  own: B [k, m, m]; the width is k m g.  kept: [2, k] shares of the smallest and the largest value of a block of a
    token to which its activations are clipped before they are rounded; None clips nothing.
    """

    shared: Tensor
    own: Tensor
    kept: Tensor | None = None

    @property
    def block(self) -> int:
        """Channels of a block."""
        return self.shared.shape[0] * self.own.shape[1]

    @property
    def width(self) -> int:
        """Channels in all."""
        return self.block * self.own.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """x [..., width] times P, in x's dtype; without clipping."""
        # One matrix a block multiplies faster than its two small factors one after the other: five times, learning too.
        count, block = self.own.shape[0], self.block
        whole = torch.einsum("kij,ab->kiajb", self.own.to(x), self.shared.to(x)).reshape(count, block, block)
        return torch.bmm(x.reshape(-1, count, block).transpose(0, 1), whole).transpose(0, 1).reshape(x.shape)

    def clip(self, y: Tensor) -> Tensor:
        """Transformed activations [..., width] within the bounds of each block of each token."""
        if self.kept is None:
            return y
        cut = y.reshape(*y.shape[:-1], -1, self.block)
        low, high = (self.kept[i].clamp(min=LEAST_KEPT).to(y)[:, None] for i in (0, 1))
        bounded = torch.minimum(cut, high * cut.amax(-1, keepdim=True).detach().clamp(min=0))
        bounded = torch.maximum(bounded, low * cut.amin(-1, keepdim=True).detach().clamp(max=0))
        return bounded.reshape(y.shape)

    def for_weights(self) -> BlockAffine:
        """P⁻ᵀ, with which the rows of a weight [N, width] are transformed; computed in float64, differentiable."""
        shared = torch.linalg.inv_ex(self.shared.double()).inverse.T.float()
        own = torch.linalg.inv_ex(self.own.double()).inverse.transpose(1, 2).float()
        return BlockAffine(shared, own)

    def matrix(self) -> Tensor:
        """P itself [width, width], float32."""
        return self.forward(torch.eye(self.width))

    def conditions(self) -> Tensor:
        """[k] the condition number of every P_i, that of B_i times that of A; float64."""
        return torch.linalg.cond(self.own.double()) * torch.linalg.cond(self.shared.double())

    def bounded(self, condition: float) -> BlockAffine:
        """With every factor whose condition number exceeds `condition`, or is not finite, replaced by the nearest orthogonal matrix."""
        return replace(self, shared=_bounded(self.shared[None], condition)[0], own=_bounded(self.own, condition))

    def stored(self) -> BlockAffine:
        """A copy that no gradient flows to, as float16, in which transforms are kept; its inverse is that of the rounded factors."""
        kept = None if self.kept is None else self.kept.detach().half()
        return BlockAffine(self.shared.detach().half(), self.own.detach().half(), kept)


def start(width: int, options: Options, number: int = 0) -> BlockAffine:
    """Where learning begins, orthogonal: Hadamard matrices ("auto" too), the identity, or random ones that depend on the seed, the width
    and `number`.

    RecipeError where blocks do not divide the width.
    """
    options.fits(width, "a layer")
    size, count = options.block // options.shared, width // options.block
    if options.start == "identity":
        return BlockAffine(torch.eye(options.shared), torch.eye(size).repeat(count, 1, 1))
    if options.start in ("auto", "hadamard"):
        one = hadamard(torch.eye(size), block_size(size))
        return BlockAffine(hadamard(torch.eye(options.shared), block_size(options.shared)), one.repeat(count, 1, 1))
    g = torch.Generator().manual_seed((options.seed * 1_000_003 + width) * 1_009 + number)
    shared = torch.linalg.qr(torch.randn(options.shared, options.shared, generator=g)).Q
    return BlockAffine(shared, torch.linalg.qr(torch.randn(count, size, size, generator=g)).Q.contiguous())


def _bounded(factors: Tensor, condition: float) -> Tensor:
    safe = torch.where(torch.isfinite(factors), factors, torch.zeros(()))
    u, s, v = torch.linalg.svd(safe.double())
    whole = torch.isfinite(factors).flatten(1).all(1)
    bad = ~whole | (s[:, 0] > condition * s[:, -1])
    return torch.where(bad[:, None, None], (u @ v).to(factors.dtype), factors)
