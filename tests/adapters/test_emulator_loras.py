"""LoRA slots and host places against a plain model of them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalesim_adapters.emulator.lora_files import read_lora
from scalesim_adapters.emulator.loras import Lora, LoraPlaces, LoraUnreadable
from tests.adapters.emulator_rig import make_lora


@given(st.integers(1, 3), st.integers(0, 3), st.lists(st.integers(0, 6), max_size=40))
def test_places_hold_the_most_recently_used(slots: int, more: int, uses: list[int]) -> None:
    reads: list[str] = []

    def read(path: str) -> int:
        reads.append(path)
        return 10

    places = LoraPlaces(slots, slots + more, read)
    recent: list[int] = []
    for number in uses:
        was_there = number in recent[-(slots + more) :]
        before = len(reads)
        size = places.use(Lora(number, f"lora{number}", f"/loras/{number}"))
        assert (size is None) == was_there == (len(reads) == before)
        recent = [other for other in recent if other != number] + [number]
        assert [lora.id for lora in places.host] == recent[-(slots + more) :]
        assert [lora.id for lora in places.device] == recent[-slots:]


def test_a_failed_read_changes_nothing() -> None:
    def read(path: str) -> int:
        if path == "/gone":
            raise LoraUnreadable("gone", missing=True)
        return 10

    places = LoraPlaces(1, 1, read)
    kept = Lora(1, "kept", "/kept")
    places.use(kept)
    with pytest.raises(LoraUnreadable):
        places.use(Lora(2, "gone", "/gone"))
    assert places.host == places.device == [kept]


def test_files_are_checked_as_an_engine_would(tmp_path: Path) -> None:
    good = make_lora(tmp_path / "good")
    assert read_lora(str(good), 8) == (good / "adapter_model.safetensors").stat().st_size
    with pytest.raises(LoraUnreadable, match="No adapter found for") as missing:
        read_lora(str(tmp_path / "absent"), 8)
    assert missing.value.missing
    wide = make_lora(tmp_path / "wide", rank=16)
    with pytest.raises(LoraUnreadable, match="LoRA rank 16 is greater than max_lora_rank 8") as over:
        read_lora(str(wide), 8)
    assert not over.value.missing
    short = make_lora(tmp_path / "short", weights=(10**6).to_bytes(8, "little"))
    with pytest.raises(LoraUnreadable, match="invalid header length"):
        read_lora(str(short), 8)
    bare = make_lora(tmp_path / "bare")
    (bare / "adapter_model.safetensors").unlink()
    with pytest.raises(LoraUnreadable, match="doesn't contain tensors"):
        read_lora(str(bare), 8)
    (bare / "adapter_config.json").write_text(json.dumps({"no": "rank"}))
    with pytest.raises(LoraUnreadable):
        read_lora(str(bare), 8)
