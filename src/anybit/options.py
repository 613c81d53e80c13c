"""Options of a method or a transform, from a mapping to its frozen dataclass."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from anybit.errors import RecipeError


def parse(owner: str, options: type, given: Mapping[str, Any], allowed: Mapping[str, Sequence[Any]]) -> Any:
    """A value of the dataclass `options`, all of whose fields have defaults; a value has the type of the default.

    owner: what error messages call it.  allowed: option -> the only values it may have.
    Raises RecipeError naming an unknown option or a value that is not allowed.
    """
    fields = {field.name: field for field in dataclasses.fields(options)}
    for key, value in given.items():
        if key not in fields:
            raise RecipeError(f"{owner} has no option {key!r}; it has {', '.join(fields) or 'none'}")
        default = fields[key].default
        kind = type(default)
        if not (isinstance(value, kind) or (kind is float and isinstance(value, int))) or (
            isinstance(value, bool) and kind is not bool
        ):
            raise RecipeError(f"{owner}: option {key} takes a {kind.__name__} such as {default!r}, got {value!r}")
        choices = allowed.get(key)
        if choices and value not in choices:
            raise RecipeError(
                f"{owner}: option {key} is one of {', '.join(word or repr(word) for word in choices)}, got {value!r}"
            )
    try:
        return options(**given)
    except ValueError as error:  # of the dataclass's own checks
        raise RecipeError(f"{owner}: {error}") from None
