"""Curvature of a loss, tensor by tensor, from Hessian-vector products alone: mean traces and top eigenvalues.

Sources: Hutchinson, "A stochastic estimator of the trace of the influence matrix" (1989); HAWQ (arXiv 1905.03696), power iteration for
the top eigenvalue of each block; HAWQ-V2 (arXiv 1911.03852), section 3: the mean trace Tr(H_i)/n_i as a layer's sensitivity, for weights
and for activations.

The loss is a function `loss(k) -> scalar` that builds a fresh graph over the given tensors for batch k, in evaluation mode (running
statistics of normalisation fixed). For activations, let the model add a zero tensor to each: the Hessian with respect to that tensor is
the one with respect to the activation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anybit.errors import RecipeError

Loss = Callable[[int], Tensor]


@dataclass(frozen=True)
class Trace:
    """Estimated trace of one tensor's block of the Hessian.

    total: the trace.  standard_error: of `total`, over probes (and the batches they used).  size: elements of the tensor.
    probes: how many were drawn.
    """

    total: float
    standard_error: float
    size: int
    probes: int

    @property
    def mean(self) -> float:
        """Tr(H)/n, the mean eigenvalue."""
        return self.total / self.size


def gradients(loss: Loss, batch: int, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """Gradients that can be differentiated again.  Raises RecipeError where the loss is not a finite scalar or misses a tensor."""
    value = loss(batch)
    if value.ndim != 0 or not bool(torch.isfinite(value)):
        raise RecipeError(f"curvature needs a finite scalar loss; batch {batch} gave shape {tuple(value.shape)}")
    found = torch.autograd.grad(value, list(tensors.values()), create_graph=True, allow_unused=True)
    for name, gradient in zip(tensors, found, strict=True):
        if gradient is None:
            raise RecipeError(f"the loss does not depend on {name!r}, so it has no curvature there")
    return list(found)


def product(grads: Sequence[Tensor], tensors: Mapping[str, Tensor], vectors: Sequence[Tensor]) -> list[Tensor]:
    """The Hessian times `vectors`, all tensors together (off-diagonal blocks included)."""
    inner = torch.stack([(g * v).sum() for g, v in zip(grads, vectors, strict=True)]).sum()
    if not inner.requires_grad:
        # A loss that is linear in every tensor: its gradient is constant.
        return [torch.zeros_like(t) for t in tensors.values()]
    found = torch.autograd.grad(inner, list(tensors.values()), retain_graph=True, allow_unused=True)
    return [torch.zeros_like(t) if h is None else h for t, h in zip(tensors.values(), found, strict=True)]


def traces(
    loss: Loss,
    tensors: Mapping[str, Tensor],
    batches: int,
    *,
    probes: int = 100,
    least: int = 8,
    tolerance: float = 1e-3,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Trace]:
    """Hutchinson's estimate of Tr(H_i) for every tensor: one joint probe of random signs serves all of them.

    The cross terms v_i' H_ij v_j of a joint probe have mean zero. Probe k uses batch k modulo `batches`. Stops early, after `least` probes
    and whole rounds of the batches, once the sum of the means moves by less than `tolerance` relative to its absolute value.
    Raises RecipeError for a non-finite product.
    """
    if probes < 2 or batches < 1:
        raise RecipeError(f"a trace needs at least 2 probes and 1 batch; got {probes} and {batches}")
    generator = torch.Generator().manual_seed(seed)
    drawn: list[Tensor] = []
    before = math.inf
    for probe in range(probes):
        grads = gradients(loss, probe % batches, tensors)
        signs = [torch.randint(0, 2, t.shape, generator=generator).to(t) * 2 - 1 for t in tensors.values()]
        products = product(grads, tensors, signs)
        drawn.append(torch.stack([(v * h).sum().double() for v, h in zip(signs, products, strict=True)]))
        if not bool(torch.isfinite(drawn[-1]).all()):
            raise RecipeError(f"probe {probe} gave a trace that is not finite")
        if progress:
            progress(probe + 1, probes)
        now = float((torch.stack(drawn).mean(0) / torch.tensor([t.numel() for t in tensors.values()])).sum())
        if probe + 1 >= least and (probe + 1) % batches == 0 and abs(now - before) < tolerance * (abs(before) + 1e-6):
            break
        before = now
    table = torch.stack(drawn)
    count = len(drawn)
    error = table.std(0) / math.sqrt(count)
    return {
        name: Trace(float(table[:, i].mean()), float(error[i]), tensor.numel(), count)
        for i, (name, tensor) in enumerate(tensors.items())
    }


@dataclass(frozen=True)
class Eigenvalue:
    """The eigenvalue of largest magnitude of one block, with its sign; `converged` says whether the iteration settled."""

    value: float
    converged: bool
    iterations: int


def top_eigenvalue(
    loss: Loss,
    name: str,
    tensor: Tensor,
    batch: int = 0,
    *,
    iterations: int = 100,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> Eigenvalue:
    """Power iteration on the Hessian block of one tensor, for one batch."""
    tensors = {name: tensor}
    grads = gradients(loss, batch, tensors)
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(tensor.shape, generator=generator).to(tensor)
    vector = vector / vector.norm()
    before, value = math.inf, 0.0
    for iteration in range(1, iterations + 1):
        (image,) = product(grads, tensors, [vector])
        value, size = float((vector * image).sum()), float(image.norm())
        if size == 0.0:
            return Eigenvalue(0.0, True, iteration)
        if abs(value - before) < tolerance * abs(value):
            return Eigenvalue(value, True, iteration)
        vector, before = image / size, value
    return Eigenvalue(value, False, iterations)
