"""The peer's end of the line protocol of ../README.md: one line of JSON about itself, then one for every line that is asked."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any


def serve(about: dict[str, Any], answer: Callable[[str], dict[str, Any]]) -> None:
    """Until standard input ends. Libraries may print what they like, for only lines that begin with a brace are read."""
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        if line.strip():
            print(json.dumps(answer(line.strip())), flush=True)
