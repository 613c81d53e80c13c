"""Floor 2: numbers in memory. `QTensor`, bit packing and bit planes, layouts, and the way from floating tensors to codes."""

from anybit.tensors.bitplanes import BitPlanes, SignRule, bit_planes
from anybit.tensors.complex_signs import ComplexSigns
from anybit.tensors.layout import Layout
from anybit.tensors.metrics import max_error, mean_squared_error, relative_error, snr_db
from anybit.tensors.packing import pack_bits, unpack_bits
from anybit.tensors.qtensor import QTensor
from anybit.tensors.quantizing import SCALE_RULES, ScaleRule, block_scales, encode, quantize
from anybit.tensors.residual import ResidualTensor, quantize_residual, round_residual
from anybit.tensors.scales import POWER_ROUNDINGS, PowerRounding
from anybit.tensors.slicing import at_bits
from anybit.tensors.tiled_packing import Packing

__all__ = [
    "POWER_ROUNDINGS",
    "SCALE_RULES",
    "BitPlanes",
    "ComplexSigns",
    "Layout",
    "Packing",
    "PowerRounding",
    "QTensor",
    "ResidualTensor",
    "ScaleRule",
    "SignRule",
    "at_bits",
    "bit_planes",
    "block_scales",
    "encode",
    "max_error",
    "mean_squared_error",
    "pack_bits",
    "quantize",
    "quantize_residual",
    "relative_error",
    "round_residual",
    "snr_db",
    "unpack_bits",
]
