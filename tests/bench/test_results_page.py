"""The page of results: rendered from small figures, its verdicts, and what it says of what is worse or not run."""

from pathlib import Path
from typing import Any

from bench.results.files import FOLDER, PAGE, load
from bench.results.page import NOT_RUN, Files, render
from bench.results.plots import draw
from bench.results.targets import TARGETS, pairs
from bench.results.worse import worse, worse_policies

ROOT = Path(__file__).parents[2]


def row(ratio: float, recomputed: float = 1.0, **more: Any) -> dict[str, Any]:
    return {
        "makespan_ratio": ratio,
        "makespan_ratio_low": 0.95 * ratio,
        "makespan_ratio_high": 1.05 * ratio,
        "ttft_mean_ratio": ratio,
        "cached_share": 0.5,
        "recomputed_tokens_ratio": recomputed,
        "failed_requests": 0,
    } | more


def classes() -> dict[str, dict[str, dict[str, Any]]]:
    return {
        "interaction": {
            "alone": row(1.0),
            "host_lru": row(1.2, 0.8),
            "both": row(2.4, 0.2),
            "shuffled": row(1.5, 0.5),
            "adversarial": row(1.01, 1.02),
            "clairvoyant": row(2.5, 0.18),
            "history": row(1.7, 0.6),
            "noise_50": row(1.8, 0.4),
        },
        "path": {"alone": row(1.0), "both": row(1.9, 0.3)},
    }


def policy() -> dict[str, Any]:
    swept = {"agents": 500, "active": 0.2, "seeds": 3, "variants": {"alone": row(1.0), "both": row(1.6)}}
    misses = {"Belady": 50, "by due": 51}
    seconds = {"GDSF, misses": 10.0, "GDSF, seconds": 11.0, "by rent": 8.0}
    return {
        "equal": [
            {"trace": "zipf", "agents": 9, "capacity": 3, "calls": 99, "misses": misses, "over_belady": 0.02}
        ],
        "mixed": [{"trace": "zipf", "items": "LoRAs", "share": 0.5, "seconds": seconds, "over_gdsf": -0.2}],
        "engines": {
            "cpu": {
                "costs": "cpu-90m",
                "source": "a file",
                "agents": 50,
                "device_tokens": 12_928,
                "host_tokens": 25_600,
                "resident_share": 0.25,
                "host_share": 0.5,
                "concurrency": 4,
                "prompt": {"shared": 128, "private": 1024, "fresh": 16, "output": 8},
                "steps": 40,
                "seeds": 10,
                "active": {"interaction": 0.17},
                "classes": classes(),
            }
        },
        "sweeps": {"active": [swept], "agents": [swept]},
    }


def engine() -> dict[str, Any]:
    return {"conditions": {"engine": "vllm", "pool_tokens": 9600, "seeds": [1, 2]}, "classes": classes()}


def lines(page: str, start: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith(start)]


def test_everything_there_is_shown_with_its_command() -> None:
    page = render(Files({"vllm": engine()}, policy()))
    assert "| both | 2.40 (2.28 to 2.52) | 2.40 | 0.50 | 0.200 | 0 |" in page
    assert "- pool tokens: 9600" in page and "- seeds: 1, 2" in page
    assert lines(page, "| noise_25 |")[0].count(NOT_RUN) == 5
    assert "make bench-engine FULL=1" in page and "make bench-policy" in page
    assert "| interaction | 1.31 | 2.40 (shuffled 1.50, ceiling not run) |" in page
    assert "1.74x" in page and "doubtful" in page
    assert "Not run yet: `make bench-engine ENGINE=sglang FULL=1`." in page


def test_a_page_of_nothing_says_that_nothing_was_run() -> None:
    page = render(Files({}, None))
    assert page.count(NOT_RUN) >= len(TARGETS)
    assert "- vLLM: not run yet." in page and "Not run yet: `make bench-policy`." in page
    assert "met" not in page.replace("metrics", "").split("## Where")[0].replace("method", "")


def test_targets_are_judged() -> None:
    told = {target.what: target.read(classes()) for target in TARGETS}
    assert told["makespan of both over alone, best class"].shown == "2.40 (interaction)"
    assert told["makespan of both over alone, interaction"].met
    assert told["mean TTFT of both below host_lru's, best class"].shown == "50% (interaction)"
    assert told["both over shuffled in makespan, interaction"].shown == "1.60"
    assert told["both's saving in recomputed tokens over clairvoyant's, interaction"].shown == "0.976"
    history = told["history's saving in recomputed tokens over clairvoyant's, interaction"]
    assert (history.shown, history.met) == ("0.488", False)
    assert all(target.read({}).met is None for target in TARGETS)


def test_what_is_worse_is_never_left_out() -> None:
    figures = classes()
    figures["path"]["both"] = row(0.9, 1.1, failed_requests=2, ttft_p95_ratio=0.8)
    told = list(worse("vLLM", figures))
    assert sum("path, both" in line for line in told) == 5
    assert any("interval wholly below 1.0" in line for line in told)
    assert any("history's saving" in line for line in told)
    assert any("2 requests failed" in line for line in told)
    for line in told:
        assert f"- {line}" in render(Files({"vllm": {"conditions": {}, "classes": figures}}, None)).replace(
            "vLLM, measured", "vLLM"
        )


def test_sweeps_and_policies_that_miss_are_named() -> None:
    figures = policy()
    assert list(worse_policies(figures)) == []
    figures["mixed"][0]["over_gdsf"] = 0.01
    figures["sweeps"]["agents"][0]["variants"]["both"] = row(0.9)
    told = list(worse_policies(figures))
    assert any("+1.0%" in line for line in told) and any("500 agents" in line for line in told)


def test_what_both_played_is_compared() -> None:
    measured = {
        "interaction": {"alone": row(1.0), "both": row(2.0), "ceiling": row(9.0)},
        "mixed": {"both": row(1.0)},
    }
    assert pairs(measured, classes()) == [("interaction", "both", 2.0, 2.4)]


def test_plots_show_every_source_and_the_papers_marks(tmp_path: Path) -> None:
    draw(Files({"vllm": engine()}, policy()), tmp_path / "new")
    makespans = (tmp_path / "new" / "makespan.svg").read_text(encoding="utf-8")
    for word in ("vLLM, measured", "cpu, simulated", "1.74", "doubtful"):
        assert word in makespans
    assert "<svg" in (tmp_path / "new" / "sweeps.svg").read_text(encoding="utf-8")


def test_the_committed_page_is_what_the_committed_figures_give() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == render(load(ROOT / FOLDER))
