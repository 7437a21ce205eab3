"""The process: granian, one worker, one model."""

from __future__ import annotations

import os

from granian import Granian
from granian.constants import Interfaces, Loops
from granian.http import HTTP1Settings

from diffutron.errors import InputError
from diffutron.serving.app import create_app
from diffutron.serving.guards import Guard
from diffutron.serving.service import Service
from diffutron.serving.settings import ServeSettings

_SETTINGS = "DIFFUTRON_SERVE"
"""The worker is a process of its own, and finds its settings here."""


def serve(settings: ServeSettings) -> None:
    """Serve until told to stop; what is under way may finish.

    Raises:
        InputError: the port is taken.
    """
    os.environ[_SETTINGS] = settings.model_dump_json()
    server = Granian(
        f"{__name__}:create", factory=True, interface=Interfaces.ASGI, address=settings.host, port=settings.port,
        workers=1, loop=Loops.asyncio, log_access=False, websockets=False,
        http1_settings=HTTP1Settings(header_read_timeout=int(settings.header_seconds * 1000)),
        workers_kill_timeout=int(settings.drain_seconds) + 10,
    )  # fmt: skip
    try:
        server.serve()
    except OSError as error:
        raise InputError(f"{settings.host}:{settings.port} cannot be listened on: {error.strerror or error}") from None


def create() -> Guard:
    """The application of a worker."""
    return create_app(Service(ServeSettings.model_validate_json(os.environ[_SETTINGS])))
