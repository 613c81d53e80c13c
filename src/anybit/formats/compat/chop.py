"""The interface of MATLAB's chop.

N. J. Higham and S. Pranesh, "Simulating low precision floating-point arithmetic", SIAM J. Sci. Comput. 41 (2019).

    from anybit.formats.compat.chop import Options, chop
    y = chop(x, Options(format="h", round=4))

Options keep MATLAB's names and numbers. Differences: random numbers are counter-based (`seed`), and the stochastic modes round by position
below the smallest value and beyond the largest one too, where chop gives 0 and, in mode 5, the largest value: both are a bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from anybit.errors import FormatError
from anybit.formats.compat.grid import BinaryGrid
from anybit.formats.compat.pychop import PRECISIONS, RMODES
from anybit.formats.rounding import RANDOM_MODES, Key


@dataclass(frozen=True)
class Options:
    """format: a name of chop (`q43` `q52` `b` `h` `s` `d` and the long ones), or "c" with params = (t, emax).

    subnormal: None means that all formats but bfloat16 have subnormal numbers.  round: 1 nearest even, 2 up, 3 down, 4 toward zero, 5
    stochastic, 6 either with probability 1/2.  flip, p: invert a random trailing bit of each significand with probability p.
    explim: 0 ignores the limits of the exponent.  seed: of the random numbers, an int or (seed, offset).
    """

    format: str = "h"
    subnormal: bool | None = None
    round: int = 1
    flip: bool = False
    p: float = 0.5
    explim: bool = True
    params: tuple[int, int] | None = None
    seed: Key = 0

    def grid(self) -> BinaryGrid:
        """What these options round to. FormatError for unknown formats and rounding modes."""
        custom = self.format in ("c", "custom")
        if custom and self.params is None:
            raise FormatError("format 'c' needs params = (t, emax)")
        if not custom and self.format not in PRECISIONS:
            raise FormatError(f"format is one of {', '.join(PRECISIONS)} or c; got {self.format!r}")
        if self.round not in range(1, 7):
            raise FormatError(f"round is 1 to 6; got {self.round!r}")
        t, emax = self.params if custom and self.params is not None else PRECISIONS[self.format]
        subnormal = self.format not in ("b", "bfloat16", "bf16") if self.subnormal is None else bool(self.subnormal)
        return BinaryGrid(t, emax, subnormal, bool(self.explim))


def chop(x: Any, options: Options | None = None) -> Any:
    """x (floating numpy, torch or JAX array, or a number) rounded as the options say; fp16 where None."""
    chosen = options or Options()
    mode = RMODES[chosen.round] if chosen.round in range(1, 7) else ""
    grid = chosen.grid()
    drawn = chosen.seed if chosen.flip or mode in RANDOM_MODES else None
    return grid.round(x, mode, drawn, chosen.p if chosen.flip else 0.0)
