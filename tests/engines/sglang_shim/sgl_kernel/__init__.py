"""Part 2 of what lets SGLang run on a CPU: stands in for the package of its kernels, which is published for CUDA alone.

Every name can be imported; what is called says that it isn't there. SGLang's own paths for CPUs call none of them.
"""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NoReturn

__path__: list[str] = []


class Absent:
    """In the place of a kernel, or of a namespace of constants."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> "Absent":
        return absent(self._name, name)

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(f"{self._name} is made for CUDA, and this is a CPU")


def absent(parent: str, name: str) -> Absent:
    """Return what stands for `parent.name`. Raises `AttributeError` for names that Python itself asks for."""
    if name.startswith("__"):
        raise AttributeError(name)
    return Absent(f"{parent}.{name}")


def __getattr__(name: str) -> Absent:
    return absent(__name__, name)


class Submodules(MetaPathFinder, Loader):
    """Finds modules of this package: all are there, and all are empty like it."""

    def find_spec(
        self, name: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find any module below this one."""
        return ModuleSpec(name, self, is_package=True) if name.startswith(f"{__name__}.") else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave the making of the module to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its names."""
        module.__getattr__ = lambda name: absent(module.__name__, name)


sys.meta_path.append(Submodules())
