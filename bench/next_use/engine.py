"""A real vLLM with the plug-in, on the smallest model, with a KV pool for some of the agents' prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from bench.next_use.recording import BLOCK_TOKENS, PROMPT_BLOCKS, Recording
from bench.next_use.voices import Voice, await_that
from bench.rig.process import MODELS
from bench.rig.vllm import PLUGIN_ENVIRONMENT, VllmServer, sidecar_flags
from scalesim_client.events import InvocationFinished, InvocationStarted, StepAdvanced

SCHEDULER: Final = "scalesim_adapters.vllm.plugin.scheduler.DueScheduler"
# A request of a loaded machine may take longer than the default; nobody falls silent here while another plays.
SILENCE_SECONDS: Final = 60.0
BY_DUE: Final = "evicting by due"
SCRAP: Final = [1] * 8  # less than a block: what it leaves behind is no content


@dataclass(frozen=True, slots=True)
class Share:
    """Prompt tokens of all calls, and those of them that were served from the device's cache."""

    prompt_tokens: int
    cached_tokens: int

    @property
    def cached(self) -> float:
        """The share, in 0..1."""
        return self.cached_tokens / self.prompt_tokens


class Engine:
    """Plays recordings, one request at a time."""

    def __init__(self, server: VllmServer, client: httpx.Client) -> None:
        self._server = server
        self._client = client

    def play(self, recording: Recording, voice: Voice) -> Share:
        """Play a recording on the emptied cache, with a voice that hears what the simulation says.

        The calls of a step are sent one after the other, so that their order and with it every count is the same each
        time. What an agent says after its step's calls is said after its own.
        """
        self._post("/reset_prefix_cache")
        position = prompt_tokens = cached_tokens = 0
        voice.say(StepAdvanced(now=0), *recording.opening)
        for step in recording.steps:
            voice.say(StepAdvanced(now=step.now), *step.before)
            left = list(step.after)
            for call in step.calls:
                voice.say(InvocationStarted(agent=call.agent))
                # What we have heard the plug-in's own thread hears at the latest while this is served.
                self.ask(None, SCRAP)
                prompt = recording.prompt(position)
                cached_tokens += self.ask(f"{recording.simulation}/{call.agent}", prompt)
                prompt_tokens += len(prompt)
                position += 1
                own = [event for event in left if getattr(event, "agent", None) == call.agent]
                left = [event for event in left if event not in own]
                voice.say(InvocationFinished(agent=call.agent), *own)
            if left:
                voice.say(*left)
        return Share(prompt_tokens, cached_tokens)

    def ask(self, session: str | None, prompt: list[int]) -> int:
        """Send a prompt; return how many of its tokens were cached."""
        body = {"model": "base", "prompt": prompt, "max_tokens": 1, "temperature": 0, "session_id": session}
        usage = self._post("/v1/completions", body).json()["usage"]
        return int(usage["prompt_tokens_details"]["cached_tokens"])

    def await_daemon(self) -> None:
        """Wait until the plug-in hears the daemon. Raises `NotHeard` where it doesn't."""

        def follows() -> bool:
            self.ask(None, SCRAP)
            return BY_DUE in self._server.log.read_text(errors="replace")

        await_that(follows)

    def _post(self, path: str, body: object = None) -> httpx.Response:
        return self._client.post(path, json=body).raise_for_status()


@contextmanager
def engine(folder: Path, agents: int, dues: str) -> Iterator[Engine]:
    """Run an engine with a pool for the prompts of so many agents, whose plug-in listens at `dues`; its log and
    sockets lie in `folder`."""
    options = {"scalesim": {"dues": dues, "silence_seconds": SILENCE_SECONDS}}
    longest = PROMPT_BLOCKS * BLOCK_TOKENS
    flags = [
        *sidecar_flags(folder, agents * longest, max_model_len=longest, block_size=BLOCK_TOKENS),
        *("--scheduler-cls", SCHEDULER, "--additional-config", json.dumps(options)),
    ]
    environment = {**PLUGIN_ENVIRONMENT, "VLLM_SERVER_DEV_MODE": "1"}  # for /reset_prefix_cache
    with (
        VllmServer(MODELS / "tiny", flags, run=folder, env=environment) as server,
        httpx.Client(base_url=server.url, timeout=120) as client,
    ):
        yield Engine(server, client)
