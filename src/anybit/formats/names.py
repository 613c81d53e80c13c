"""The names of formats: one table, some patterns, and `get`.

intN uintN intNn     two's complement, unsigned, narrow
[u]eXmY[bB][SPECIALS]  floating; SPECIALS fn, ieee, none, fnuz, uz; bB a bias of one's own (bmB a negative one)
p3109_kKpP{s|u}{e|f} floating formats of the P3109 working group, named as gfloat does: width K, precision P, signed or unsigned, extended
                     (with infinity) or finite; binaryKpP is the signed extended one
positN_ES positN     posits; without ES the 2 of the standard
[u]fixedI_F          fixed point, I integer bits with the sign, F fraction bits
bipolarN             odd integers
levels(a,b,…)        a codebook of one's own
"""

from __future__ import annotations

import difflib
import re
from functools import cache

from anybit.errors import FormatError
from anybit.formats.codebook import Codebook, codebook, levels_name
from anybit.formats.fixed import FixedPoint
from anybit.formats.floating import SPECIALS, Exponent, Float, Specials, default_specials
from anybit.formats.format import Format
from anybit.formats.fourth_roots import FourthRoots
from anybit.formats.integer import Int
from anybit.formats.posit import Posit

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
DP4 = Codebook(
    "dp4",
    # Found here for the directions of blocks of 16 under the best scale (`anybit formats design`): `refined` from nf4, emphasis 5, 7, 9,
    # then `optimise(Shape(8, 7), …, Objective(max=0, mean=1, p99=1), seed=3)`, rounded to multiples of 1/256. On 40 000 directions mean
    # 3.865 and 99 % angle 4.994 degrees; nf4 3.920 and 5.059, the mirrored alphabet of arXiv 2605.07662 4.285 and 5.333, e2m1 4.434
    # and 5.638. Its largest sampled angle, 6.14, is above that of nf4, 5.89.
    tuple(v / 256 for v in (-254, -193, -144, -107, -76, -48, -23, 0, 20, 42, 65, 91, 121, 156, 204, 256)),
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
    "e4m3fnuz": Float(4, 3, "fnuz"),
    "e5m2fnuz": Float(5, 2, "fnuz"),
    "e4m3b11fnuz": Float(4, 3, "fnuz", 11),
    "ue5m3fn": Float(5, 3, "fn", signed=False),
    "ue5m3": Float(5, 3, "ieee", signed=False),
    "e8m0": Exponent(8),
    "bf16": Float(8, 7, "ieee"),
    "fp16": Float(5, 10, "ieee"),
    "fp32": Float(8, 23, "ieee"),
    "nf4": NF4,
    "dp4": DP4,
    "ternary": TERNARY,
    **{f"bipolar{b}": bipolar(b) for b in range(1, 9)},
    **{f"posit{n}_{es}": Posit(n, es) for n, es in ((4, 1), (8, 0), (8, 1), (8, 2), (16, 1), (16, 2))},
    "fixed4_4": FixedPoint(4, 4),
    "fixed8_8": FixedPoint(8, 8),
    "ufixed4_4": FixedPoint(4, 4, signed=False),
    "i2c": FourthRoots(),
}
"""The formats with a name of their own; `get` also knows everything of the patterns in this module's docstring."""

_INT = re.compile(r"(u?)int(\d{1,3})(n?)")
_FLOAT = re.compile(rf"(u?)e(\d{{1,2}})m(\d{{1,2}})(?:b(m?)(\d{{1,3}}))?({'|'.join(SPECIALS)})?")
_BIPOLAR = re.compile(r"bipolar(\d{1,3})")
_POSIT = re.compile(r"posit(\d{1,3})(?:_(\d{1,2}))?")
_FIXED = re.compile(r"(u?)fixed(\d{1,3})_(\d{1,3})")
_P3109 = re.compile(r"p3109_k(\d{1,2})p(\d{1,2})([su])([ef])|binary(\d{1,2})p(\d{1,2})")
_LEVELS = re.compile(r"levels\((.*)\)")


def get(name: str) -> Format:
    """The format of that name. FormatError naming the widths allowed, or near names, where there is none."""
    if not isinstance(name, str):
        raise FormatError(f"a number format is known by its name, a string; got {name!r}")
    return _get(name)


@cache
def _get(name: str) -> Format:
    if name in TABLE:
        return TABLE[name]
    if match := _INT.fullmatch(name):
        return Int(int(match[2]), signed=not match[1], narrow=bool(match[3]))
    if match := _FLOAT.fullmatch(name):
        return _float(match)
    if match := _P3109.fullmatch(name):
        return _p3109(match)
    if match := _POSIT.fullmatch(name):
        return Posit(int(match[1]), int(match[2] or 2))
    if match := _FIXED.fullmatch(name):
        return FixedPoint(int(match[2]), int(match[3]), signed=not match[1])
    if match := _LEVELS.fullmatch(name):
        return _levels(match[1])
    if match := _BIPOLAR.fullmatch(name):
        return bipolar(int(match[1]))
    _refuse_tensor_format(name)
    near = difflib.get_close_matches(name.lower(), TABLE, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else f"; known: {', '.join(TABLE)}"
    raise FormatError(f"unknown number format {name!r}{hint}")


def _refuse_tensor_format(name: str) -> None:
    """FormatError that says so where the name is one of numbers with scales."""
    from anybit.formats.residual import SEPARATOR
    from anybit.formats.tensor_format import ALIASES  # which are made of the formats here

    if SEPARATOR in name:
        raise FormatError(
            f"{name!r} means two tensor formats, which ResidualFormat.parse knows, and not a number format"
        )
    if name in ALIASES or "/" in name:
        raise FormatError(
            f"{name!r} means numbers with scales, which TensorFormat.parse knows, and not a number format"
        )


def _float(match: re.Match[str]) -> Float:
    unsigned, e, m, negative, bias, specials = match.groups()
    signed = not unsigned
    meant: Specials = specials or default_specials(signed + int(e) + int(m))  # type: ignore[assignment]
    own_bias = None if bias is None else -int(bias) if negative else int(bias)
    return Float(int(e), int(m), meant, own_bias, signed)


def _p3109(match: re.Match[str]) -> Float:
    """P3109 interim report, section 3: exponent bits = width - precision (+ 1 where unsigned), bias 2^(exponent bits - 1)."""
    width, precision = int(match[1] or match[5]), int(match[2] or match[6])
    signed = match[3] != "u"
    exponent_bits = width - precision + (not signed)
    if not (precision >= 1 and exponent_bits >= 1):
        raise FormatError(f"the precision of a P3109 format is 1 to its width less the sign; got {match[0]}")
    return Float(exponent_bits, precision - 1, "fnuz" if match[4] == "f" else "uz", signed=signed)


def _levels(text: str) -> Codebook:
    try:
        found = codebook(float(part) for part in text.split(","))
    except ValueError:  # FormatError is one too
        raise FormatError(f"levels(…) holds 2 to 256 different numbers parted by commas; got levels({text})") from None
    if len(found.levels) != text.count(",") + 1 or found.name != levels_name(found.levels):
        raise FormatError(f"levels(…) holds different numbers; got levels({text})")
    return found
