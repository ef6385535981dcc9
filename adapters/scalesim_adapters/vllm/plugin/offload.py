"""vLLM's KV connector with a host tier by due:
`--kv-transfer-config '{"kv_connector": "HostTierConnector", "kv_connector_module_path":
"scalesim_adapters.vllm.plugin.offload", "kv_role": "kv_both", "kv_connector_extra_config": {"segment": "/dev/shm/tier",
"bytes": 1073741824}}'`.

vLLM's OffloadingConnector stores what is computed, so that a tier holds what the device holds, too; its manager never
learns what the device evicts. A connector does: `bind_gpu_block_pool` gives it the pool, whose collector of metrics is
told of every evicted block and of every reset. What hook does what, in vLLM 0.32:

- `on_new_request`, `request_finished`: whose blocks they are (a request's agent is its `session_id`);
- `get_num_new_matched_tokens`, `update_state_after_alloc` (vLLM's own): what is loaded, asking the manager here;
- `build_connector_meta`, at the end of scheduling: the blocks evicted meanwhile are handed to the tier;
- `handle_preemptions`, in the worker before anything overwrites a block: the moves to the host, and the exchanges;
- `start_load_kv` (vLLM's own): loads that were no exchange;
- the manager's `prepare_store`: stores nothing, and learns what the device has computed.

A reset of the device's prefix cache means that its KV is no longer right (new weights), hence it empties the tier, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import vllm
from vllm.logger import init_logger
from vllm.v1.core.block_pool import BlockPool

from scalesim_adapters.vllm.plugin.versions import refusal

INTERNALS = {
    BlockPool: {
        "get_new_blocks": ("self", "num_blocks"),
        "reset_prefix_cache": ("self",),
        "_maybe_evict_cached_block": ("self", "block"),
    },
}

why = refusal(vllm.__version__, INTERNALS)
if TYPE_CHECKING or why is None:
    from scalesim_adapters.vllm.plugin.connector import HostTierConnector, HostTierSpec
else:
    from scalesim_adapters.vllm.plugin.noconnector import HostTierConnector

    init_logger("vllm.scalesim.tier").warning("no host tier, the engine goes on without it: %s", why)

__all__ = ["HostTierConnector", "HostTierSpec"]
