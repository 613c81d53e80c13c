"""Floor 1: what one number is. NumPy only at import; every function also takes torch tensors."""

from anybit.formats.codebook import Codebook
from anybit.formats.floating import Exponent, Float
from anybit.formats.format import Format
from anybit.formats.integer import Int
from anybit.formats.names import bipolar, get
from anybit.formats.rounding import MODES, Key, Mode
from anybit.formats.tensor_format import ALIASES, TensorFormat, default_scale

__all__ = [
    "ALIASES",
    "MODES",
    "Codebook",
    "Exponent",
    "Float",
    "Format",
    "Int",
    "Key",
    "Mode",
    "TensorFormat",
    "bipolar",
    "default_scale",
    "get",
]
