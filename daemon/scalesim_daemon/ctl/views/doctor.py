"""What an engine lets the sidecar do."""

from __future__ import annotations

from rich.console import Group, RenderableType

from scalesim_daemon.ctl.views.texts import failure, line, table
from scalesim_daemon.doctor import Diagnosis, abilities
from scalesim_daemon.setting_values import redacted


def diagnosis(found: Diagnosis) -> RenderableType:
    """What an engine allows, and what it would take to allow more."""
    if found.info is None:
        return failure(f"{redacted(found.url)}: {found.problem}", found.remedy)
    info = found.info
    sizes = [f"models {', '.join(info.base_models)}"]
    if info.device_blocks is not None:
        sizes.append(f"{info.device_blocks} blocks of {info.block_size} tokens")
    if info.max_model_len is not None:
        sizes.append(f"prompts up to {info.max_model_len} tokens")
    if info.lora_slots is not None:
        sizes.append(f"{info.lora_slots} LoRAs on the device")
    rows = [(kind.value, "\n".join(able)) for kind, able in abilities(info).items()]
    lines = [line("Nothing is missing.", "green")]
    if info.missing:
        lines = [line("To allow more, add to the engine:", "bold")]
        # Remedies are for copying: they aren't put into a table, where they would be cut into lines.
        lines += [line(f"  {missing.what}: {missing.remedy}") for missing in info.missing]
    return Group(
        line(f"{info.engine} {info.version} at {redacted(found.url)}", "bold"),
        line(f"  {', '.join(sizes)}"),
        table(("memory", "what the sidecar can do here"), rows),
        *lines,
    )
