"""The map of the village: named places and where they lie, in tiles."""

from __future__ import annotations

from typing import Final

Point = tuple[float, float]

WIDTH: Final = 60.0
HEIGHT: Final = 40.0

PLACES: Final[dict[str, Point]] = {
    "the bakery": (8.0, 8.0),
    "the smithy": (52.0, 6.0),
    "the mill": (30.0, 4.0),
    "the school": (14.0, 22.0),
    "the inn": (30.0, 20.0),
    "the chapel": (44.0, 18.0),
    "the market hall": (24.0, 30.0),
    "the apothecary": (38.0, 32.0),
    "the ferry landing": (56.0, 26.0),
    "the orchard": (6.0, 34.0),
    "the workshop yard": (48.0, 36.0),
    "the reading room": (20.0, 12.0),
}
