"""What the daemon can be told: by flags, else by `SCALESIM_*` variables, else by a YAML file, else defaults.

A variable names a nested key with two underscores (`SCALESIM_API__PORT`); lists in variables are JSON.
"""

from __future__ import annotations

import os
import re
import socket
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from scalesim_daemon.setting_rules import check_fit
from scalesim_daemon.setting_values import (
    NAME,
    AbsolutePath,
    Endpoint,
    HttpUrl,
    LoopbackHost,
    LoraTemplate,
    PublisherEndpoint,
    RedisUrl,
    RequestTemplate,
    SimulationName,
    is_local,
    is_loopback,
)

ENV_PREFIX = "SCALESIM_"


class ConfigError(Exception):
    """The configuration can't be used; the message names every key at fault and, where known, the remedy."""


class RunMode(StrEnum):
    """`ACTIVE` acts; `PAUSED` observes and does nothing; `OBSERVE` plans and publishes what it would do."""

    ACTIVE = "active"
    PAUSED = "paused"
    OBSERVE = "observe"


def state_dir() -> Path:
    """Return where to keep what outlives the daemon, by the XDG rules: `~/.local/state/scalesim`."""
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "scalesim"


class Section(BaseModel):
    """Base of all sections: immutable, and without room for unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class SubscribeSettings(Section):
    """A publisher that binds `endpoint`, and answers at `replay` for messages that were lost, if it can."""

    endpoint: PublisherEndpoint
    replay: PublisherEndpoint | None = None


class CurveSettings(Section):
    """Who may speak, or hear, over the network: those with a public key (`*.key`) in `clients_dir`, as sources that fit
    a pattern of a line `speaks-for` in it, where it has one. The daemon's own secret is in `server_key_file`. `python
    -m scalesim_client.curve` makes both kinds."""

    server_key_file: AbsolutePath
    clients_dir: AbsolutePath


class FeedSettings(Section):
    """Where events come in: simulations connect to `bind`, or publish at what `subscribe` names. What other hosts reach
    takes keys (`curve`), unless `insecure_no_keys` says that a network keeps strangers out."""

    curve: CurveSettings | None = None
    insecure_no_keys: bool = False
    bind: Endpoint = "tcp://127.0.0.1:5600"
    subscribe: tuple[SubscribeSettings, ...] = ()

    @field_validator("bind")
    @classmethod
    def _guarded(cls, bind: str, info: ValidationInfo) -> str:
        if not (is_local(bind) or info.data.get("curve") or info.data.get("insecure_no_keys")):
            raise ValueError(
                f"{bind!r} is reachable from outside, and anybody who reaches it could bring events: set feed.curve "
                "(`python -m scalesim_client.curve` makes keys), or keep the feed at 127.0.0.1; where a network policy "
                "or a firewall lets in the simulations alone, feed.insecure_no_keys: true takes everybody"
            )
        return bind


class BroadcastSettings(Section):
    """Where dues are published for plug-ins inside engines; null switches it off. What other hosts reach takes keys
    (`curve`), unless `insecure_no_keys` says that a network keeps strangers out."""

    curve: CurveSettings | None = None
    insecure_no_keys: bool = False
    bind: Endpoint | None = "tcp://127.0.0.1:5601"

    @field_validator("bind")
    @classmethod
    def _guarded(cls, bind: str | None, info: ValidationInfo) -> str | None:
        if not (
            bind is None or is_local(bind) or info.data.get("curve") or info.data.get("insecure_no_keys")
        ):
            raise ValueError(
                f"{bind!r} is reachable from outside, and anybody who reaches it could read all agents' names and "
                "dues: set broadcast.curve (`python -m scalesim_client.curve` makes keys), or keep the broadcast at "
                "127.0.0.1; where a network policy or a firewall lets in the engines alone, "
                "broadcast.insecure_no_keys: true tells everybody"
            )
        return bind


class ApiSettings(Section):
    """Where the REST API listens; port 0 takes a free one. With any token set everybody needs one: an admin's does
    everything, a viewer's reads, a publisher's brings events. Each stands here, or alone in a file. Each other host
    may ask `requests_per_second`. Requests that come from `trusted_proxies`, addresses or networks, are those of the
    hosts that they name in `X-Forwarded-For`."""

    port: Annotated[int, Field(ge=0, le=65535)] = 8700
    viewer_token: SecretStr | None = None
    viewer_token_file: AbsolutePath | None = None
    publisher_token: SecretStr | None = None
    publisher_token_file: AbsolutePath | None = None
    admin_token: SecretStr | None = None
    admin_token_file: AbsolutePath | None = None
    requests_per_second: Annotated[float, Field(gt=0)] = 500.0
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    host: str = "127.0.0.1"

    @field_validator("viewer_token_file", "publisher_token_file", "admin_token_file")
    @classmethod
    def _told_once(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        token = str(info.field_name).removesuffix("_file")
        if file is not None and info.data.get(token) is not None:
            raise ValueError(f"{token} is set, too: set one of them")
        return file

    @field_validator("host")
    @classmethod
    def _guarded(cls, host: str, info: ValidationInfo) -> str:
        if not is_loopback(host) and not any(
            info.data.get(key) for key in cls.model_fields if "token" in key
        ):
            raise ValueError(
                f"{host!r} is reachable from outside, and no token is set: set api.admin_token_file (and "
                "viewer_token_file, publisher_token_file), or keep the API at 127.0.0.1 and reach it through an "
                "SSH tunnel"
            )
        return host


class GatewaySettings(Section):
    """Where the OpenAI-compatible gateway listens, while it is `enabled`; port 0 takes a free one. `simulation` is that
    of requests that name none; `agent` is a template over a request's body for those that name no agent."""

    enabled: bool = False
    host: LoopbackHost = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8701
    simulation: SimulationName = "default"
    agent: RequestTemplate | None = None


class SschedulerSettings(Section):
    """For simulations made for the paper's SScheduler, as they are. `enabled`, the API listens on `port` of 127.0.0.1
    too, where that posts its updates, and a request may name its agent as `agent_id`. The agents are `simulation`'s.
    `loras` is the directory of an agent's LoRA (`lora7` for agent 7), in which `{agent_id}` stands for the agent."""

    enabled: bool = False
    port: Annotated[int, Field(ge=1, le=65535)] = 8001
    simulation: SimulationName = "sscheduler"
    loras: LoraTemplate | None = None


class RedisSettings(Section):
    """`url` of a Redis or Valkey, where that is a `cluster` of any of its servers; without one an embedded Valkey
    keeps its data in `data_dir`. Where it isn't `enabled` there is neither, and all that the daemon knows is in its
    memory."""

    enabled: bool = True
    url: RedisUrl | None = Field(default=None, repr=False)
    cluster: bool = False
    data_dir: AbsolutePath = Field(default_factory=lambda: state_dir() / "valkey")


class FleetSettings(Section):
    """Several daemons, each with a `name` of its own and the same `engines`, share one Redis: while it is `enabled`
    each engine is driven by the one that holds its lease. One that is gone is followed within two `lease_seconds`."""

    enabled: bool = False
    name: str = ""
    lease_seconds: Annotated[float, Field(ge=1, le=300, allow_inf_nan=False)] = 5.0

    @field_validator("name")
    @classmethod
    def _named(cls, name: str) -> str:
        host = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname())
        name = name or host[:64].lstrip("-._") or "daemon"
        if not NAME.fullmatch(name):
            raise ValueError(f"name {name!r}: use 1 to 64 letters, digits, dots, dashes and underscores")
        return name


class HostTierSettings(Section):
    """The host tier of one engine's plug-in: `bytes` of shared memory in the file `segment`, which the daemon makes."""

    segment: AbsolutePath
    bytes: Annotated[ByteSize, Field(ge=1, lt=1 << 63)]


class EngineSettings(Section):
    """One engine process. `name` is by default made of kind, host and port.

    `lora_slots` and `lora_host_places` count LoRAs, and `prompt_slots` the prompts that it caches, for engines that
    don't tell. `model_bytes` is what its model takes on the device while it is awake. `tagged` says that all requests
    of an SGLang carry their agent's `session_id`, or that all requests of an engine of kind openai are announced.
    `standby` says that it is another daemon's, on another host: it is driven from here while that one is gone, and then
    its prefixes alone. `api_key` is what its server asks for as a bearer token; it stands here, or alone in a file.
    """

    name: str = ""
    kind: Literal["vllm", "sglang", "openai"] = "vllm"
    url: HttpUrl
    api_key: SecretStr | None = None
    api_key_file: AbsolutePath | None = None
    lora_slots: Annotated[int, Field(ge=1)] | None = None
    lora_host_places: Annotated[int, Field(ge=1)] | None = None
    prompt_slots: Annotated[int, Field(ge=1)] | None = None
    model_bytes: Annotated[ByteSize, Field(ge=1)] | None = None
    tagged: bool = False
    standby: bool = False
    host_tier: HostTierSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("name") and isinstance(data.get("url"), str):
            netloc = urlsplit(data["url"]).netloc.rpartition("@")[2]
            data = {
                **data,
                "name": re.sub(r"[^A-Za-z0-9._-]+", "-", f"{data.get('kind', 'vllm')}-{netloc}")[:64],
            }
        return data

    @model_validator(mode="after")
    def _speakable(self) -> EngineSettings:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r}: use 1 to 64 letters, digits, dots, dashes and underscores")
        return self

    @model_validator(mode="after")
    def _told_once(self) -> EngineSettings:
        told = {
            "api_key": self.api_key,
            "api_key_file": self.api_key_file,
            "a user in its url": "@" in urlsplit(self.url).netloc,
        }
        found = [what for what, given in told.items() if given]
        if len(found) > 1:
            raise ValueError(
                f"{self.name}: {' and '.join(found)} say who the daemon is to it: keep one of them"
            )
        return self


class PlannerSettings(Section):
    """`chunk_tokens` is the most that one prefetch request adds to a cached prefix. `quiet_share` is the
    share of wall time for speculative work on an engine that also serves requests nobody announced."""

    chunk_tokens: Annotated[int, Field(ge=1)] = 256
    quiet_share: Annotated[float, Field(ge=0, le=1)] = 0.02


class LoraSettings(Section):
    """`links_dir` holds the stable links that engines load LoRAs from, `staging_dir` copies in host memory,
    at most `staging_bytes` (also written as `2GiB`). Engines must see both under the same paths. LoRAs lie under one of
    `roots`; with none anywhere, as long as other hosts can't bring events."""

    roots: tuple[AbsolutePath, ...] = ()

    links_dir: AbsolutePath = Field(default_factory=lambda: state_dir() / "loras")
    staging_dir: AbsolutePath = Path("/dev/shm/scalesim")  # nosec B108  # its owner is looked at
    staging_bytes: Annotated[ByteSize, Field(ge=0)] = ByteSize(2 * 1024**3)


class ModelSettings(Section):
    """`budget_bytes` of device memory are shared by the engines that have `model_bytes`: the models of the nearest
    agents are awake. Without it none is put to sleep."""

    budget_bytes: Annotated[ByteSize, Field(ge=1)] | None = None


class RecordSettings(Section):
    """What the daemon hears is written to `path`, at most `max_bytes`, for `scalesimd replay`; prompts in full with
    `content` alone. Where the file is there already, one beside it."""

    path: AbsolutePath | None = None
    content: bool = False
    max_bytes: Annotated[ByteSize, Field(ge=1024)] = ByteSize(1024**3)


class LogSettings(Section):
    """How much is logged, and in which form."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"


class Settings(BaseSettings):
    """All settings. Calling it reads no environment: that is `setting_sources.load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    mode: RunMode = RunMode.ACTIVE
    feed: FeedSettings = FeedSettings()
    broadcast: BroadcastSettings = BroadcastSettings()
    api: ApiSettings = ApiSettings()
    gateway: GatewaySettings = GatewaySettings()
    sscheduler: SschedulerSettings = SschedulerSettings()
    redis: RedisSettings = Field(default_factory=RedisSettings)
    fleet: FleetSettings = Field(default_factory=FleetSettings)
    engines: tuple[EngineSettings, ...] = ()
    planner: PlannerSettings = PlannerSettings()
    loras: LoraSettings = Field(default_factory=LoraSettings)
    models: ModelSettings = ModelSettings()
    record: RecordSettings = RecordSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what is passed and nothing else."""
        return (init_settings,)

    @property
    def lora_roots(self) -> tuple[Path, ...] | None:
        """Where LoRAs may lie, None for anywhere: who is on this host could read most of what the daemon can. In a
        fleet other daemons tell of LoRAs, too."""
        heard = (self.feed.bind, *(publisher.endpoint for publisher in self.feed.subscribe))
        local = all(map(is_local, heard)) and is_loopback(self.api.host) and not self.fleet.enabled
        return None if local and not self.loras.roots else self.loras.roots

    @model_validator(mode="after")
    def _fit(self) -> Settings:
        check_fit(self)
        return self
