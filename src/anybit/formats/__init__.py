"""Floor 1: what one number is. NumPy only at import; every function also takes torch tensors and JAX arrays."""

from anybit.formats.codebook import Codebook, codebook
from anybit.formats.fixed import FixedPoint
from anybit.formats.floating import Exponent, Float
from anybit.formats.format import Format
from anybit.formats.fourth_roots import FourthRoots
from anybit.formats.integer import Int
from anybit.formats.names import bipolar, get
from anybit.formats.overflow import OVERFLOWS, Overflow
from anybit.formats.posit import Posit
from anybit.formats.residual import ResidualFormat
from anybit.formats.rounding import MODES, Key, Mode, StochasticKey
from anybit.formats.tensor_format import ALIASES, STATIC, TensorFormat, default_scale, is_static

__all__ = [
    "ALIASES",
    "MODES",
    "OVERFLOWS",
    "STATIC",
    "Codebook",
    "Exponent",
    "FixedPoint",
    "Float",
    "Format",
    "FourthRoots",
    "Int",
    "Key",
    "Mode",
    "Overflow",
    "Posit",
    "ResidualFormat",
    "StochasticKey",
    "TensorFormat",
    "bipolar",
    "codebook",
    "default_scale",
    "get",
    "is_static",
]
