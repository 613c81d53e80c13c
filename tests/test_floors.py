"""The house holds: no import goes up, importing anybit stays light, files stay short. Each check has a twin that proves it can fail."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "anybit"
LONGEST_FILE = 600

# docs/architecture.md. A folder may import from lower floors, and from itself.
FLOORS = {
    "errors": 0,
    "options": 0,
    "_native": 0,  # compiled code, which imports nothing of anybit
    "formats": 1,
    "tensors": 2,
    "ops": 3,
    "nn": 4,
    "transforms": 5,
    "quantize": 5,
    "allocate": 5,
    "train": 5,
    "models": 6,
    "hardware": 7,
    "workloads": 7,
    "zoo": 7,
    "runtime": 7,
    "recipes": 7,
    "reproduce": 8,
    "cli": 9,
    "__main__": 9,
}

# Imports between folders of one floor: (importer, imported), one way only.
SAME_FLOOR = {
    ("options", "errors"),
    ("quantize", "transforms"),  # quantizers that rotate or smooth first
    ("recipes", "runtime"),  # a recipe evaluates what it made
    ("recipes", "zoo"),  # the name of a bundled model stands for its directory
    ("runtime", "zoo"),
}


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything of anybit that is imported, at any depth; `from anybit import x` counts as anybit.x."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] == "anybit")
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, "." * node.level
            elif node.module == "anybit":
                yield from ((node.lineno, f"anybit.{alias.name}") for alias in node.names)
            elif node.module and node.module.startswith("anybit."):
                yield node.lineno, node.module


def violations(source: Path) -> list[str]:
    """Every import under `source` that the table does not allow."""
    found = []
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        home = parts[0]
        if home == "__init__":
            home_floor = 0
        elif home in FLOORS:
            home_floor = FLOORS[home]
        else:
            found.append(f"{path.relative_to(source)}: {home} is on no floor of the table")
            continue
        for line, name in imports(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.relative_to(source)}:{line}"
            if name.startswith("."):
                found.append(f"{where}: relative import; write the name out")
                continue
            target = name.split(".")[1] if "." in name else "__init__"
            if target in ("__init__", "__version__", home):
                continue
            if target not in FLOORS:
                found.append(f"{where}: {name} is on no floor of the table")
            elif FLOORS[target] >= home_floor and (home, target) not in SAME_FLOOR:
                found.append(f"{where}: {home} (floor {home_floor}) imports {target} (floor {FLOORS[target]})")
    return found


def test_no_import_goes_up() -> None:
    assert not violations(SOURCE)


@pytest.mark.parametrize(("file", "text", "message"), [
    ("formats/a.py", "from anybit.tensors import QTensor", "formats/a.py:1: formats (floor 1) imports tensors (floor 2)"),
    ("formats/a.py", "def f():\n    import anybit.cli.main", "formats/a.py:2: formats (floor 1) imports cli (floor 9)"),
    ("ops/a.py", "from anybit import models", "imports models (floor 6)"),
    ("transforms/a.py", "from anybit.quantize import rtn", "transforms (floor 5) imports quantize (floor 5)"),
    ("ops/a.py", "from . import b", "relative import"),
    ("attic/a.py", "", "attic is on no floor"),
    ("ops/a.py", "import anybit.attic", "anybit.attic is on no floor"),
])  # fmt: skip
def test_the_check_of_imports_can_fail(tmp_path: Path, file: str, text: str, message: str) -> None:
    path = tmp_path / file
    path.parent.mkdir()
    path.write_text(text)
    (found,) = violations(tmp_path)
    assert message in found


def test_the_check_of_imports_lets_lower_floors_pass(tmp_path: Path) -> None:
    (tmp_path / "quantize").mkdir()
    (tmp_path / "quantize" / "a.py").write_text(
        "import anybit\nfrom anybit import tensors\nfrom anybit.transforms import smooth\n"
    )
    assert violations(tmp_path) == []


def test_the_table_of_one_floor_is_one_way_and_on_one_floor() -> None:
    for importer, imported in SAME_FLOOR:
        assert FLOORS[importer] == FLOORS[imported] and (imported, importer) not in SAME_FLOOR


def heavy_modules(code: str) -> list[str]:
    """Which of torch, jax and transformers a fresh interpreter has loaded after `code`."""
    show = "import sys; print(*(m for m in ('torch', 'jax', 'transformers') if m in sys.modules))"
    run = subprocess.run([sys.executable, "-c", f"{code}\n{show}"], capture_output=True, text=True, check=True)
    return run.stdout.split()


@pytest.mark.parametrize("code", ["import anybit", "import anybit.formats, anybit.errors"])
def test_importing_anybit_loads_neither_torch_nor_jax(code: str) -> None:
    assert heavy_modules(code) == []


def test_formats_compute_without_torch() -> None:
    code = (
        "import numpy as np\nfrom anybit.formats import TensorFormat, get\n"
        "for name in ('int4', 'e2m1', 'bf16', 'nf4', 'e8m0'):\n"
        "    fmt = get(name); fmt.decode(fmt.encode(np.ones(3)), np.float32); fmt.round(np.ones(3), 'stochastic', key=1)\n"
        "TensorFormat.parse('nvfp4')"
    )
    assert heavy_modules(code) == []


def test_the_check_of_loading_can_fail() -> None:
    assert "torch" in heavy_modules("import anybit.tensors")


def long_files(source: Path) -> list[str]:
    """Source files above the limit, with their number of lines."""
    counts = (
        (p.relative_to(source), len(p.read_text(encoding="utf-8").splitlines())) for p in sorted(source.rglob("*.py"))
    )
    return [f"{path}: {count} lines" for path, count in counts if count > LONGEST_FILE]


def test_files_stay_short() -> None:
    assert not long_files(SOURCE)


def test_the_check_of_length_can_fail(tmp_path: Path) -> None:
    (tmp_path / "short.py").write_text("\n" * LONGEST_FILE)
    (tmp_path / "long.py").write_text("\n" * (LONGEST_FILE + 1))
    assert long_files(tmp_path) == [f"long.py: {LONGEST_FILE + 1} lines"]
