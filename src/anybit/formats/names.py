"""The names of formats: one table, three patterns, and `get`."""

from __future__ import annotations

import difflib
import re
from functools import cache

from anybit.errors import FormatError
from anybit.formats.codebook import Codebook
from anybit.formats.floating import Exponent, Float, Specials, default_specials
from anybit.formats.format import Format
from anybit.formats.integer import Int

NF4 = Codebook(
    "nf4",
    # Dettmers et al., "QLoRA: efficient finetuning of quantized LLMs" (arXiv 2305.14314), appendix E.
    (
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ),
)
TERNARY = Codebook("ternary", (-1.0, 0.0, 1.0))


def bipolar(bits: int) -> Codebook:
    """The odd integers -(2^bits - 1) … 2^bits - 1: `bits` planes of ±1. FormatError unless bits is 1 to 8."""
    if not 1 <= bits <= 8:
        raise FormatError(f"bipolar formats have 1 to 8 bits; got {bits}")
    return Codebook(f"bipolar{bits}", tuple(float(v) for v in range(1 - 2**bits, 2**bits, 2)))


TABLE: dict[str, Format] = {
    **{f"int{b}": Int(b) for b in (1, 2, 3, 4, 5, 6, 7, 8, 16)},
    **{f"uint{b}": Int(b, signed=False) for b in (1, 2, 3, 4, 5, 6, 7, 8)},
    **{f"int{b}n": Int(b, narrow=True) for b in (2, 3, 4, 5, 6, 7, 8)},
    "e2m1": Float(2, 1, "none"),
    "e3m2": Float(3, 2, "none"),
    "e2m3": Float(2, 3, "none"),
    "e4m3fn": Float(4, 3, "fn"),
    "e5m2": Float(5, 2, "ieee"),
    "e8m0": Exponent(8),
    "bf16": Float(8, 7, "ieee"),
    "fp16": Float(5, 10, "ieee"),
    "fp32": Float(8, 23, "ieee"),
    "nf4": NF4,
    "ternary": TERNARY,
    **{f"bipolar{b}": bipolar(b) for b in range(1, 9)},
}
"""The formats with a name of their own; `get` also knows any uintN, intNn and eXmY[fn|ieee|none]."""

_INT = re.compile(r"(u?)int(\d{1,3})(n?)")
_FLOAT = re.compile(r"e(\d{1,2})m(\d{1,2})(fn|ieee|none)?")
_BIPOLAR = re.compile(r"bipolar(\d{1,3})")


@cache
def get(name: str) -> Format:
    """The format of that name. FormatError naming the widths allowed, or near names, where there is none."""
    if name in TABLE:
        return TABLE[name]
    if match := _INT.fullmatch(name):
        return Int(int(match[2]), signed=not match[1], narrow=bool(match[3]))
    if match := _FLOAT.fullmatch(name):
        e, m = int(match[1]), int(match[2])
        specials: dict[str, Specials] = {"fn": "fn", "ieee": "ieee", "none": "none"}
        return Float(e, m, specials[match[3]] if match[3] else default_specials(1 + e + m))
    if match := _BIPOLAR.fullmatch(name):
        return bipolar(int(match[1]))
    near = difflib.get_close_matches(name.lower(), TABLE, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else f"; known: {', '.join(TABLE)}"
    raise FormatError(f"unknown number format {name!r}{hint}")
