"""The process: granian, one worker, one model."""

from __future__ import annotations

import os
import socket

from granian import Granian
from granian.constants import Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels

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
    _check_free(settings)
    os.environ[_SETTINGS] = settings.model_dump_json()
    address = "127.0.0.1" if settings.host == "localhost" else settings.host  # granian takes addresses only
    server = Granian(
        f"{__name__}:create", factory=True, interface=Interfaces.ASGI, address=address, port=settings.port,
        workers=1, loop=Loops.asyncio, log_access=False, websockets=False, log_level=LogLevels.warning,
        http1_settings=HTTP1Settings(header_read_timeout=int(settings.header_seconds * 1000)),
        workers_kill_timeout=int(settings.drain_seconds) + 10,
    )  # fmt: skip
    server.serve()


def _check_free(settings: ServeSettings) -> None:
    """granian shares a port with whoever shares it too; two servers on one would answer by turns."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"{settings.host}:{settings.port} cannot be listened on: {reason}") from None


def create() -> Guard:
    """The application of a worker."""
    return create_app(Service(ServeSettings.model_validate_json(os.environ[_SETTINGS])))
