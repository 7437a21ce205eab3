"""``diffutron serve`` as a process of its own, for tests, benchmarks and pictures."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx


class ServerProcess:
    """A server on a free port of this machine, ready when this returns.

    Args:
        model: As for ``--model``.
        options: More options of ``diffutron serve``.
        quiet: Whether what it prints is kept for :meth:`stop` rather than shown.

    Raises:
        RuntimeError: If it ends before it is ready, or is not ready in two minutes; with what it printed.
    """

    def __init__(self, model: str | Path, *options: str, quiet: bool = False) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "diffutron", "serve", "--model", str(model), "--port", str(self.port)]
        kept: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} if quiet else {}
        self.process = subprocess.Popen([*command, "--offline", *options], **kept)  # noqa: S603
        deadline = time.monotonic() + 120
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {self.stop()}")
            time.sleep(0.1)

    def metric(self, name: str) -> float:
        """The value of ``diffutron_NAME`` in ``/metrics``."""
        text = httpx.get(f"{self.url}/metrics", timeout=60).text
        found = re.search(rf"^diffutron_{name} (\S+)$", text, re.M)
        if found is None:
            raise KeyError(f"/metrics has no diffutron_{name}")
        return float(found.group(1))

    def wait_until_idle(self, seconds: float = 30) -> None:
        """Return as soon as no text is being denoised.

        Raises:
            TimeoutError: After so many seconds.
        """
        deadline = time.monotonic() + seconds
        while self.metric("rows_active"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {seconds:g} seconds {self.metric('rows_active'):g} texts are under way")
            time.sleep(0.005)

    def stop(self) -> str:
        """End it as an administrator would, and return what it printed (nothing, unless ``quiet``)."""
        self.process.terminate()
        return self.process.communicate(timeout=60)[0] or ""

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/ready").status_code == 200
        except httpx.HTTPError:
            return False


def free_port() -> int:
    """A port of this machine on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
