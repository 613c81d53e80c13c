"""Where the shared data sets and third-party networks lie, and the files in it."""

from __future__ import annotations

import os
from pathlib import Path

from anybit.errors import AnybitError


def checkout() -> Path | None:
    """The repository this package runs from, or the one around the working folder; None where neither is one."""
    for start in (Path(__file__).resolve(), Path.cwd()):
        for folder in (start, *start.parents):
            if (folder / "pyproject.toml").exists() and (folder / "src" / "anybit").is_dir():
                return folder
    return None


def data_folder() -> Path:
    """Where the shared models and data sets lie: `ANYBIT_DATA`, else `../shared/data` beside the repository."""
    if chosen := os.environ.get("ANYBIT_DATA"):
        return Path(chosen)
    root = checkout()
    folder = (root.parent if root else Path("..")) / "shared" / "data"
    if not folder.is_dir():
        raise AnybitError(f"the shared data is not at {folder}; set ANYBIT_DATA to its folder")
    return folder


def data_file(relative: str) -> Path:
    """A file or folder of the shared data. AnybitError that says how to point at the folder where it is missing."""
    folder = data_folder()
    path = folder / relative
    if not path.exists():
        raise AnybitError(f"{relative} is not in {folder}; set ANYBIT_DATA to the folder of the shared data")
    return path
