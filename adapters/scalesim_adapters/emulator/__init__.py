"""A server shaped like vLLM 0.32, with a cost model instead of a model: for fast tests and for scale.

Everything it says of speed is emulated; `/version` says so.
"""

from scalesim_adapters.emulator.config import CostModel, EmulatorConfig
from scalesim_adapters.emulator.server import EmulatorServer

__all__ = ["CostModel", "EmulatorConfig", "EmulatorServer"]
