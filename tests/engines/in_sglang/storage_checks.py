"""Checks of our storage against SGLang's own classes. They run in the engine's environment:
`tests/engines/test_sglang_storage.py` runs this file."""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file
from sglang.srt.mem_cache.hicache_storage import HiCacheStorageConfig
from sglang.srt.mem_cache.storage.backend_factory import StorageBackendFactory

from scalesim_adapters.dues import DueTable
from scalesim_adapters.sglang.plugin import storage
from scalesim_adapters.sglang.plugin.storage import NO_STORAGE, HostStorage

BYTES = 1 << 20
PAGE = torch.arange(1024, dtype=torch.float32)
A, B = "aa" * 32, "bb" * 32
POOL = SimpleNamespace(
    get_dummy_flat_data_page=lambda: torch.zeros_like(PAGE),
    dtype=PAGE.dtype,
    layout="layer_first",
    page_size=32,
)
RANKS = dict.fromkeys(("tp_rank", "pp_rank", "attn_cp_rank"), 0)
SIZES = dict.fromkeys(("tp_size", "pp_size", "attn_cp_size"), 1)


class Scene:
    """A folder with weights, a LoRA and a segment, the server's arguments, and what is logged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("model", "lora"):
            (folder / name).mkdir()
            self.write(name, 1)
        loras = [{"lora_name": "a", "lora_path": str(folder / "lora")}]
        self.arguments: dict[str, Any] = {
            "load_format": "auto",
            "model_path": str(folder / "model"),
            "lora_paths": loras,
            "dtype": "float32",
            "port": 1,
            "lora_target_modules": {"q_proj", "k_proj"},
        }
        self.said: list[str] = []

    def write(self, name: str, value: float) -> None:
        """Write a model's or a LoRA's weights."""
        save_file({"w": torch.full((8,), value)}, self.folder / name / "model.safetensors")

    def open(
        self, *, table: DueTable | None = None, told: bool = True, extra: Any = None, **ranks: int
    ) -> HostStorage:
        """Make a storage as SGLang does, after our plug-in was `told`, or not."""
        options = {"backend_name": "scalesim", "module_path": storage.__name__, "class_name": "HostStorage"}
        options |= {"segment": str(self.folder / "segment"), "bytes": BYTES} | (extra or {})
        config = HiCacheStorageConfig(
            **{**RANKS, **SIZES, **ranks},
            is_mla_model=False,
            enable_storage_metrics=False,
            is_page_first_layout=False,
            model_name="tiny",
            extra_config=options,
        )
        made = StorageBackendFactory.create_backend("dynamic", config, POOL)
        assert isinstance(made, HostStorage)
        if told:
            made.follow(table)
        context = SimpleNamespace(resolved_server_args_dict=lambda: dict(self.arguments))
        with mock.patch.object(storage, "get_context", lambda: context):
            made.register_mem_pool_host(POOL)
        return made


def check_a_page_comes_back_as_it_was_from_a_later_process_too(scene: Scene) -> None:
    first = scene.open()
    assert first.batch_set([A, B], [PAGE, PAGE + 1])
    assert first.batch_exists([A, B, "cc"]) == 2
    found = first.batch_get([B, "cc", A], [torch.zeros_like(PAGE) for _ in range(3)])
    assert torch.equal(found[0], PAGE + 1) and found[1] is None and torch.equal(found[2], PAGE)
    first.close()
    assert not first.exists(A)
    later = scene.open()
    found = later.batch_get([A], [torch.zeros_like(PAGE)])
    assert torch.equal(found[0], PAGE)
    later.clear()
    assert not later.exists(A) and later.held() == 0
    later.close()


def check_what_belongs_to_anything_else_is_discarded(scene: Scene) -> None:
    def kept() -> bool:
        """Tell whether a page that was stored before is there, and store one."""
        made = scene.open()
        there = made.exists(A)
        made.set(A, PAGE)
        made.close()
        return there

    changes: list[tuple[str, Any, bool]] = [
        ("port", 2, True),
        ("lora_target_modules", {"k_proj", "q_proj"}, True),
        ("lora_target_modules", {"k_proj"}, False),
        ("dtype", "bfloat16", False),
        ("not known yet", 1, False),
        ("lora_paths", [], False),
    ]
    assert (kept(), kept()) == (False, True)
    for name, value, same in changes:
        scene.arguments[name] = value
        assert kept() == same, name
        assert kept()
    scene.arguments["lora_paths"] = [{"lora_name": "a", "lora_path": str(scene.folder / "lora")}]
    for name in ("model", "lora"):
        kept()
        scene.write(name, 2)
        assert not kept(), name
    for name in ("dtype", "page_size", "layout"):
        with mock.patch.object(POOL, name, "another"):
            assert not kept(), name
    scene.arguments["load_format"] = "dummy"
    assert not kept()
    assert not kept(), "nobody knows what random weights there will be"


def check_while_the_weights_change_nothing_is_found_or_taken_in(scene: Scene) -> None:
    made = scene.open()
    made.set(A, PAGE)
    made.close_down()
    made.set(B, PAGE)
    assert not made.exists(A) and not made.exists(B)
    made.open_up()
    assert not made.exists(A) and not made.exists(B)
    made.set(B, PAGE)
    assert made.exists(B)
    made.clear()
    made.set(B, PAGE)
    made.close()
    attached = scene.open()
    assert not attached.exists(B), "the weights of the next process aren't those in memory"
    attached.void()
    attached.set(B, PAGE)
    attached.clear()
    attached.set(B, PAGE)
    assert attached.exists(B)
    attached.close()
    assert not scene.open().exists(B), "nor those under which it was attached later"


def check_where_it_cannot_be_had_it_says_why_and_takes_in_nothing(scene: Scene) -> None:
    reasons = {
        "the plug-in is off: set SCALESIM_DUES": {"told": False},
        "several workers": {"tp_size": 2},
        "Expected `int`": {"extra": {"bytes": "much"}},
        "Expected `str`, got `null`": {"extra": {"segment": None}},
        f"needs {1 << 50:,} bytes": {"extra": {"bytes": 1 << 50}},
        "too few for one page": {"extra": {"bytes": 4096}},
    }
    for reason, how in reasons.items():
        refused = scene.open(**how)
        assert refused.batch_set([A], [PAGE]) is True
        assert refused.batch_exists([A]) == 0 and refused.batch_get([A], [PAGE]) == [None]
        assert refused.held() == 0
        refused.close()
        (line,) = scene.said
        assert line.startswith(f"{NO_STORAGE}: ") and reason in line, line
        scene.said.clear()
    holder = scene.open()
    scene.open().set(A, PAGE)
    assert not holder.exists(A)
    assert "used by another process" in scene.said.pop()


def check_other_kinds_of_pages_end_it(scene: Scene) -> None:
    made = scene.open()
    made.set(A, PAGE)
    made.register_mem_host_pool_v2(POOL, storage.PoolName.KV)
    assert made.exists(A)
    made.register_mem_host_pool_v2(POOL, storage.PoolName.SWA)
    assert not made.exists(A)
    assert "more than plain full attention" in scene.said.pop()
    transfer = SimpleNamespace(name="swa", keys=[A])
    assert made.batch_exists_v2([A], [transfer]).kv_hit_pages == 0
    assert made.batch_get_v2([transfer]) == {"swa": [False]}


def main() -> None:
    """Run all checks; the first that fails ends the process with its traceback."""
    log = logging.getLogger("sglang.scalesim")
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
                scene = Scene(Path(folder))
                handler = logging.Handler(logging.ERROR)
                handler.emit = lambda record, scene=scene: scene.said.append(record.getMessage())
                log.addHandler(handler)
                check(scene)
                log.removeHandler(handler)
                assert scene.said == [], name
            print(name, file=sys.stderr)


if __name__ == "__main__":
    main()
