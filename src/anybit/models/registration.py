"""Registers anybit with transformers' quantizers: at once where they are loaded, else the moment they are.

Loading them costs a second, which commands that never touch transformers should not pay; `import anybit.models` is still all it takes.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

REGISTRY = "transformers.quantizers.auto"


class _AfterImport(MetaPathFinder):
    """Finds nothing itself; lets the registry be imported as usual and registers behind it, once."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != REGISTRY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            sys.modules[fullname] = module
            import anybit.models.integration  # noqa: F401

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def register() -> None:
    """Make `from_pretrained` understand anybit checkpoints, now or as soon as transformers' quantizers are imported."""
    if REGISTRY in sys.modules:
        import anybit.models.integration  # noqa: F401
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())
