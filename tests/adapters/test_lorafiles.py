"""Which paths are the daemon's links, and which of them mean the same LoRA."""

from __future__ import annotations

import pytest

from scalesim_adapters.lorafiles import supersedes, tells_content

OLD, NEW = "/links/alice-0123456789ab", "/links/alice-ba9876543210"


@pytest.mark.parametrize(
    ("new", "old", "does"),
    [
        (NEW, OLD, True),
        (OLD, OLD, False),
        (NEW, "/links/bob-0123456789ab", False),
        (NEW, "/other/alice-0123456789ab", False),
        (NEW, "", False),
        ("/loras/team-red", "/loras/team-blue", False),
        ("/data/my-loras/alice", "/data/my-loras/bob", False),
    ],
)
def test_only_a_link_to_the_same_lora_is_superseded(new: str, old: str, does: bool) -> None:
    assert supersedes(new, old) is does


def test_only_a_link_tells_its_content() -> None:
    assert tells_content(OLD)
    assert not tells_content("/loras/alice")
    assert not tells_content("/loras/alice-0123456789AB")
