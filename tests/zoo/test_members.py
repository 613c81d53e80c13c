"""The table: names once, no weight in the package that it does not list, and all of them together small."""

import re
import subprocess
import sys

import pytest

from anybit.errors import AnybitError
from anybit.zoo import members
from anybit.zoo.members import MEMBERS, WEIGHTS, find

LIMIT = 40_000_000


def test_names_are_unique_and_sums_are_sums():
    assert len({m.name for m in MEMBERS}) == len(MEMBERS)
    for m in MEMBERS:
        assert re.fullmatch("[a-z0-9-]+", m.name) and m.family and m.data and m.licence and m.metric
        assert m.sha256 is None or re.fullmatch("[0-9a-f]{64}", m.sha256)
        assert m.trained == (m.bar is not None)
        assert m.bundled or m.trained, "third parties' weights are trained"


def test_the_package_holds_what_the_table_lists_and_little_else():
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LIMIT
    stored = {str(path.relative_to(WEIGHTS)) for path in files if path.suffix == ".safetensors"}
    assert stored == {m.file for m in MEMBERS if m.bundled and m.trained}


def test_every_script_exists():
    import importlib.util

    for m in MEMBERS:
        assert m.script is None or importlib.util.find_spec(f"anybit.zoo.{m.script}")
        assert not m.bundled or m.script or m.name == "lm-outliers"


def test_find_names_near_ones():
    assert find("kwt1").parameters == 607_308
    with pytest.raises(AnybitError, match="did you mean resnet20"):
        find("resnet-20")
    with pytest.raises(AnybitError, match="anybit zoo list"):
        find("qqqq")


def test_status(tmp_path, monkeypatch):
    monkeypatch.setenv("ANYBIT_DATA", str(tmp_path))
    assert find("resnet20").status == "resnet_cifar/resnet20.safetensors is missing"
    monkeypatch.delenv("ANYBIT_DATA")
    monkeypatch.setattr("anybit.zoo.data.checkout", lambda: tmp_path / "x" / "y")
    assert find("resnet20").status == "needs the shared data (ANYBIT_DATA)"
    assert (
        find("unet").status == "not trained yet: run python -m anybit.zoo.train_unet --out DIR" or find("unet").trained
    )
    assert find("anybit-tiny").status == "ready"


def test_the_table_needs_no_torch():
    code = "import sys, anybit.zoo; print([m.status for m in anybit.zoo.MEMBERS][0], 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["ready", "False"]
    assert members.MEMBERS[0].name == "anybit-tiny"
