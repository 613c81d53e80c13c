"""`Tokenizer`: text to token ids and back, from a model's tokenizer.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anybit.errors import CheckpointError
from anybit.models.config import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Reader


class Tokenizer:
    """bos, eos: ids of the begin token (None where the model has none) and of all tokens that end a text."""

    def __init__(self, inner: Reader, bos: int | None, eos: tuple[int, ...]) -> None:
        self.inner = inner
        self.bos = bos
        self.eos = eos

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Token ids; `special` adds what the tokenizer's own template adds (usually the begin token)."""
        return self.inner.encode(text, add_special_tokens=special).ids

    def decode(self, token_ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Text of token ids."""
        return self.inner.decode([int(i) for i in token_ids], skip_special_tokens=skip_special_tokens)

    @property
    def size(self) -> int:
        """Number of tokens, added ones included."""
        return self.inner.get_vocab_size()


def load_tokenizer(directory: Path, config: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a model directory; begin and end tokens from tokenizer_config.json, generation_config.json and config.json.

    Raises CheckpointError where tokenizer.json is missing or cannot be read.
    """
    from tokenizers import Tokenizer as Reader

    path = directory / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: text needs a tokenizer.json")
    try:
        inner = Reader.from_file(str(path))
    except Exception as error:  # the library raises a bare Exception for whatever is wrong with the file
        raise CheckpointError(f"{path} is not a tokenizer ({error})") from None
    generation = _optional(directory / "generation_config.json")
    settings = _optional(directory / "tokenizer_config.json")
    bos = _ids(inner, settings.get("bos_token"))
    if not bos and "bos_token" not in settings:
        bos = _numbers(generation.get("bos_token_id")) or _numbers(config.get("bos_token_id"))
    eos = [*_numbers(generation.get("eos_token_id")), *_numbers(config.get("eos_token_id"))]
    eos += _ids(inner, settings.get("eos_token"))
    return Tokenizer(inner, bos[0] if bos else None, tuple(dict.fromkeys(eos)))


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path, "settings of the tokenizer") if path.exists() else {}


def _ids(inner: Reader, token: object) -> list[int]:
    """The id of a token given as a string, or as an object with its content."""
    text = token.get("content") if isinstance(token, dict) else token
    found = inner.token_to_id(text) if isinstance(text, str) else None
    return [] if found is None else [found]


def _numbers(value: object) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, int) and not isinstance(v, bool)]
