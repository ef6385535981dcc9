"""Part 3 of what lets SGLang run on a CPU: memory is never pinned, and HiCache copies with torch.

An entry point of SGLang's own plug-in group calls `stand_in` in each of its processes. Replaced are

- `pin_memory` of torch's functions that make tensors, and of tensors: pinning needs an accelerator;
- `_cuda_host_register` of SGLang's host pools, for the same reason;
- `transfer_kv_direct`, a kernel that copies pages of KV between the device and the host, here by indexing.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch

MAKERS = ("empty", "zeros", "ones", "full", "tensor", "arange")


def stand_in() -> None:
    """Replace what this module's text names."""
    for name in MAKERS:
        setattr(torch, name, unpinned(getattr(torch, name)))
    torch.Tensor.pin_memory = lambda tensor, *_: tensor
    from sglang.srt.mem_cache.pool_host import common, mha

    common._cuda_host_register = lambda buffer, granularity=None: None
    mha.transfer_kv_direct = copy_pages


def unpinned(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return a function that makes the same tensor, but never a pinned one."""

    @wraps(make)
    def made(*args: Any, **kwargs: Any) -> torch.Tensor:
        kwargs.pop("pin_memory", None)
        return make(*args, **kwargs)

    return made


def copy_pages(
    src_layers: Sequence[torch.Tensor],
    dst_layers: Sequence[torch.Tensor],
    src_indices: torch.Tensor,
    dst_indices: torch.Tensor,
    page_size: int,
) -> None:
    """Copy tokens' KV from their places in each source layer to theirs in the destination."""
    for source, destination in zip(src_layers, dst_layers, strict=True):
        destination[dst_indices] = source[src_indices].to(destination.device)
