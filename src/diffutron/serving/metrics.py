"""What a server counts, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from diffutron.serving.service import Service


class Metrics:
    """Counters of one server; never a text."""

    def __init__(self, service: Service) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "diffutron_requests", "Answered requests", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "diffutron_request_seconds", "Until a request was answered", ["route"], registry=self._registry,
            buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
        )  # fmt: skip
        engine = service.engine
        for name, told, read in (
            ("diffutron_rows_active", "Texts that are being denoised", lambda: engine.num_active),
            ("diffutron_requests_waiting", "Requests that wait", lambda: engine.num_waiting),
            ("diffutron_steps", "Denoiser calls since the start", lambda: engine.steps),
            ("diffutron_tokens", "Tokens committed since the start", lambda: engine.tokens),
        ):
            Gauge(name, told, registry=self._registry).set_function(read)

    def count(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)
