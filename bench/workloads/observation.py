"""What a villager does and sees: activities, and the text of the fresh memory that goes into a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from bench.workloads.persona_text import first_name
from bench.workloads.personas import VILLAGERS, Persona


@dataclass(frozen=True, slots=True)
class Activity:
    """Something to do, for `shortest` to `longest` steps; `sociable` while one may be spoken to."""

    text: str
    shortest: int
    longest: int
    sociable: bool


ACTIVITIES: Final = (
    Activity("works with the door shut", 6, 13, sociable=False),
    Activity("mends something that can't wait", 4, 9, sociable=False),
    Activity("counts stock and writes it down", 2, 8, sociable=False),
    Activity("reads by the window", 5, 11, sociable=False),
    Activity("sleeps off a short night", 7, 13, sociable=False),
    Activity("tries the new plan once more", 4, 10, sociable=False),
    Activity("sits on the bench outside", 2, 9, sociable=True),
    Activity("sweeps the step", 1, 6, sociable=True),
)
WEATHER: Final = (
    "Rain has just stopped and the gutters still run",
    "The wind comes from the river and smells of tar",
    "It is hot, and the dust stays where it is",
    "Low sun falls through the gate",
    "Fog hides the far bank",
    "Clouds pile up over the ridge",
    "It is so still that the mill can be heard",
)
THOUGHTS: Final = (
    "It brings to mind {project} and whether {other} has got further with it",
    "There is talk again that {worry}, and {other} won't be drawn on it",
    "It would be the hour to ask {other} about {project}",
    "Somebody should tell {other} that people speak of {project}",
)


def observation(
    persona: Persona,
    now: int,
    place: str,
    activity: Activity,
    seen: Sequence[tuple[Persona, Activity]],
    company: str | None,
    rng: Random,
) -> str:
    """Return the text of one moment: when, where, with whom, and the question put to the agent."""
    first = first_name(persona.name)
    about = rng.choice([p for p in VILLAGERS if p is not persona])
    thought = rng.choice(THOUGHTS).format(project=about.project, worry=about.worry, other=about.name)
    around = "; ".join(f"{other.name} {doing.text}" for other, doing in seen[:4]) or "nobody else is about"
    event = f"{company} comes up and begins to talk" if company else f"{first} {activity.text}"
    return (
        f"Now, at step {now}: {event}, near {place}. {rng.choice(WEATHER)}. Around: {around}. {thought}. "
        f"This is hour {now % 24} since the bell, entry {rng.randrange(10_000)} in the daybook. "
        f"What does {first} say or do next, and for how long?"
    )
