"""Turns a villager's facts into the long private prompt prefix that a generative agent carries."""

from __future__ import annotations

from random import Random
from typing import Final

from bench.workloads.personas import VILLAGERS, Persona
from bench.workloads.places import PLACES

TIES: Final = (
    "{other} ({age}, {trade}) is the one {first} goes to before a decision; both know that {worry}.",
    "With {other}, the {trade}, {first} has an unsettled quarrel about {project}, and neither will begin.",
    "{first} owes {other} a favour from the flood and repays it by asking after {project} every week.",
    "{other} is {traits}, which {first} admires at a distance and finds tiring by noon.",
    "When {other} {habit}, {first} looks away, because it brings back a person who is gone.",
    "{first} taught {other} to swim and since then is told things first: lately, that {worry}.",
    "{first} suspects that {other} knows more than any {trade} should about who drew the old boundary.",
    "Of {other} the children say: {roots}. {first} heard it told differently and keeps both versions.",
    "{first} and {other} share a bench at {place} on market days and speak mostly of {project}.",
    "{first} lent {other} a lantern at {place} in a storm and got it back with a better wick.",
    "To {other}, {age} and {traits}, {first} has never said aloud what everyone guesses.",
    "{first} keeps a spare key of {other}, because {worry}, and has used it twice.",
)
HOURS: Final = (
    "Before five {first} is awake, lights the stove and reads one page, always standing.",
    "At six there is tea with honey, and the list for the day is made aloud so that it counts.",
    "From half past six until nine {first} works at {work}, the only hours without visitors.",
    "At nine {first} walks to {a} to exchange news, never staying longer than a pipe lasts.",
    "Between ten and noon the work goes on: {project} takes what time is left over.",
    "At noon {first} eats at {b}, at the end of the table that faces the door.",
    "Until two {first} rests or pretends to, and answers whoever knocks.",
    "In the early afternoon there are errands to {c}, paid at once and in exact coin.",
    "From three to six {first} is at {work} again and can be interrupted by anybody with a reason.",
    "At dusk {first} looks in at {d}, chiefly to see who else does.",
    "Supper is late and short, with a lamp in the window on the road side.",
    "Before sleep {first} goes over the day backwards and stops at the first thing done badly.",
)
MEMORIES: Final = (
    "the night when {other} and {first} carried sandbags to {place} until the handcart lost a wheel",
    "a wedding at {place} at which {other} sang and {first} wept behind a pillar",
    "the bargain struck with {other} at {place}, sealed with half an apple each",
    "how {other} found the lost child at {place} and would not accept thanks",
    "the winter evening at {place} when {other} read a stranger's letter aloud by mistake",
    "a wager with {other} about the height of the water at {place}, still unpaid",
    "the fire at {place}: {other} held the ladder and {first} held the bucket",
    "the year without plums, when {other} gave {first} the last jar at {place}",
    "a dog that followed {first} from {place} to the door of {other} and stayed there",
    "the morning at {place} on which {other} apologised for something {first} had forgotten",
    "the fair at {place} where {other} won a goose and named it after the warden",
    "the meeting at {place} that {other} left without a hat, and what was said after",
    "a song half learned from {other} on the steps of {place}",
    "the coin that {other} threw from {place} into the river, and the wish that {first} guessed",
    "an accident at {place} that only {other} and {first} know to have been none",
    "the long drought, when {other} shared a well with {first} behind {place}",
    "the travelling players at {place}, and {other} laughing at the wrong moment",
    "a snowstorm that kept {first} and {other} at {place} for two nights with one candle",
)
SEASONS: Final = ("in the spring of", "in the summer of", "during the harvest of", "in the first snow of")
MATTERS: Final = (
    "the new road, which would pass behind the orchard",
    "whether the ferry should run on feast days",
    "the council's wish to sell the meadow",
    "the stranger in the blue room of the inn",
    "teaching the older children a trade before letters",
    "the bell that rings a quarter of an hour late",
    "opening the market to hawkers from the coast",
    "who should pay for the east bank",
    "the play at midsummer and its one villain",
    "letting the mill grind on Sundays in a wet year",
)
STANCES: Final = (
    "is for it, and says so to those who are against it",
    "is against it, for a reason that nobody has asked about",
    "changed sides last autumn and is waiting to be teased for it",
    "would agree if the sum were written down first",
    "thinks that the wrong people are being asked",
    "has promised both parties to stay out of it and regrets the promise",
    "believes it will be settled by weather, as most things are",
    "wants to hear what {other} thinks and then do the opposite",
    "has offered to pay a tenth of it and was not taken seriously",
    "follows {other} in this, out of loyalty and not conviction",
)


def persona_text(persona: Persona, seed: int) -> str:
    """Return the villager's own text (ties, day, memories, views), over 6,000 characters, fixed by `seed`."""
    rng = Random(f"{seed}/{persona.name}")
    sections = (
        _identity(persona),
        "The people who matter:\n" + "\n".join(_ties(persona, rng)),
        "An ordinary day:\n" + "\n".join(_day(persona, rng)),
        "What is remembered:\n" + "\n".join(_memories(persona, rng)),
        "On the village's affairs:\n" + "\n".join(_views(persona, rng)),
    )
    return "\n\n".join(sections) + "\n"


def first_name(name: str) -> str:
    """Return the name that villagers use among themselves."""
    return name.split()[0]


def _identity(p: Persona) -> str:
    return (
        f"{p.name}, {p.age} years old, is the village's {p.trade} and is mostly found at {p.work}. "
        f"Those who know {first_name(p.name)} say: {p.traits}. {p.roots}. "
        f"At present everything turns on {p.project}. There is a worry, too: {p.worry}. "
        f"One knows {first_name(p.name)} from afar as the one who {p.habit}."
    )


def _others(persona: Persona, rng: Random, count: int) -> list[Persona]:
    return rng.sample([p for p in VILLAGERS if p.name != persona.name], count)


def _ties(persona: Persona, rng: Random) -> list[str]:
    frames = rng.sample(TIES, len(TIES))
    return [
        frame.format(
            first=first_name(persona.name),
            other=other.name,
            age=other.age,
            trade=other.trade,
            traits=other.traits,
            roots=other.roots,
            project=other.project,
            worry=other.worry,
            habit=other.habit,
            place=rng.choice(list(PLACES)),
        )
        for frame, other in zip(frames, _others(persona, rng, len(frames)), strict=True)
    ]


def _day(persona: Persona, rng: Random) -> list[str]:
    a, b, c, d = rng.sample([place for place in PLACES if place != persona.work], 4)
    first = first_name(persona.name)
    return [
        hour.format(first=first, work=persona.work, project=persona.project, a=a, b=b, c=c, d=d)
        for hour in HOURS
    ]


def _memories(persona: Persona, rng: Random) -> list[str]:
    first = first_name(persona.name)
    return [
        f"{rng.choice(SEASONS).capitalize()} year {rng.randint(31, 59)}, "
        + frame.format(first=first, other=other.name, place=rng.choice(list(PLACES)))
        + "."
        for frame, other in zip(
            rng.sample(MEMORIES, len(MEMORIES)), _others(persona, rng, len(MEMORIES)), strict=True
        )
    ]


def _views(persona: Persona, rng: Random) -> list[str]:
    first = first_name(persona.name)
    matters, stances = rng.sample(MATTERS, len(MATTERS)), rng.sample(STANCES, len(STANCES))
    return [
        f"As to {matter}: {first} {stance.format(other=first_name(other.name))}."
        for matter, stance, other in zip(matters, stances, _others(persona, rng, len(matters)), strict=True)
    ]
