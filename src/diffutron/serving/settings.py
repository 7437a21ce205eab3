"""What a server allows, to whom, and for how long."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from diffutron.recipe import Settings

LOOPBACK = ("127.0.0.1", "::1", "localhost")
MIN_KEY = 8
"""characters"""


class ServeSettings(Settings):
    """A server."""

    model: str = "mini"
    """What is served."""
    adapters: tuple[str, ...] = ()
    """LoRA adapters on top of it, the first lowest."""
    host: str = "127.0.0.1"
    """Where it listens; elsewhere than on this machine only with a key."""
    port: int = Field(default=8000, ge=1, le=65535)
    """Its port."""
    key: str | None = Field(default=None, min_length=MIN_KEY)
    """What every request but those for health must bear as a bearer token."""
    fast: bool = False
    """In 8 bits, and between refreshes without the rest of the text."""
    max_rows: int = Field(default=8, ge=1, le=256)
    """Texts that are denoised in one call."""
    max_waiting: int = Field(default=128, ge=1)
    """Requests that may wait; the next gets 429."""
    max_body_bytes: int = Field(default=2_000_000, ge=1000)
    """Of a request."""
    header_seconds: float = Field(default=10.0, gt=0, le=60)
    """Until a request's headers are there, or its connection is closed."""
    body_seconds: float = Field(default=20.0, gt=0, allow_inf_nan=False)
    """Until its body is."""
    request_seconds: float = Field(default=300.0, gt=0, allow_inf_nan=False)
    """Until it is answered, or given up with 503."""
    drain_seconds: float = Field(default=20.0, ge=0, allow_inf_nan=False)
    """For what is under way when the server is told to stop."""

    @model_validator(mode="after")
    def _is_guarded(self) -> Self:
        if self.host not in LOOPBACK and self.key is None:
            raise ValueError(
                f"host {self.host} can be reached from elsewhere: give a key (--key-file, or DIFFUTRON_KEY), or listen "
                "on 127.0.0.1"
            )
        return self
