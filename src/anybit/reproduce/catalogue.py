"""The 62 systems anybit reproduces, as data (`catalogue.toml`): number, short name, printed title, source, claim and room."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from importlib import resources

from anybit.errors import AnybitError


@dataclass(frozen=True)
class System:
    """One published system.

    number: 1 to 62.  name: the short name used on the command line and in file names.  title, source: as printed.
    claim: one sentence that a miniature experiment can test.  room: the folder of anybit that holds its machinery.
    """

    number: int
    name: str
    title: str
    source: str
    room: str
    claim: str


@functools.cache
def catalogue() -> tuple[System, ...]:
    """All 62 systems in order of their numbers."""
    text = resources.files(__package__).joinpath("catalogue.toml").read_text(encoding="utf-8")
    return tuple(System(**row) for row in tomllib.loads(text)["system"])


def find(name: str) -> System:
    """The system called `name`, or numbered so (`"16"`).

    Raises AnybitError for an unknown one, naming the nearest names.
    """
    wanted = name.strip().lower().replace("-", "_")
    for system in catalogue():
        if wanted in (system.name, str(system.number)):
            return system
    import difflib

    names = [system.name for system in catalogue()]
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; `anybit reproduce list` prints all 62"
    raise AnybitError(f"there is no system called {name!r}{hint}")
