"""What goes wrong, as OpenAI's clients expect to hear of it."""

from __future__ import annotations

import logging
import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from diffutron.errors import DataError, DiffutronError, InputError, RecipeError
from diffutron.serving.engine import Draining, QueueFull
from diffutron.serving.service import TookTooLong

log = logging.getLogger(__name__)

BROKEN = "an error of the server; its log says more"
_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_body(message: str, status: int, param: str | None = None) -> dict[str, Any]:
    """The body of an answer that says what is wrong."""
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": None}}


def status_of(error: Exception) -> int:
    """The HTTP status of an error."""
    if isinstance(error, QueueFull):
        return 429
    if isinstance(error, Draining | TookTooLong):
        return 503
    return 400 if isinstance(error, InputError | RecipeError | DataError) else 500


def add_error_handlers(app: FastAPI) -> None:
    """Every error becomes one JSON body; none shows a traceback."""

    @app.exception_handler(DiffutronError)
    async def told(request: Request, error: DiffutronError) -> Response:
        status = status_of(error)
        headers = {}
        if status in (429, 503):
            headers["retry-after"] = str(error.retry_seconds if isinstance(error, QueueFull) else 1)
        return JSONResponse(error_body(str(error), status), status_code=status, headers=headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        # Between the names of fields stand those of pydantic's validators.
        place = ".".join(str(part) for part in first["loc"] if part != "body" and re.fullmatch(r"\w+", str(part)))
        message = str(first["msg"]).removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = "is no field of this request"
        return JSONResponse(
            error_body(f"{place}: {message}" if place else message, 400, place or None), status_code=400
        )

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        body = error_body(str(error.detail), error.status_code)
        return JSONResponse(body, status_code=error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        log.error("a request failed", exc_info=error)
        return JSONResponse(error_body(BROKEN, 500), status_code=500)
