"""Parts of packages without the rest: for those whose `__init__` loads far more than we call.

An agent has 150 MB and two seconds for its start. `import kubernetes` takes 18 MB and 0.2 s, of
which configuration, credentials and TLS need 2 MB; `import pyroute2` 13 MB, of which rtnetlink
needs 7. Who asks for one of the other parts gets it as ever, and pays then.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any


def slim(package: str) -> None:
    """`import package.part` runs the part alone; `__init__` runs when it is asked for more."""
    if package in sys.modules:
        return
    spec = find_spec(package)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    module, loader = module_from_spec(spec), spec.loader

    def late(name: str) -> Any:
        if not name.startswith("__") and find_spec(f"{package}.{name}") is not None:
            return import_module(f"{package}.{name}")
        if vars(module).pop("__getattr__", None) is not None:
            loader.exec_module(module)
        if name not in vars(module):
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)
        return vars(module)[name]

    setattr(module, "__getattr__", late)  # noqa: B010 - PEP 562
    sys.modules[package] = module


def later(module: str, name: str) -> None:
    """`from module import name` loads nothing; the first call of it does."""
    if module in sys.modules:
        return
    stand_in = ModuleType(module)

    def call(*args: Any, **kwargs: Any) -> Any:
        if sys.modules.get(module) is stand_in:
            del sys.modules[module]
        return getattr(import_module(module), name)(*args, **kwargs)

    setattr(stand_in, name, call)
    sys.modules[module] = stand_in
