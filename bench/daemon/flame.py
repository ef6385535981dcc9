"""`python -m bench.daemon.flame`: a picture of where the daemon's time goes while it takes a flood in.

The same flood as in `ingest.py`, longer; py-spy looks at the process that takes it in 500 times a second, from outside,
so that what is called often looks no more costly than it is. Time in C belongs to the function that called it. Wider is
longer, and what a function calls hangs below it. py-spy's own picture has the start, the end and all turns of the loop
in it; here is what is below the door and the cycle, by the parts of the path; grey is what belongs to none of them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bench.daemon.ingest import take_flood_in

PER_MESSAGE = 100
EVENTS = 2_000_000
RATE = 500
ROOTS = ("Feed._route", "Sidecar.run")
"""What the loop runs while events are taken in: the door, and the cycles."""
PARTS = (
    (
        "door and decoder",
        "#ca7373",
        ("scalesim_daemon/feed", "scalesim_daemon/wire", "scalesim_client/", "zmq/"),
    ),
    ("gate and loop", "#9fa8da", ("scalesim_daemon/gate", "scalesim_daemon/loop")),
    ("population and board", "#e6aa68", ("scalesim_daemon/",)),
    ("estimators", "#7fb069", ("scalesim_estimators/",)),
)
"""Parts of the path, with a colour and how the names of their files begin. The first holds."""
OTHER = "#cccccc"
SHOWN = 0.004
"""What takes a smaller share is left out."""
LETTERS = 190
"""So many fit into the whole width."""

# Equal figures give equal files, whose words can be read.
matplotlib.rcParams |= {"svg.hashsalt": "flame", "svg.fonttype": "none"}


@dataclass(slots=True)
class Frame:
    """A function with all that it was seen to call, in samples."""

    name: str
    file: str = ""
    samples: int = 0
    calls: dict[tuple[str, str], Frame] = field(default_factory=dict)


def merged(stacks: Iterable[str]) -> Frame:
    """Return one tree of the stacks, as py-spy writes them: `outer (file:line);inner (file:line) samples`. What is not
    below a root is left out."""
    tree = Frame("all")
    for stack in stacks:
        path, _, samples = stack.strip().rpartition(" ")
        frames = [_function(frame) for frame in path.split(";")]
        start = next((place for place, (name, _) in enumerate(frames) if name in ROOTS), None)
        if start is None:
            continue
        tree.samples += int(samples)
        at = tree
        for name, file in frames[start:]:
            at = at.calls.setdefault((name, file), Frame(name, file))
            at.samples += int(samples)
    return tree


def _function(frame: str) -> tuple[str, str]:
    name, _, where = frame.partition(" (")
    return name.replace(".<locals>", ""), where.rpartition(":")[0]


def laid_out(tree: Frame, left: float = 0.0, depth: int = 0) -> Iterator[tuple[Frame, float, int]]:
    """Yield each function with the samples to its left and how deep it is, the longest of a caller's first."""
    for frame in sorted(tree.calls.values(), key=lambda one: (-one.samples, one.name)):
        yield frame, left, depth
        yield from laid_out(frame, left, depth + 1)
        left += frame.samples


def draw(tree: Frame, path: Path) -> None:
    """Write the picture of a tree that has samples, as SVG. Raises `OSError`."""
    shown = [one for one in laid_out(tree) if one[0].samples >= SHOWN * tree.samples]
    deepest = max(depth for _, _, depth in shown)
    figure = Figure(figsize=(12, 0.3 * (deepest + 4)), layout="constrained")
    axes = figure.subplots()
    for frame, samples, depth in shown:
        left, share = samples / tree.samples, frame.samples / tree.samples
        axes.barh(depth, share, 0.95, left, color=_colour(frame.file), edgecolor="white", linewidth=0.5)
        label = _label(frame.name, int(share * LETTERS))
        axes.text(left + 0.002, depth, label, fontsize=7, va="center", family="monospace")
    axes.set_xlim(0, 1)
    axes.set_ylim(deepest + 0.5, -0.5)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.yaxis.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("share of the time in which events are taken in")
    parts = [Patch(color=colour, label=part) for part, colour, _ in PARTS]
    axes.legend(handles=parts, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(parts), frameon=False)
    figure.savefig(path, metadata={"Date": None})


def _colour(file: str) -> str:
    return next((colour for _, colour, starts in PARTS if file.startswith(starts)), OTHER)


def _label(name: str, letters: int) -> str:
    """Return as much of a function's name as fits, without its class where that is too much, or nothing."""
    for label in (name, name.rpartition(".")[2]):
        if len(label) <= letters:
            return label
    return f"{label[: letters - 1]}…" if letters > 3 else ""


def record(events: int, raw: Path) -> None:
    """Have py-spy look at a process that takes a flood in, and write the stacks that it sees. Raises `OSError` where
    there is no py-spy, `subprocess.CalledProcessError` where it fails."""
    command = [
        str(Path(sys.executable).with_name("py-spy")),
        "record",
        "--rate",
        str(RATE),
        "--format",
        "raw",
        "--output",
        str(raw),
    ]
    subprocess.run(
        [*command, "--", sys.executable, "-m", "bench.daemon.flame", "--flood", str(events)], check=True
    )


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m bench.daemon.flame", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/flame.svg"), help="where the picture goes")
    parser.add_argument("--events", type=int, default=EVENTS, help="how long the flood is")
    parser.add_argument("--flood", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.flood is not None:
        take_flood_in(PER_MESSAGE, given.flood, 1, {"enabled": False})
        return
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="flame-") as name:
        raw = Path(name) / "stacks"
        try:
            record(given.events, raw)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"{error}; `make flame` installs py-spy")
        tree = merged(raw.read_text(encoding="utf-8").splitlines())
    if not tree.samples:
        sys.exit("nothing was seen of taking events in: give more --events")
    draw(tree, given.out)
    print(f"{given.out}: {tree.samples} samples")


if __name__ == "__main__":
    main()
