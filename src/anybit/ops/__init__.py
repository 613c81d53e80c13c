"""Floor 3: what is computed on numbers in memory. One readable reference an op, and fast kernels tested against it."""

from anybit.ops.bitserial import bitserial_linear, bitserial_matmul
from anybit.ops.complex_signs import ComplexPacked, complex_matmul
from anybit.ops.dfp import dfp_encode, dfp_matmul
from anybit.ops.dispatch import Choice, Kernel, Problem
from anybit.ops.embedding import embedding
from anybit.ops.emulated import Accumulator, emulated_matmul
from anybit.ops.invariant import TreeWeight, invariant_matmul, layercast_matmul
from anybit.ops.lookup import lookup_linear
from anybit.ops.matmul import explain, matmul, plane_matmul
from anybit.ops.packed import LEVELS, Levels, Packed, keep_columns, prepack
from anybit.ops.product import Product, calibrated_gain
from anybit.ops.static import StaticActivations, StaticFormat

__all__ = [
    "LEVELS",
    "Accumulator",
    "Choice",
    "ComplexPacked",
    "Kernel",
    "Levels",
    "Packed",
    "Problem",
    "Product",
    "StaticActivations",
    "StaticFormat",
    "TreeWeight",
    "bitserial_linear",
    "bitserial_matmul",
    "calibrated_gain",
    "complex_matmul",
    "dfp_encode",
    "dfp_matmul",
    "embedding",
    "emulated_matmul",
    "explain",
    "invariant_matmul",
    "keep_columns",
    "layercast_matmul",
    "lookup_linear",
    "matmul",
    "plane_matmul",
    "prepack",
]
