"""The page of results: rendered from small figures, its verdicts, and what it says of what is worse or not run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from bench.engine.result import Conditions, Numbers, Result, write
from bench.results.files import FOLDER, PAGE, Classes, Files, load, measured_rows
from bench.results.page import render
from bench.results.plots import draw
from bench.results.tables import ABSOLUTE, COLUMNS, NOT_RUN
from bench.results.targets import TARGETS, counted, pairs
from bench.results.worse import worse, worse_anywhere

ROOT = Path(__file__).parents[2]
Measured = dict[str, dict[str, Numbers]]

CONDITIONS = Conditions(
    engine="vLLM",
    model="mid",
    agents=25,
    prompt_tokens=1088,
    output_tokens=16,
    pool_share=0.25,
    pool_tokens=6800,
    tier_share=0.5,
    steps=24,
    warmup=10,
    repetitions=2,
    seed=1,
    cores=2,
    played={"interaction": "2026-11-25, commit 1234567"},
    active={"interaction": 0.168},
    flags="all engines run with the sidecar's flags",
)


def row(ratio: float, recomputed: float = 1.0, **more: Any) -> Numbers:
    numbers = Numbers(
        calls=70,
        makespan=30 / ratio,
        makespan_ratio=ratio,
        makespan_ratio_low=0.95 * ratio,
        makespan_ratio_high=1.05 * ratio,
        ttft_mean=1 / ratio,
        ttft_mean_ratio=ratio,
        ttft_p95=2 / ratio,
        ttft_p95_ratio=ratio,
        cached_share=0.5,
        recomputed_tokens=round(70_000 * recomputed),
        recomputed_tokens_ratio=recomputed,
        prefetched_tokens=0,
        failed_requests=0,
    )
    return msgspec.structs.replace(numbers, **more)


def classes() -> Measured:
    beside = {"over_shuffled": 1.6, "over_shuffled_low": 1.5, "over_shuffled_high": 1.7}
    return {
        "interaction": {
            "alone": row(1.0),
            "host_lru": row(1.2, 0.8),
            "both": row(
                2.4, 0.2, ttft_over_host_lru=2.0, order_accuracy=0.9, prefetch_precision=0.7, **beside
            ),
            "shuffled": row(1.5, 0.5, order_accuracy=0.91),
            "adversarial": row(1.01, 0.7),
            "adversarial_no_tier": row(0.99, 1.02),
            "clairvoyant": row(2.5, 0.18),
            "history": row(1.7, 0.6, order_accuracy=0.6),
            "noise_50": row(1.8, 0.4),
        },
        "path": {"alone": row(1.0), "both": row(1.9, 0.3)},
    }


def plain(figures: Measured | Numbers) -> Any:
    return msgspec.to_builtins(figures)


def policy() -> dict[str, Any]:
    swept = {"alone": plain(row(1.0)), "both": plain(row(1.6)), "shuffled": plain(row(1.3))}
    place = {"agents": 500, "active": 0.2, "steps": 15, "seeds": 3, "variants": swept}
    misses = {"Belady": 50, "by due": 51}
    seconds = {"GDSF, misses": 10.0, "GDSF, seconds": 11.0, "by rent": 8.0}
    mixed = {
        "trace": "zipf",
        "items": "LoRAs",
        "share": 0.5,
        "held": 10.0,
        "seconds": seconds,
        "over_gdsf": -0.2,
    }
    return {
        "equal": [
            {"trace": "zipf", "agents": 9, "capacity": 3, "calls": 99, "misses": misses, "over_belady": 0.02}
        ],
        "mixed": [mixed],
        "engines": {
            "cpu": {
                "costs": "cpu-90m",
                "source": "a file",
                "agents": 25,
                "device_tokens": 6800,
                "host_tokens": 13_600,
                "footprint": 1088,
                "pool_share": 0.25,
                "tier_share": 0.5,
                "prompt": {"shared": 0, "private": 1024, "fresh": 64, "output": 16},
                "steps": 14,
                "seeds": [1, 2],
                "active": {"interaction": 0.17},
                "traffic": None,
                "classes": plain(classes()),
            }
        },
        "twin": {
            "costs": "cpu-90m-fitted",
            "source": "its ends",
            "steps": 14,
            "seeds": [1, 2],
            "classes": plain(classes()),
        },
        "sweeps": {"active": [place], "agents": [place]},
    }


def measured(figures: Measured | None = None) -> Files:
    return Files(Result(CONDITIONS, classes() if figures is None else figures))


def lines(page: str, start: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith(start)]


def told(figures: Classes) -> dict[str, tuple[str | None, bool | None]]:
    verdicts = {target.what: target.read(figures) for target in TARGETS}
    return {what: (verdict.shown, verdict.met) for what, verdict in verdicts.items()}


def test_everything_there_is_shown_with_its_command() -> None:
    page = render(replace(measured(), policy=policy()))
    assert "| both | 2.40 (2.28 to 2.52) | 1.60 (1.50 to 1.70) | 2.40 | 2.40 | 2.00 | 0.500 | 0.200 |" in page
    assert "- pool tokens: 6800" in page and "- active: interaction 16.8%" in page
    assert lines(page, "| noise_25 |")[0].count(NOT_RUN) == 11
    assert "make bench-engine FULL=1" in page and "make bench-policy" in page
    assert "| interaction | 1.31 | 2.40 (shuffled 1.50, ceiling not run) |" in page
    assert "1.74x" in page and "doubtful" in page
    assert "| 500 | 20% | 15 | 3 | 1.00 | 1.60 | 1.30 |" in page


def test_no_measured_figure_is_forgotten() -> None:
    intervals = {f"{key}_{end}" for key in ("makespan_ratio", "over_shuffled") for end in ("low", "high")}
    shown = {key for _, key, _ in COLUMNS}
    assert shown | set(ABSOLUTE) | intervals == set(Numbers.__struct_fields__)


def test_the_daemons_own_order_is_left_out_where_it_is_shuffled_on_the_way() -> None:
    rows = measured_rows(measured().vllm)["interaction"]
    assert rows["shuffled"]["order_accuracy"] is None
    assert rows["history"]["order_accuracy"] == 0.6


def test_a_page_of_nothing_says_that_nothing_was_run() -> None:
    page = render(Files())
    assert page.count(NOT_RUN) >= len(TARGETS)
    assert "- vLLM: not run yet." in page and "- SGLang: not run yet." in page
    assert "Not run yet: `make bench-policy`." in page
    assert " met" not in page.split("## Where")[0] and "**missed**" not in page


def test_what_is_not_measured_yet_is_named() -> None:
    page = render(replace(measured(), policy=policy()))
    assert "| mixed |  | not run | not run |" in page
    assert lines(page, "- Not run yet: the class mixed") and lines(page, "- SGLang: not run yet.")
    assert "## Measured: SGLang\n\nNot run yet: `make bench-engine ENGINE=sglang FULL=1`." in page
    assert "SGLang, measured" not in page
    assert "10,000 and 100,000 agents: not run (`make bench-policy SCALE=1`)." in page
    largest = policy()["sweeps"]["agents"][0] | {"agents": 10_000, "seeds": 1}
    page = render(Files(policy=policy(), scale={"agents": [largest]}))
    assert "| 10,000 | 20% | 15 | 1 |" in page and "100,000" not in page


def test_a_second_measured_engine_stands_beside_the_first(tmp_path: Path) -> None:
    figures = classes()
    figures["interaction"]["both"] = row(1.2, 0.6, over_shuffled=1.05, ttft_over_host_lru=0.9)
    second = Result(msgspec.structs.replace(CONDITIONS, engine="SGLang 0.5.23"), figures)
    write(measured().vllm or second, tmp_path / "engine-vllm.json")
    write(second, tmp_path / "engine-sglang.json")
    page = render(load(tmp_path))
    assert "| class | reported by the paper (order inferred) | vLLM, measured | SGLang, measured |" in page
    assert "| 2.40 (shuffled 1.50, ceiling not run) | 1.20 (shuffled 1.50, ceiling not run) |" in page
    assert lines(page, "| makespan of both over alone, interaction |")[0].endswith(
        "| 2.40, met | 1.20, **missed** |"
    )
    assert lines(page, "- SGLang, measured: makespan of both over alone, interaction is 1.20;")
    assert "- SGLang: not run yet." not in page
    _, of_vllm, of_sglang = page.split("## Measured: ")
    assert "- engine: vLLM\n" in of_vllm and "| both | 2.40 (2.28 to 2.52) |" in of_vllm
    assert "- engine: SGLang 0.5.23\n" in of_sglang and "| both | 1.20 (1.14 to 1.26) |" in of_sglang
    by = "Written by `make bench-engine ENGINE=sglang FULL=1`."
    assert by in of_sglang and by not in of_vllm


def test_targets_are_judged() -> None:
    found = told(plain(classes()))
    assert found["makespan of both over alone, best class"] == ("2.40 (interaction)", True)
    assert found["makespan of both over alone, interaction"] == ("2.40", True)
    assert found["mean TTFT of both below host_lru's, best class"] == ("50% (interaction)", True)
    assert found["both over shuffled in makespan, interaction"] == ("1.60 (clairvoyant 1.67)", True)
    saving = "saving in recomputed tokens over clairvoyant's, interaction"
    assert found[f"both's {saving}"] == ("0.976 (adversarial 0.366, order accuracy 0.90)", True)
    assert found[f"history's {saving}"] == ("0.488 (adversarial 0.366, order accuracy 0.60)", False)
    harm = "adversarial: recomputed tokens over alone's, worst class"
    assert found[harm] == ("1.020 (interaction, no host tier)", True)
    assert all(met is None for _, met in told({}).values())


def test_an_adversary_with_a_tier_counts_where_there_is_no_other() -> None:
    figures = classes()
    del figures["interaction"]["adversarial_no_tier"]
    harm = "adversarial: recomputed tokens over alone's, worst class"
    assert told(plain(figures))[harm] == ("0.700 (interaction, with our tier)", True)


def test_nothing_is_a_share_of_no_saving() -> None:
    figures = classes()
    figures["interaction"]["clairvoyant"] = row(1.0, 1.01)
    saving = "both's saving in recomputed tokens over clairvoyant's, interaction"
    assert told(plain(figures))[saving] == (None, None)


def test_what_is_worse_is_never_left_out() -> None:
    figures = classes()
    figures["path"]["both"] = row(0.9, 1.1, failed_requests=2, ttft_p95_ratio=0.8)
    found = list(worse("vLLM, measured", plain(figures)))
    assert sum("path, both" in line for line in found) == 5
    for words in ("interval wholly below 1.0", "history's saving", "2 requests failed", "paper reported"):
        assert any(words in line for line in found)
    page = render(measured(figures))
    assert all(f"- {line}" in page for line in found)


def test_what_should_gain_and_does_not_is_named() -> None:
    figures = classes()
    village = figures["interaction"]
    village |= {
        "evict_only": row(2.4, 0.2),
        "both_no_tier": row(1.05, 0.9),
        "host_lru": row(1.2, 0.8, ttft_p95_ratio=2.5),
        "adversarial": row(1.6, 0.6),
    }
    found = list(worse("vLLM", plain(figures)))
    for words in (
        "both's 2.40 is not above evict_only's 2.40",
        "without a host tier both gains little (1.05)",
        "95th percentile of TTFT of both is above host_lru's (ratios 2.40 and 2.50)",
        "history saves no more than adversarial (0.488 and 0.488",
    ):
        assert any(words in line for line in found)
        assert not any(words in line for line in worse("vLLM", plain(classes())))


def test_sweeps_and_policies_that_miss_are_named() -> None:
    figures = policy()
    fine = set(worse_anywhere(Files(policy=figures)))
    figures["mixed"].append(figures["mixed"][0] | {"held": 2.5, "over_gdsf": 0.03})
    figures["mixed"].append(figures["mixed"][0] | {"over_gdsf": 0.01})
    figures["sweeps"]["agents"] = [
        figures["sweeps"]["agents"][0] | {"variants": {"both": plain(row(0.9)), "shuffled": plain(row(1.0))}}
    ]
    found = set(worse_anywhere(Files(policy=figures))) - fine
    for words in (
        "worst trace: +1.0%",
        "2.5 items held",
        "500 agents",
        "both's 0.90 is not above shuffled's",
    ):
        assert any(words in line for line in found)


def test_the_simulator_is_judged_by_the_pairs_it_foretells() -> None:
    files = replace(measured(), policy=policy())
    assert {(pair.name, pair.variant) for pair in pairs(files)} >= {
        ("path", "both"),
        ("interaction", "history"),
    }
    assert "alone" not in {pair.variant for pair in pairs(files)}
    assert next(counted(files))[2].met
    figures = classes()
    figures["interaction"] = {
        name: row(3 * one.makespan_ratio) for name, one in classes()["interaction"].items()
    }
    far = replace(measured(figures), policy=policy())
    verdict = next(counted(far))[2]
    assert (verdict.shown, verdict.met) == ("1 of 9", False)
    page = render(far)
    assert "foretells 2.40 where 7.20 was measured (-67%, more than 15% off)" in page
    assert "| interaction | both | 7.20 | 2.40 | **-67%** | 1.000 | 0.200 |" in page
    assert next(counted(measured()))[2].met is None
    other = replace(far, policy=policy() | {"twin": policy()["twin"] | {"seeds": [3, 4]}})
    assert not pairs(other) and "Not run yet: `make bench-engine FULL=1`, and then" in render(other)


def test_plots_show_every_source_and_the_papers_marks(tmp_path: Path) -> None:
    figures = classes()
    # A median outside of its interval.
    figures["path"]["both"] = row(1.9, makespan_ratio_low=1.95)
    draw(replace(measured(figures), policy=policy()), tmp_path / "new")
    makespans = (tmp_path / "new" / "makespan.svg").read_text(encoding="utf-8")
    for word in ("vLLM, measured", "cpu, simulated", "1.74", "doubtful"):
        assert word in makespans
    assert "<svg" in (tmp_path / "new" / "sweeps.svg").read_text(encoding="utf-8")


def test_the_committed_page_is_what_the_committed_figures_give() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == render(load(ROOT / FOLDER))
