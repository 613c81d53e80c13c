"""Floor 4: thin modules that hold quantized tensors as buffers and compute with the kernels of `ops`."""

from anybit.nn.conv import QConv2d
from anybit.nn.embedding import QEmbedding
from anybit.nn.holder import Holder
from anybit.nn.linear import QLinear

__all__ = ["Holder", "QConv2d", "QEmbedding", "QLinear"]
