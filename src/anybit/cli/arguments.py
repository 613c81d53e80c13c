"""What arguments mean, checked before anything heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from anybit.errors import AnybitError

T = TypeVar("T")


def model_folder(text: str) -> Path:
    """The folder of a model argument: a directory, or the name of a decoder of the zoo; CheckpointError where it is neither."""
    from anybit.zoo import loading

    return loading.folder(text)


def read_text(path: Path, purpose: str) -> str:
    """A UTF-8 text file that holds something; `purpose` names it in the errors (AnybitError)."""
    if not path.is_file():
        raise AnybitError(f"the {purpose} text {path} is not a file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise AnybitError(f"the {purpose} text {path} is not UTF-8 text (byte {error.start})") from None
    if not text.strip():
        raise AnybitError(f"the {purpose} text {path} is empty; it must hold some text to score")
    return text


def default_text(folder: Path) -> Path:
    """The held-out text of a model folder; AnybitError that asks for one where there is none."""
    text = folder / "heldout.txt"
    if text.is_file():
        return text
    raise AnybitError(f"the model {folder} has no held-out text of its own (heldout.txt); name one with --text FILE")


def listed(text: str, what: str, convert: Callable[[str], T]) -> list[T]:
    """The parts of a comma-separated list, each converted; AnybitError naming the option and the part that is wrong.

    Commas inside brackets, as in `levels(-1,0,1)`, belong to a part.
    """
    values = []
    for part in filter(None, (piece.strip() for piece in re.split(r",(?![^(]*\))", text))):
        try:
            values.append(convert(part))
        except ValueError as error:
            if isinstance(error, AnybitError):
                raise
            raise AnybitError(f"{what}: {part!r} is not a number") from None
    if not values:
        raise AnybitError(f"{what} is an empty list")
    return values


def positive(value: int | float | None, option: str) -> None:
    """Raises AnybitError unless the value is None or above zero."""
    if value is not None and not value > 0:
        raise AnybitError(f"{option} must be above 0; got {value:g}")
