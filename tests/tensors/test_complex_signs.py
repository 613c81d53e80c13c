"""`ComplexSigns` against distances to all roots and means written out."""

import numpy as np
import pytest
import torch

from anybit.errors import FormatError
from anybit.tensors import ComplexSigns

ROOTS = np.array([1, 1j, -1, -1j])


@pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 7), (16, 64), (3, 130)])
def test_roots_are_the_nearest_and_scales_the_means_along_the_axes(n, k):
    g = torch.Generator().manual_seed(k)
    z = torch.randn(n, k, 2, generator=g)
    w = torch.complex(z[..., 0], 3 * z[..., 1])
    signs = ComplexSigns.of(w)
    nearest = ROOTS[np.argmin(np.abs(w.numpy()[..., None] - ROOTS * 1e9), -1)]
    real = nearest.imag == 0
    re = np.abs(w.numpy().real[real]).mean() if real.any() else 0.0
    im = np.abs(w.numpy().imag[~real]).mean() if (~real).any() else 0.0
    np.testing.assert_allclose(signs.dequantize().numpy(), nearest.real * re + 1j * nearest.imag * im, rtol=1e-6)
    assert signs.nbytes == n * -(-k // 4) + 8
    assert np.array_equal(ROOTS[signs.unpacked().numpy()], nearest)


def test_an_axis_without_entries_has_the_scale_0():
    signs = ComplexSigns.of(torch.complex(torch.ones(2, 3), torch.zeros(2, 3)))
    assert (signs.scale_re, signs.scale_im) == (1.0, 0.0)
    assert torch.equal(signs.dequantize(), torch.ones(2, 3, dtype=torch.complex64))


@pytest.mark.parametrize(
    ("w", "sentence"),
    [
        (torch.ones(2, 3), "of a complex matrix; got torch.float32"),
        (torch.ones(2, dtype=torch.complex64), r"got torch.complex64 \[2\]"),
        (torch.full((1, 2), complex(0, float("nan"))), "NaN or infinity"),
    ],
)
def test_what_has_no_signs_is_refused(w, sentence):
    with pytest.raises(FormatError, match=sentence):
        ComplexSigns.of(w)


def test_codes_fill_the_shape():
    with pytest.raises(FormatError, match=r"5 complex signs a row are uint8 \[2, 2\]; got torch.uint8 \[2, 1\]"):
        ComplexSigns(torch.zeros(2, 1, dtype=torch.uint8), 1.0, 1.0, (2, 5))
