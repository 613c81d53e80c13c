"""Arguments mean what they say, and errors name the option or file."""

from __future__ import annotations

import pytest

from anybit.cli import arguments
from anybit.errors import AnybitError, CheckpointError


def test_model_folder(tmp_path):
    assert arguments.model_folder(str(tmp_path)) == tmp_path
    with pytest.raises(CheckpointError, match="no-such-model"):
        arguments.model_folder("no-such-model")


def test_read_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("åäö", encoding="utf-8")
    assert arguments.read_text(path, "evaluation") == "åäö"
    path.write_bytes(b"ab\xff")
    with pytest.raises(AnybitError, match="not UTF-8 text \\(byte 2\\)"):
        arguments.read_text(path, "evaluation")
    path.write_text("\n")
    with pytest.raises(AnybitError, match=r"evaluation text .* is empty"):
        arguments.read_text(path, "evaluation")
    with pytest.raises(AnybitError, match="not a file"):
        arguments.read_text(tmp_path, "evaluation")


def test_default_text(tmp_path):
    with pytest.raises(AnybitError, match="--text FILE"):
        arguments.default_text(tmp_path)
    (tmp_path / "heldout.txt").write_text("x")
    assert arguments.default_text(tmp_path) == tmp_path / "heldout.txt"


def test_listed():
    assert arguments.listed("1, 2,", "--threads", int) == [1, 2]
    assert arguments.listed("levels(-1,0,1), int4", "--formats", str) == ["levels(-1,0,1)", "int4"]
    with pytest.raises(AnybitError, match="--threads: 'x' is not a number"):
        arguments.listed("1,x", "--threads", int)
    with pytest.raises(AnybitError, match="empty list"):
        arguments.listed(" , ", "--threads", int)


def test_listed_keeps_the_sentence_of_a_typed_error():
    def refuse(text: str) -> int:
        raise AnybitError(f"no {text}")

    with pytest.raises(AnybitError, match=r"^no x$"):
        arguments.listed("x", "--shapes", refuse)


def test_positive():
    arguments.positive(None, "--rounds")
    arguments.positive(1, "--rounds")
    for value in (0, -2, float("nan")):
        with pytest.raises(AnybitError, match="--rounds must be above 0"):
            arguments.positive(value, "--rounds")
