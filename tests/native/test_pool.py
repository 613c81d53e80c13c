"""The thread pool: pool_check.cc holds the checks; many threads on few cores make crews shrink and grow on the way."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_pool(tmp_path):
    out = tmp_path / "pool_check"
    sources = [ROOT / "native" / "generic" / "thread_pool.cc", ROOT / "tests" / "native" / "pool_check.cc"]
    command = ["g++", "-std=c++20", "-O1", f"-I{ROOT / 'native'}", *map(str, sources), "-lpthread", "-o", str(out)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-2000:]
    done = subprocess.run([str(out)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "pool: fine" in done.stdout
