"""The routes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from importlib.resources import files
from typing import Any, TypeVar

from fastapi import FastAPI, HTTPException
from fastapi import Request as HttpRequest
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles

from diffutron.errors import InputError
from diffutron.serving.engine import Pause
from diffutron.serving.errors import add_error_handlers
from diffutron.serving.guards import Guard, Scope
from diffutron.serving.metrics import Metrics
from diffutron.serving.reference import reference_page
from diffutron.serving.schemas import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingsRequest,
    FillRequest,
    FimRequest,
    InfillRequest,
    OpenAIFields,
    PerplexityRequest,
    TokenizeRequest,
)
from diffutron.serving.service import Service, TookTooLong, Writing
from diffutron.serving.streams import (
    ChatShape,
    CompletionShape,
    EventStream,
    diffusing,
    failure,
    growing,
    last_steps,
    until,
    usage_of,
)

T = TypeVar("T")

_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request is wrong; the message says where."},
    401: {"description": "The key is missing or wrong."}, 413: {"description": "The body is too long."},
    429: {"description": "Too many requests wait."}, 503: {"description": "It took too long, or the server stops."},
}  # fmt: skip


def create_app(service: Service) -> Guard:
    """The application around a model."""
    settings, metrics = service.settings, Metrics(service)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.engine.close, seconds=settings.drain_seconds)

    app = FastAPI(
        title="diffutron", description="A masked diffusion language model.", lifespan=lifespan, docs_url=None,
        redoc_url=None, responses=_ERRORS,
    )  # fmt: skip
    add_error_handlers(app)
    _add_openai_routes(app, service)
    _add_own_routes(app, service)

    @app.get("/health", tags=["server"])
    async def health() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    @app.get("/ready", tags=["server"])
    async def ready() -> Response:
        """Whether it takes requests."""
        fine = service.engine.is_alive
        return JSONResponse({"status": "ready" if fine else "stopping"}, status_code=200 if fine else 503)

    @app.get("/metrics", tags=["server"], response_class=PlainTextResponse)
    async def show_metrics() -> Response:
        """In Prometheus' format."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(reference_page(app.openapi()))

    _add_page(app)
    _without_422(app)

    def count(scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route")
        metrics.count(getattr(route, "path", "other"), status, seconds)

    return Guard(app, settings, full=lambda: service.full, on_response=count)


def _add_page(app: FastAPI) -> None:
    page = StaticFiles(directory=str(files("diffutron.serving").joinpath("static")))
    for path, name in (("/", "index.html"), ("/app.js", "app.js"), ("/style.css", "style.css")):

        async def show(request: HttpRequest, name: str = name) -> Response:
            return await page.get_response(name, request.scope)

        app.add_route(path, show, methods=["GET", "HEAD"], include_in_schema=False)


def _add_openai_routes(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", tags=["openai"])
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [_model_card(service)]}

    @app.get("/v1/models/{name:path}", tags=["openai"])
    async def model(name: str) -> dict[str, Any]:
        """It, by its name."""
        _check_name(service, name)
        return _model_card(service)

    @app.post("/v1/completions", tags=["openai"])
    async def completions(asked: CompletionRequest, request: HttpRequest) -> Response:
        """Continue a prompt, or with ``suffix`` fill exactly ``max_tokens`` pieces between the two."""
        if asked.suffix is not None and len(asked.prompts) > 1:
            raise InputError("suffix goes with one prompt")

        def make() -> Writing:
            if asked.suffix is not None:
                return service.between(
                    asked.prompts[0], asked.suffix, asked.n, asked.max_tokens, asked.seed, asked.sampler()
                )
            return service.continuation(asked.prompts, asked.n, asked.max_tokens, asked.seed, asked.sampler())

        return await _written(service, request, asked, make, CompletionShape(service.name))

    @app.post("/v1/fim/completions", tags=["openai"])
    async def fim(asked: FimRequest, request: HttpRequest) -> Response:
        """Fill exactly ``max_tokens`` pieces between ``prompt`` and ``suffix``."""

        def make() -> Writing:
            return service.between(asked.prompt, asked.suffix, asked.n, asked.max_tokens, asked.seed, asked.sampler())

        return await _written(service, request, asked, make, CompletionShape(service.name))

    @app.post("/v1/chat/completions", tags=["openai"])
    async def chat(asked: ChatRequest, request: HttpRequest) -> Response:
        """Answer the last message."""
        messages = [message.as_turn for message in asked.messages]

        def make() -> Writing:
            return service.answer(messages, asked.n, asked.room, asked.seed, asked.sampler())

        return await _written(service, request, asked, make, ChatShape(service.name))

    @app.post("/v1/embeddings", tags=["openai"])
    async def embeddings(asked: EmbeddingsRequest, request: HttpRequest) -> dict[str, Any]:
        """The mean of the last layer over each text; experimental."""
        _check_name(service, asked.model)
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        vectors, tokens = await _unless_gone(service, request, service.work(lambda pause: service.embed(texts, pause)))
        data = [{"object": "embedding", "index": place, "embedding": _packed(vector, asked.encoding_format)}
                for place, vector in enumerate(vectors)]  # fmt: skip
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "model": service.name, "data": data, "usage": usage}


def _add_own_routes(app: FastAPI, service: Service) -> None:
    @app.post("/v1/infill", tags=["diffusion"])
    async def infill(asked: InfillRequest, request: HttpRequest) -> Response:
        """Fill the gaps of a text together."""

        choices = {int(gap): words for gap, words in asked.choices.items()}
        making = service.infilling(asked.text, asked.n, asked.max_gap, choices, asked.seed, asked.sampler())
        writing = await _unless_gone(service, request, making)
        steps = service.begin(writing, end=_end_of(service, request), has_waited=True)
        if asked.stream:
            return EventStream(diffusing(service.codec, writing, steps, {"object": "infill.step"}), steps)
        last = await _unless_gone(service, request, last_steps(steps))
        found = [
            {"index": number, "text": writing.read(number, step)[0], **failure(step)}
            for number, step in sorted(last.items())
        ]
        return JSONResponse({"object": "infill", "model": service.name, "choices": found, **writing.extra})

    @app.post("/v1/fill-mask", tags=["diffusion"])
    async def fill_mask(asked: FillRequest, request: HttpRequest) -> dict[str, Any]:
        """The most probable ways to fill every ``[MASK]``, best first."""
        work = service.work(lambda pause: service.fill(asked.text, asked.top_k, asked.targets, pause))
        return {"model": service.name, "ways": await _unless_gone(service, request, work)}

    @app.post("/v1/perplexity", tags=["diffusion"])
    async def perplexity(asked: PerplexityRequest, request: HttpRequest) -> dict[str, Any]:
        """Masked perplexity, and the likelihood bound with its standard error."""
        texts = [asked.text] if isinstance(asked.text, str) else asked.text
        if asked.words and len(texts) > 1:
            raise InputError("words go with one text")

        def do(pause: Pause) -> dict[str, Any]:
            question = service.question(texts[0]) if asked.words else None  # one too long is refused at once
            found = service.perplexity(texts, asked.mask_rate, asked.draws, asked.seed, pause)
            return found if question is None else {**found, "words": service.words(question, pause)}

        return {"model": service.name, **await _unless_gone(service, request, service.work(do))}

    @app.post("/tokenize", tags=["tokens"])
    async def tokenize(asked: TokenizeRequest) -> dict[str, Any]:
        """A text's ids, without special tokens."""
        ids = service.codec.encode(asked.text)
        return {"tokens": ids, "count": len(ids), "max_model_len": service.context}

    @app.post("/detokenize", tags=["tokens"])
    async def detokenize(asked: DetokenizeRequest) -> dict[str, str]:
        """The text of ids; special tokens leave nothing behind."""
        unknown = next((each for each in asked.tokens if each >= len(service.codec)), None)
        if unknown is not None:
            raise InputError(f"there is no token {unknown}: the vocabulary has {len(service.codec)}")
        return {"text": service.codec.decode(asked.tokens)}


def _model_card(service: Service) -> dict[str, Any]:
    return {
        "id": service.name, "object": "model", "created": 0, "owned_by": "diffutron", "context": service.context,
    }  # fmt: skip


def _check_name(service: Service, name: str | None) -> None:
    if name not in (None, service.name):
        raise HTTPException(404, f"the model {name!r} is not served here; {service.name!r} is")


async def _written(
    service: Service, request: HttpRequest, asked: OpenAIFields, make: Callable[[], Writing], shape: CompletionShape
) -> Response:
    """A text, whole or as it comes."""
    _check_name(service, asked.model)
    writing = await _unless_gone(service, request, service.prepare(make))
    steps = service.begin(writing, end=_end_of(service, request))
    if asked.stream and asked.diffusing:
        head = {**shape.head, "object": "diffusion.step"}
        return EventStream(diffusing(service.codec, writing, steps, head), steps)
    if asked.stream:
        usage = bool(asked.stream_options and asked.stream_options.get("include_usage"))
        mask_id = service.codec.mask_id
        return EventStream(growing(writing, steps, asked.stops, shape, mask_id=mask_id, usage=usage), steps)
    last = await _unless_gone(service, request, last_steps(steps))
    choices = []
    for number, step in sorted(last.items()):
        text, ended = writing.read(number, step)
        text, stopped = until(text, asked.stops)
        choice = shape.choice(number, text, "stop" if ended or stopped else "length")
        choices.append({**choice, **failure(step)})
    usage_body = usage_of(writing, last, service.codec.mask_id)
    return JSONResponse({**shape.head, "object": shape.whole, "choices": choices, "usage": usage_body, **writing.extra})


def _end_of(service: Service, request: HttpRequest) -> float:
    """When the request's time is over, on the monotonic clock; it runs from the first time that somebody asks."""
    end: float = request.scope.setdefault("diffutron.end", time.monotonic() + service.settings.request_seconds)
    return end


async def _unless_gone(service: Service, request: HttpRequest, work: Awaitable[T]) -> T:
    """The result; the work is cancelled when the client goes or the time is over."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        left = max(0.0, _end_of(service, request) - time.monotonic())
        done, _ = await asyncio.wait({task, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            return task.result()
        if gone in done:
            raise HTTPException(499, "the client has gone")
        raise TookTooLong(service.settings.request_seconds)
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: HttpRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _packed(vector: list[float], encoding: str) -> list[float] | str:
    return vector if encoding == "float" else base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _without_422(app: FastAPI) -> None:
    """What FastAPI writes of its own validation errors is not how ours look."""
    schema = app.openapi()
    for operation in _operations(schema):
        operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        schema.get("components", {}).get("schemas", {}).pop(name, None)


def _operations(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for methods in schema["paths"].values():
        yield from methods.values()
