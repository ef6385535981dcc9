"""The engine's counts in Prometheus's text form, under vLLM 0.32's names and labels."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from scalesim_adapters.emulator.engine import Engine

FINISHED_REASONS = ("stop", "length", "abort", "error", "repetition")


def exposition(engine: Engine, started: float) -> bytes:
    """Return everything that `/metrics` says. `started` is in seconds since the epoch.

    Requests whose connection was closed are in no count of finished requests, as in vLLM.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(engine, started))
    return generate_latest(registry)


class _Collector:
    def __init__(self, engine: Engine, started: float) -> None:
        self._engine = engine
        self._started = started
        self._labels = {"engine": "0", "model_name": engine.config.model}

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            value=self._started,
        )
        yield from self._requests()
        yield from self._tokens()
        yield self._cache_config()
        if self._engine.config.max_loras:
            yield self._lora_requests()

    def _requests(self) -> Iterator[Metric]:
        scheduler = self._engine.scheduler
        deferred = len(scheduler.deferred)
        yield self._gauge("num_requests_running", "Requests in the running batch.", len(scheduler.running))
        yield self._gauge("num_requests_waiting", "Requests that wait.", len(scheduler.waiting))
        by_reason = GaugeMetricFamily(
            "vllm:num_requests_waiting_by_reason",
            "Requests that wait, by reason.",
            labels=(*self._labels, "reason"),
        )
        by_reason.add_metric([*self._labels.values(), "capacity"], len(scheduler.waiting) - deferred)
        by_reason.add_metric([*self._labels.values(), "deferred"], deferred)
        yield by_reason
        yield self._gauge(
            "kv_cache_usage_perc", "Share of blocks that requests hold.", self._engine.cache.usage
        )
        finished = CounterMetricFamily(
            "vllm:request_success", "Requests that ended.", labels=("engine", "finished_reason", "model_name")
        )
        for reason in FINISHED_REASONS:
            finished.add_metric(["0", reason, self._engine.config.model], scheduler.totals.finished[reason])
        yield finished
        yield self._counter("num_preemptions", "Requests sent back to waiting.", scheduler.totals.preemptions)
        first = HistogramMetricFamily(
            "vllm:time_to_first_token_seconds",
            "From a request to its first token; in one bucket.",
            labels=tuple(self._labels),
        )
        told = self._engine.first_tokens
        first.add_metric(list(self._labels.values()), [("+Inf", told.count)], told.seconds)
        yield first

    def _tokens(self) -> Iterator[Metric]:
        totals = self._engine.scheduler.totals
        yield self._counter(
            "prefix_cache_queries", "Tokens looked up in the prefix cache.", totals.prefix_queries
        )
        yield self._counter("prefix_cache_hits", "Tokens found in the prefix cache.", totals.prefix_hits)
        yield self._counter("prompt_tokens", "Prompt tokens of requests that generated.", totals.prompt)
        yield self._counter(
            "prompt_tokens_cached", "Prompt tokens found in the prefix cache.", totals.prefix_hits
        )
        yield self._counter("generation_tokens", "Tokens generated.", totals.generated)

    def _cache_config(self) -> Metric:
        config = self._engine.config
        # One block more than requests can use: vLLM keeps one for itself.
        labels = {
            "block_size": str(config.block_size),
            "enable_prefix_caching": "True",
            "engine": "0",
            "kv_cache_size_tokens": str((config.blocks + 1) * config.block_size),
            "num_gpu_blocks": str(config.blocks + 1),
            "prefix_caching_hash_algo": "sha256",
        }
        info = GaugeMetricFamily("vllm:cache_config_info", "The cache's configuration.", labels=tuple(labels))
        info.add_metric(list(labels.values()), 1)
        return info

    def _lora_requests(self) -> Metric:
        scheduler = self._engine.scheduler
        names = sorted({running.chain.lora.name for running in scheduler.running if running.chain.lora})
        # vLLM names the same LoRAs in both labels.
        labels = ("max_lora", "running_lora_adapters", "waiting_lora_adapters")
        info = GaugeMetricFamily("vllm:lora_requests_info", "LoRAs of requests.", labels=labels)
        info.add_metric([str(self._engine.config.max_loras), ",".join(names), ",".join(names)], self._started)
        return info

    def _gauge(self, name: str, what: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"vllm:{name}", what, labels=tuple(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family

    def _counter(self, name: str, what: str, value: float) -> Metric:
        family = CounterMetricFamily(f"vllm:{name}", what, labels=tuple(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family
