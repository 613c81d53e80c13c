"""The shared data is found where `ANYBIT_DATA` says, and its absence is said in one sentence."""

import pytest

from anybit.errors import AnybitError
from anybit.zoo import data


def test_the_variable_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("ANYBIT_DATA", str(tmp_path))
    (tmp_path / "x.txt").write_text("x")
    assert data.data_folder() == tmp_path and data.data_file("x.txt") == tmp_path / "x.txt"
    with pytest.raises(AnybitError, match=r"y/z is not in .*set ANYBIT_DATA"):
        data.data_file("y/z")


def test_beside_the_repository(tmp_path, monkeypatch):
    monkeypatch.delenv("ANYBIT_DATA", raising=False)
    monkeypatch.setattr(data, "checkout", lambda: tmp_path / "repository")
    with pytest.raises(AnybitError, match="set ANYBIT_DATA"):
        data.data_folder()
    (tmp_path / "shared" / "data").mkdir(parents=True)
    assert data.data_folder() == tmp_path / "shared" / "data"


def test_checkout():
    root = data.checkout()
    assert root is not None and (root / "tests" / "zoo").is_dir()
