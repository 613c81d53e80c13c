"""Floor 3: what is computed on numbers in memory. One readable reference an op, and fast kernels tested against it."""

from anybit.ops.dispatch import Choice, Kernel, Problem
from anybit.ops.embedding import embedding
from anybit.ops.matmul import explain, matmul
from anybit.ops.packed import Packed, prepack

__all__ = ["Choice", "Kernel", "Packed", "Problem", "embedding", "explain", "matmul", "prepack"]
