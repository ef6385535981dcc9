"""Cost models: presets, files, and what is said of a bad one."""

import json
from pathlib import Path

import msgspec
import pytest

from scalesim_daemon.whatif.costs import CPU_90M, H100_QWEN_7B, PRESETS, CostError, load_costs, save_costs


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_known_by_name_and_name_their_sources(name: str) -> None:
    assert load_costs(name).name == name
    assert len(load_costs(name).source) > 80


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    save_costs(CPU_90M, tmp_path / "costs.yaml")
    assert load_costs(str(tmp_path / "costs.yaml")) == CPU_90M


def test_json_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(msgspec.to_builtins(H100_QWEN_7B)))
    assert load_costs(str(path)) == H100_QWEN_7B


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"step_seconds": 0}, "step_seconds"),
        ({"prefill_token_seconds": -1}, "prefill_token_seconds"),
        ({"prefill_token_seconds": float("nan")}, "prefill_token_seconds"),
        ({"decode_request_seconds": float("inf")}, "finite"),
        ({"device_tokens": 0}, "device_tokens"),
        ({"host_token_seconds": "fast"}, "host_token_seconds"),
        ({"hots_token_seconds": 1}, "hots_token_seconds"),
    ],
)
def test_numbers_that_no_engine_has_are_refused(change: dict[str, object], said: str, tmp_path: Path) -> None:
    path = tmp_path / "costs.yaml"
    path.write_bytes(msgspec.yaml.encode(msgspec.to_builtins(CPU_90M) | change))
    with pytest.raises(CostError, match=said):
        load_costs(str(path))


def test_a_file_that_is_no_cost_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("a: [")
    for name in (str(tmp_path / "broken.yaml"), str(tmp_path), "h200"):
        with pytest.raises(CostError, match=name):
            load_costs(name)


def test_a_missing_file_names_the_presets() -> None:
    with pytest.raises(CostError, match="presets are h100"):
        load_costs("h200")
