"""`Config`: typed access to a `config.json`, with one clear sentence for what is missing or wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anybit.errors import CheckpointError, UnsupportedModelError

_REQUIRED = object()


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The JSON object in a file. CheckpointError naming the file where it is missing, not JSON, or not an object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: {what}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}): {what}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object; got {type(value).__name__}")
    return value


class Config:
    """A view of a model's configuration. Every getter raises UnsupportedModelError naming the key, what was found and what
    is accepted; a key that is absent, or null, gives the default.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def get(self, key: str) -> Any:
        """The raw value; None where absent."""
        return self.values.get(key)

    def integer(self, key: str, default: Any = _REQUIRED, least: int = 1) -> int:
        """An integer of at least `least`."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UnsupportedModelError(
                f"config.json: {key} must be an integer of at least {least}; got {_shown(value)}"
            )
        return value

    def number(self, key: str, default: Any = _REQUIRED) -> float:
        """A finite number above zero."""
        return number(self._value(key, default), f"config.json: {key}")

    def optional_number(self, key: str, default: float = 0.0) -> float:
        """A number above zero; `default` where the key is absent, 0 where it is null or 0."""
        value = self.values.get(key, default)
        return 0.0 if value is None or value == 0 else number(value, f"config.json: {key}")

    def flag(self, key: str, default: bool = False) -> bool:
        """true or false."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise UnsupportedModelError(f"config.json: {key} must be true or false; got {_shown(value)}")
        return value

    def text(self, key: str, default: Any = _REQUIRED) -> str:
        """A string."""
        value = self._value(key, default)
        if not isinstance(value, str):
            raise UnsupportedModelError(f"config.json: {key} must be a string; got {_shown(value)}")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """An object; empty where absent."""
        value = self._value(key, {})
        if not isinstance(value, dict):
            raise UnsupportedModelError(f"config.json: {key} must be an object; got {_shown(value)}")
        return value

    def layer_types(self, layers: int, default: list[str]) -> list[str]:
        """`full_attention` or `sliding_attention` for each layer."""
        kinds = self._value("layer_types", default)
        known = ("full_attention", "sliding_attention")
        if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in known for kind in kinds):
            raise UnsupportedModelError(
                f"config.json: layer_types must be a list of {layers} names out of {', '.join(known)}; got {_shown(kinds)}"
            )
        return kinds

    def _value(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is None:
            if default is _REQUIRED:
                raise UnsupportedModelError(f"config.json: {key} is missing")
            return default
        return value


def number(value: Any, where: str) -> float:
    """A finite number above zero, as a float; UnsupportedModelError naming `where` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise UnsupportedModelError(f"{where} must be a number above 0; got {_shown(value)}")
    return float(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
