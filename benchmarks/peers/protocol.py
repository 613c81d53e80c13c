"""The peer's end of the line protocol of ../README.md: one line of JSON about itself, then one for every line that is asked."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any


def serve(about: dict[str, Any], answer: Callable[[str], dict[str, Any]]) -> None:
    """Until standard input ends. What libraries print meanwhile, and some print JSON of their own, goes to standard error."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps(about), file=out, flush=True)
    for line in sys.stdin:
        if line.strip():
            print(json.dumps(answer(line.strip())), file=out, flush=True)
