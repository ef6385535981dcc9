"""Part 1 of what lets SGLang run on a CPU: PyPI's torchvision is built for CUDA and its operators don't load here.

It registers fake versions of its operators on import, which fails for operators that don't exist: so they are declared.
None is ever computed. With a torchvision built for CPUs this file isn't needed.
"""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor d, Tensor s, float t) -> Tensor",
)


class DeclareFirst(MetaPathFinder, Loader):
    """Declares the operators when torchvision is about to be imported, not earlier: importing torch takes a second."""

    def find_spec(
        self, name: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Step in for `torchvision`, once."""
        if name != "torchvision":
            return None
        sys.meta_path.remove(self)
        import torch

        self.library = torch.library.Library("torchvision", "DEF")
        for operator in OPERATORS:
            self.library.define(operator)
        return PathFinder.find_spec(name)


declare_first = DeclareFirst()
sys.meta_path.insert(0, declare_first)
