"""What must hold for JAX arrays: the bits of numpy, eagerly, under jit and under vmap. Skipped where JAX is not installed."""

from __future__ import annotations

import numpy as np
import pytest

from anybit.errors import FormatError
from anybit.formats import MODES, get

jax = pytest.importorskip("jax", reason="JAX is not installed")
jnp = jax.numpy

NAMES = (
    "int4",
    "int16",
    "e2m1",
    "e4m3fn",
    "e5m2",
    "e4m3fnuz",
    "bf16",
    "e8m0",
    "nf4",
    "posit8_0",
    "posit16_1",
    "fixed4_4",
    "ue5m3",
)


def numbers() -> np.ndarray:
    """Float32 of all sizes, subnormal ones (which XLA would flush) and infinities among them."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(300) * np.exp2(rng.uniform(-140, 120, 300))
    return (
        np.concatenate([x, rng.standard_normal(300), [0.0, -0.0, 1e-40, np.inf, -np.inf]])
        .astype(np.float32)
        .reshape(5, 121)
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_the_bits_are_those_of_numpy(name: str, mode: str) -> None:
    fmt, x = get(name), numbers()
    y = fmt.round(jnp.asarray(x), mode, key=9)
    assert isinstance(y, jax.Array) and y.dtype == jnp.float32
    assert np.array_equal(np.asarray(y).view(np.int32), fmt.round(x, mode, key=9).view(np.int32))
    codes = fmt.encode(jnp.asarray(x), mode, key=9)
    wanted = fmt.encode(x, mode, key=9)
    assert codes.dtype == wanted.dtype and np.array_equal(np.asarray(codes), wanted)
    values = fmt.decode(codes)
    assert isinstance(values, jax.Array)
    assert np.array_equal(np.asarray(values).view(np.int32), fmt.decode(wanted).view(np.int32))


def test_jit_and_vmap() -> None:
    fmt, x = get("e4m3fn"), numbers()
    wanted = fmt.round(x, "stochastic", key=4)
    assert np.array_equal(np.asarray(jax.jit(lambda a: fmt.round(a, "stochastic", key=4))(x)), wanted)
    assert np.array_equal(np.asarray(jax.vmap(lambda a: fmt.round(a, "stochastic", key=4))(jnp.asarray(x))), wanted)
    back = jax.jit(lambda a: fmt.decode(fmt.encode(a), jnp.bfloat16))(x)
    assert back.dtype == jnp.bfloat16 and np.array_equal(np.asarray(back, np.float32), fmt.round(x))


@pytest.mark.parametrize("mode", ["nearest_even", "up", "odd", "stochastic"])
@pytest.mark.parametrize("name", ["fp16", "bf16", "fp32", "fixed1_20"])
def test_jit_keeps_subnormal_numbers(name: str, mode: str) -> None:
    """XLA's threads flush them; small arrays take the readable code, large ones the native."""
    fmt = get(name)
    for size in (300, 5000):
        x = np.resize(np.arange(-150, 150, dtype=np.int32) * 7919, size).view(np.float32)
        x = np.where(np.isnan(x), np.float32(1e-40), x)
        y = jax.jit(lambda a: fmt.round(a, mode, key=4))(x)
        assert np.array_equal(np.asarray(y).view(np.int32), fmt.round(x, mode, key=4).view(np.int32))


def test_types_come_back() -> None:
    assert get("int8").round(jnp.array([1.25], jnp.bfloat16)).dtype == jnp.bfloat16
    assert get("int8").round(jnp.array([3, 300])).tolist() == [3, 127]
    assert get("i2c").encode(jnp.array([1j, -2.0])).tolist() == [1, 2]
    assert get("i2c").round(jnp.array([3j, -2.0])).tolist() == [1j, -1]
    for decoded in (get("i2c").decode(jnp.array([1, 2])), jax.jit(get("i2c").decode)(jnp.array([1, 2]))):
        assert decoded.dtype == jnp.complex64 and decoded.tolist() == [1j, -1]
    assert get("i2c").round(jnp.array([-2.0])).dtype == jnp.complex64
    with pytest.raises(FormatError, match="codes are integers"):
        get("e4m3fn").decode(jnp.array([1.0]))
    with pytest.raises(FormatError, match="e4m3fn has codes 0 to 255; got 300"):
        get("e4m3fn").decode(jnp.array([300]))


def test_bad_input_is_refused() -> None:
    with pytest.raises(FormatError, match="holds NaN"):
        get("int4").round(jnp.array([jnp.nan]))
