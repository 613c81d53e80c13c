"""`embedding`: rows of a possibly quantized table."""

from __future__ import annotations

import torch
from torch import Tensor

from anybit.ops import native, reference
from anybit.ops.packed import Packed, prepack
from anybit.tensors import QTensor


def embedding(ids: Tensor, w: QTensor | Tensor | Packed) -> Tensor:
    """ids [...] integers -> float32 [..., k], rows of w [n, k].

    A `Packed` table costs its rows only; anything else is packed on the fly, so pack what is used again.
    Raises IndexError where an id is outside the table.
    """
    packed = w if isinstance(w, Packed) else prepack(w)
    packed.refuse_kept("an embedding")
    if ids.numel() and not (int(ids.min()) >= 0 and int(ids.max()) < packed.n):
        raise IndexError(f"ids from {int(ids.min())} to {int(ids.max())} do not fit a table of {packed.n} rows")
    module = native.load()
    if packed.handle is None or module is None:
        assert packed.source is not None, "a weight without a kernel handle keeps its source"
        return reference.embedding(ids, packed.source)
    out = torch.empty(*ids.shape, packed.k)
    flat = ids.detach().to(torch.int64).reshape(-1).contiguous()
    module.embedding(packed.handle, flat.numpy(), 1.0, out.view(-1, packed.k).numpy())
    return out
