"""Between the network and the routes: the key, the size and pace of a body, and where a page may come from."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from diffutron.serving.engine import QueueFull
from diffutron.serving.errors import error_body
from diffutron.serving.settings import LOOPBACK, ServeSettings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/health", "/ready")
"""what is answered without a key"""
_HEADERS = [
    (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"), (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"),
]  # fmt: skip


class Guard:
    """ASGI middleware. A body is read whole before the application sees any of it.

    Args:
        full: what a request that needs the model is told when too many wait. It is told so before its body is read:
            refusing must cost next to nothing when there is most to refuse.
        on_response: told the route's path, the status and the seconds of every answer.
    """

    def __init__(
        self, app: App, settings: ServeSettings, *, full: Callable[[], QueueFull | None] = lambda: None,
        on_response: Callable[[Scope, int, float], None] = lambda *_: None,
    ) -> None:  # fmt: skip
        self.app, self.settings, self.full, self.on_response = app, settings, full, on_response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, answered = time.monotonic(), [0]

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered[0] = message["status"]
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        try:
            await self._answer(scope, receive, watched)
        finally:
            self.on_response(scope, answered[0], time.monotonic() - begun)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        refusal = self._refusal(scope["path"], headers)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        if scope["method"] == "POST" and scope["path"].startswith("/v1/") and (full := self.full()) is not None:
            await _refuse(send, 429, str(full), retry_seconds=full.retry_seconds)
            return
        try:
            body = await asyncio.wait_for(self._body(headers, receive), self.settings.body_seconds)
        except TimeoutError:
            await _refuse(send, 408, f"the body was not there after {self.settings.body_seconds:g} seconds")
            return
        if body is None:
            await _refuse(send, 413, f"the body is above {self.settings.max_body_bytes:,} bytes")
        else:
            await self.app(scope, _again(body, receive), send)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        settings = self.settings
        host = headers.get(b"host", b"").decode("latin-1")
        if settings.key is None and _name_of(host) not in LOOPBACK:
            # A page elsewhere whose name was made to lead here would be let in by its browser. It has no key.
            return 403, f"this server answers to {', '.join(LOOPBACK)}, not to {host[:80]!r}"
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1").partition("://")[2] != host:
            return 403, "requests of other pages are not answered"
        if settings.key is None or path in OPEN:
            return None
        given = _key_of(headers.get(b"authorization", b""))
        if given is None or not hmac.compare_digest(given, settings.key.encode("utf-8")):
            return 401, "the key is missing or wrong: send it as 'Authorization: Bearer KEY'"
        return None

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes | None:
        """None if it is too long."""
        most, body = self.settings.max_body_bytes, bytearray()
        told = headers.get(b"content-length", b"0")
        if told.isdigit() and int(told) > most:
            return None
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return bytes(body)
            body += message.get("body", b"")
            if len(body) > most:
                return None
            if not message.get("more_body", False):
                return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """The body in one piece, and then whatever comes, which is that the client goes."""
    given = [False]

    async def replay() -> Message:
        if not given[0]:
            given[0] = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay


async def _refuse(send: Send, status: int, message: str, *, retry_seconds: int | None = None) -> None:
    body = json.dumps(error_body(message, status)).encode("utf-8")
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="diffutron", charset="UTF-8"'))
    if retry_seconds is not None:
        headers.append((b"retry-after", str(retry_seconds).encode()))
    if status in (408, 413):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _key_of(authorization: bytes) -> bytes | None:
    """A bearer token, or the password that a browser asked for."""
    kind, _, value = authorization.partition(b" ")
    if kind.lower() == b"bearer":
        return value.strip()
    if kind.lower() == b"basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return None
    return None


def _name_of(host: str) -> str:
    """A host's name without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
