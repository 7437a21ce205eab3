"""Every route: what it answers, what it refuses and how; no traceback, no 5xx, whatever is sent."""

import asyncio
import copy
import json
import struct
import threading
import time
from base64 import b64decode
from types import SimpleNamespace

import httpx
import pytest
import torch

from diffutron.generation import Generator, Request, SamplerSettings
from diffutron.model import load_model
from diffutron.serving.app import _end_of, create_app
from diffutron.serving.engine import StepEngine, Ticket
from diffutron.serving.service import Service
from diffutron.serving.settings import ServeSettings
from diffutron.testing import TINY_TEXTS, tiny_folder
from diffutron.tokens.codec import TextCodec


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load_model(str(tiny_folder(tmp_path_factory.mktemp("model") / "tiny")))


@pytest.fixture(scope="module")
def service(loaded):
    service = Service(ServeSettings(model="tiny"), loaded)
    yield service
    service.engine.close()


@pytest.fixture(scope="module")
def app(service):
    return create_app(service)


def call(app, method, path, *, host="127.0.0.1", **more):
    async def once():
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            return await client.request(method, path, **more)

    return asyncio.run(once())


@pytest.fixture
def post(app):
    def post(path, body, *, status=200):
        found = call(app, "POST", path, json=body)
        assert found.status_code == status, found.text
        return found.json()

    return post


@pytest.fixture
def events(app):
    def events(path, body):
        found = call(app, "POST", path, json=body)
        assert found.status_code == 200, found.text
        assert found.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in found.text.split("\n\n") if line]
        assert lines.pop() == "[DONE]"
        return [json.loads(line) for line in lines]

    return events


def generated(loaded, prompt, length, *, seed=0, **sampler):
    generator = Generator.of(loaded, TextCodec(loaded.tokenizer))
    [found] = generator.complete([Request(prompt, length, seed)], SamplerSettings(**sampler))
    return found


def test_completions_are_what_the_library_writes(post, loaded):
    body = {"prompt": ["ev", "deniz"], "max_tokens": 8, "n": 2, "seed": 3, "temperature": 0.7}
    found = post("/v1/completions", body)
    assert [choice["index"] for choice in found["choices"]] == [0, 1, 2, 3]
    first = generated(loaded, "ev", 8, seed=3, temperature=0.7)
    assert found["choices"][0]["text"] == first.completion
    assert found["choices"][0]["finish_reason"] == first.finish_reason
    assert found["usage"]["total_tokens"] == found["usage"]["prompt_tokens"] + found["usage"]["completion_tokens"]
    assert found["object"] == "text_completion"


@pytest.mark.parametrize(
    "sampler", [{"temperature": 0.9}, {"temperature": 0, "steps": 3}, {"order": "random", "block_length": 4}]
)
@pytest.mark.parametrize("stop", [None, "ev", ["r", "de"], "a stop that is longer than what there is at first"])
def test_streams_only_grow_and_add_up_to_the_whole(post, events, sampler, stop):
    body = {"prompt": "evlerimizden", "max_tokens": 20, "n": 2, "seed": 5, "stop": stop, **sampler}
    whole = post("/v1/completions", body)
    chunks = events("/v1/completions", {**body, "stream": True, "stream_options": {"include_usage": True}})
    texts, reasons = ["", ""], [None, None]
    for chunk in chunks[:-1]:
        [choice] = chunk["choices"]
        assert reasons[choice["index"]] is None
        texts[choice["index"]] += choice["text"]
        reasons[choice["index"]] = choice["finish_reason"]
    assert texts == [choice["text"] for choice in whole["choices"]]
    assert reasons == [choice["finish_reason"] for choice in whole["choices"]]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]
    for text in texts:
        assert not any(each in text for each in ([stop] if isinstance(stop, str) else stop or []))


def test_diffusing_shows_the_whole_canvas_after_every_step(post, events):
    body = {"prompt": "ev", "max_tokens": 6, "seed": 1}
    steps = events("/v1/completions", {**body, "stream": True, "diffusing": True})
    assert [each["step"] for each in steps] == list(range(1, len(steps) + 1))
    hidden = [sum(cell == [None] for cell in each["cells"]) for each in steps]
    assert hidden == sorted(hidden, reverse=True)
    assert hidden[-1] == 0
    assert [each["done"] for each in steps] == [False] * (len(steps) - 1) + [True]
    assert steps[-1]["text"] == post("/v1/completions", body)["choices"][0]["text"]
    sure = [cell[1] for cell in steps[-1]["cells"] if len(cell) > 1]
    assert all(0 <= each <= 1 for each in sure)
    assert post("/v1/completions", {**body, "diffusing": True}, status=400)["error"]["message"].endswith("stream: true")
    for more in ({"stop": "a"}, {"stream_options": {"include_usage": True}}):
        told = post("/v1/completions", {**body, "stream": True, "diffusing": True, **more}, status=400)["error"][
            "message"
        ]
        assert "knows no stop" in told


def test_chat_answers_and_streams(post, events):
    body = {"messages": [{"role": "developer", "content": "Kısa."}, {"role": "user", "content": "ev ne"}],
            "max_completion_tokens": 6, "temperature": 0.9, "n": 2}  # fmt: skip
    found = post("/v1/chat/completions", body)
    assert found["object"] == "chat.completion"
    assert found["num_forgotten"] == 0
    chunks = events("/v1/chat/completions", {**body, "stream": True})
    texts = ["", ""]
    for chunk in chunks:
        [choice] = chunk["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert [text.strip() for text in texts] == [choice["message"]["content"] for choice in found["choices"]]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    parts = [{"type": "text", "text": "ev "}, {"type": "text", "text": "ne"}]
    body["messages"][1]["content"] = parts
    assert post("/v1/chat/completions", body)["choices"] == found["choices"]
    wrong = post("/v1/chat/completions", {"messages": [{"role": "assistant", "content": "ev"}]}, status=400)
    assert "cannot be answered" in wrong["error"]["message"]


def test_suffix_and_fim_fill_what_lies_between(post):
    body = {"prompt": "[MASK] ve ", "suffix": " ev", "max_tokens": 3, "seed": 2}
    found = post("/v1/completions", body)["choices"][0]["text"]
    assert found
    assert post("/v1/fim/completions", body)["choices"][0]["text"] == found
    assert "[MASK]" not in found
    post("/v1/completions", {**body, "prompt": ["ev", "su"]}, status=400)


def test_infill_keeps_the_text_and_the_choices(post, events):
    body = {"text": "ev [MASK:?] deniz [MASK:2].", "choices": {"1": ["ve", "bir"]}, "n": 2, "max_gap": 4}
    found = post("/v1/infill", body)
    assert len(found["choices"]) == 2
    assert found["lengths"][1] == 2
    for choice in found["choices"]:
        assert choice["text"].startswith(("ev ve deniz ", "ev bir deniz "))
    steps = events("/v1/infill", {**body, "stream": True})
    assert {each["index"] for each in steps if each["done"]} == {0, 1}
    assert "the text has no mask" in post("/v1/infill", {"text": "ev"}, status=400)["error"]["message"]
    assert "there is no gap 3" in post("/v1/infill", {**body, "choices": {"3": ["ev"]}}, status=400)["error"]["message"]


def test_scores_vectors_and_tokens(post, loaded):
    ways = post("/v1/fill-mask", {"text": "ev [MASK] deniz", "top_k": 3})["ways"]
    assert [way["score"] for way in ways] == sorted((way["score"] for way in ways), reverse=True)
    text = TINY_TEXTS[0]
    found = post("/v1/perplexity", {"text": text, "words": True})
    assert found["bound"]["standard_error"] > 0
    assert found["masked"]["perplexity"] > 1
    assert " ".join(word["word"] for word in found["words"]).split() == text.split()
    assert post("/v1/perplexity", {"text": "ev"})["masked"] is None
    post("/v1/perplexity", {"text": ["ev", "su"], "words": True}, status=400)
    two = post("/v1/embeddings", {"input": ["ev", "deniz ve ev"]})
    [one] = post("/v1/embeddings", {"input": "ev", "encoding_format": "base64"})["data"]
    width = loaded.denoiser.model.config.hidden_size
    assert struct.unpack(f"<{width}f", b64decode(one["embedding"])) == pytest.approx(two["data"][0]["embedding"])
    tokens = post("/tokenize", {"text": "evlerimizden </s>"})
    assert tokens["count"] == len(tokens["tokens"]) > 2
    codec = TextCodec(loaded.tokenizer)
    assert not set(tokens["tokens"]) & codec.special_ids - {codec.unk_id}  # what reads as one is text
    assert post("/detokenize", {"tokens": tokens["tokens"]})["text"].strip().startswith("evlerimizden")
    long = post("/v1/embeddings", {"input": ["ev", " ".join(TINY_TEXTS * 20)]}, status=400)
    assert "more than the model's" in long["error"]["message"]
    assert "there is no token" in post("/detokenize", {"tokens": [10**6]}, status=400)["error"]["message"]


def test_the_server_says_how_it_is(app):
    assert call(app, "GET", "/health").json() == {"status": "ok"}
    assert call(app, "GET", "/ready").json() == {"status": "ready"}
    assert call(app, "GET", "/v1/models").json()["data"][0]["id"].endswith("tiny")
    metrics = call(app, "GET", "/metrics").text
    assert 'diffutron_requests_total{route="/health",status="200"}' in metrics
    assert "<h1>diffutron</h1>" in call(app, "GET", "/").text
    docs = call(app, "GET", "/docs").text
    assert "/v1/infill" in docs
    assert "http" not in docs.replace("http-equiv", "")  # nothing from elsewhere
    schema = call(app, "GET", "/openapi.json").json()
    assert "/v1/completions" in schema["paths"]
    assert "422" not in json.dumps(schema)


MANY_LETTERS = ["".join("ev"[n >> bit & 1] for bit in range(6)) + "e" * 190 for n in range(64)]


@pytest.mark.parametrize(("path", "body", "told"), [
    ("/v1/completions", {"promt": "x"}, "promt: is no field"), ("/v1/completions", {"max_tokens": 10**9}, "max_tokens"),
    ("/v1/completions", {"max_tokens": 0}, "max_tokens"), ("/v1/completions", {"n": 99}, "n:"),
    ("/v1/completions", {"temperature": -1}, "temperature"), ("/v1/completions", {"seed": -1}, "seed"),
    ("/v1/completions", {"seed": "3"}, "seed"), ("/v1/completions", {"order": "backwards"}, "order"),
    ("/v1/completions", {"prompt": "ev " * 500}, "the model reads at most"),
    ("/v1/completions", {"frequency_penalty": 1}, "frequency_penalty"),
    ("/v1/completions", {"logprobs": 3}, "logprobs"), ("/v1/completions", {"prompt": [1, 2, 3]}, "prompt"),
    ("/v1/chat/completions", {"messages": []}, "messages"),
    ("/v1/chat/completions", {"messages": [{"role": "tool", "content": "x"}]}, "role"),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "ev"}], "chat_template": "{{ 1 }}"}, "chat_t"),
    ("/v1/infill", {"text": "[MASK:999999]"}, "reads at most"), ("/v1/fill-mask", {"text": "ev"}, "no mask"),
    ("/v1/infill", {"text": "[MASK:400000000]"}, "longer than any"),
    ("/v1/infill", {"text": "[MASK:999999]" * 9000 + "[MASK:?]"}, "reads at most"),
    ("/v1/infill", {"text": f"[MASK:{'9' * 5000}]"}, "longer than any"),
    ("/v1/infill", {"text": "[MASK]", "choices": {"1": ["ev"] * 65}}, "choices"),
    ("/v1/infill", {"text": "[MASK]", "choices": {"1": MANY_LETTERS}}, "too many letters"),
    ("/v1/fill-mask", {"text": "[MASK] " * 65}, "fill takes at most 64"),
    ("/v1/perplexity", {"text": ""}, "no text to measure"), ("/v1/perplexity", {"text": "ev", "draws": 3}, "draws"),
])  # fmt: skip
def test_what_is_wrong_is_named(post, path, body, told):
    found = post(path, body, status=400)
    assert told in found["error"]["message"]
    assert "function-" not in f"{found['error']['message']} {found['error']['param']}"
    assert found["error"]["type"] == "invalid_request_error"


def test_what_clients_leave_to_the_server_they_may_write_as_null(post):
    body = {"prompt": "ev", "max_tokens": 8, "temperature": 0.5}
    nulls = dict.fromkeys(["seed", "n", "stream", "stop", "top_p"])
    assert post("/v1/completions", {**body, **nulls})["choices"] == post("/v1/completions", body)["choices"]


def test_a_prompt_counts_once_and_what_is_hidden_not_at_all(post, events, loaded):
    codec = TextCodec(loaded.tokenizer)
    body = {"prompt": "evlerimizden", "max_tokens": 20, "seed": 5, "temperature": 0.9, "order": "random"}
    given = 1 + len(codec.encode("evlerimizden"))
    assert post("/v1/completions", {**body, "n": 3})["usage"]["prompt_tokens"] == given
    stopped = {**body, "stop": ["r", "e"], "stream": True, "stream_options": {"include_usage": True}}
    *_, last = events("/v1/completions", stopped)
    whole = post("/v1/completions", body)["usage"]
    assert last["usage"]["prompt_tokens"] == whole["prompt_tokens"] == given
    assert 0 < last["usage"]["completion_tokens"] < whole["completion_tokens"]


def test_one_model_is_told_by_its_name(app, service):
    assert call(app, "GET", f"/v1/models/{service.name}").json()["id"] == service.name
    assert call(app, "GET", "/v1/models/gpt-4").status_code == 404
    assert call(app, "POST", "/v1/nothing", json={}).status_code == 404


def test_another_model_is_not_found(post):
    post("/v1/embeddings", {"model": "gpt-4", "input": "ev"}, status=404)
    assert (
        "is not served here"
        in post("/v1/completions", {"model": "gpt-4", "prompt": "ev"}, status=404)["error"]["message"]
    )


HARMFUL = [
    '{"prompt": "\\ud800"}', '{"prompt": NaN}', '{"temperature": NaN}', '{"temperature": Infinity}', "[" * 100_000,
    '{"a":' * 5000 + "1" + "}" * 5000, '{"seed": 1' + "0" * 5000 + "}", '{"prompt": "a\\u0000b", "max_tokens": 2}',
    "", "null", "[]", '"x"', '{"prompt": "x"', "\xff\xfe", '{"max_tokens": 1e400}',
]  # fmt: skip


@pytest.mark.parametrize("body", HARMFUL, ids=range(len(HARMFUL)))
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/infill", "/v1/perplexity", "/tokenize"])
def test_no_body_breaks_anything(app, path, body):
    headers = {"content-type": "application/json"}
    found = call(app, "POST", path, content=body.encode("latin-1"), headers=headers)
    assert found.status_code < 500, found.text
    if found.status_code >= 400:
        assert set(found.json()) == {"error"}


# Who may ask


def guarded(service, **changes):
    settings = ServeSettings(model="tiny", **changes)
    other = copy.copy(service)
    other.settings = settings
    return create_app(other)


def test_without_the_key_only_health_is_answered(service):
    app = guarded(service, key="çok gizli anahtar", host="0.0.0.0")
    key = "çok gizli anahtar".encode()
    for path in ("/health", "/ready"):
        assert call(app, "GET", path).status_code == 200
    for path in ("/", "/v1/models", "/metrics", "/docs", "/openapi.json", "/app.js", "/health/../v1/models"):
        assert call(app, "GET", path).status_code == 401, path
        assert call(app, "GET", path, headers={"authorization": "Bearer wrong"}).status_code == 401
        fine = call(app, "GET", path, headers={b"authorization": b"Bearer " + key})
        assert fine.status_code == 200, path
    for wrong in (b"Bearer", b"Bearer ", b"Basic !!!", b"Basic", b"", b"Bearer " + key + b"x", b"bearer  "):
        assert call(app, "GET", "/v1/models", headers={b"authorization": wrong}).status_code == 401
    assert call(app, "GET", "/v1/models", auth=("anyone", "çok gizli anahtar")).status_code == 200


def test_a_key_is_needed_to_listen_elsewhere():
    with pytest.raises(ValueError, match="can be reached from elsewhere"):
        ServeSettings(host="0.0.0.0")
    with pytest.raises(ValueError, match="at least 8"):
        ServeSettings(host="0.0.0.0", key="short")


def test_other_pages_and_other_names_are_refused(app):
    assert call(app, "GET", "/health", headers={"host": "evil.example"}).status_code == 403
    assert call(app, "GET", "/health", headers={"origin": "http://evil.example"}).status_code == 403
    assert call(app, "GET", "/health", headers={"origin": "null"}).status_code == 403
    assert call(app, "GET", "/health", headers={"origin": "http://127.0.0.1"}).status_code == 200
    assert call(app, "GET", "/health", host="localhost:8000").status_code == 200


def test_bodies_are_limited_in_size_and_time(service, app):
    assert call(app, "POST", "/tokenize", content=b"x" * 2_000_001).status_code == 413

    async def endless():
        while True:
            yield b"x" * 100_000

    assert call(app, "POST", "/tokenize", content=endless()).status_code == 413

    async def slow():
        yield b"{"
        await asyncio.sleep(5)
        yield b"}"

    assert call(guarded(service, body_seconds=0.2), "POST", "/tokenize", content=slow()).status_code == 408


def test_headers_keep_pages_of_others_out(app):
    headers = call(app, "GET", "/").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]


@pytest.mark.parametrize("work", [
    lambda service, pause: service.embed(["ev", "deniz"], pause),
    lambda service, pause: service.fill("ev [MASK] [MASK]", 2, None, pause),
    lambda service, pause: service.perplexity(["evlerimizden"], 0.5, 2, 0, pause),
    lambda service, pause: service.words(service.question("evlerimizden"), pause),
])  # fmt: skip
def test_texts_take_their_steps_outside_of_inference_mode_whatever_is_done_beside_them(service, work):
    # A tensor that is made inside cannot be written to outside: every later text would fail.
    modes = []
    work(service, lambda: modes.append(torch.is_inference_mode_enabled()))
    assert modes
    assert not any(modes)


def test_all_parts_of_a_request_share_its_time(service):
    request = SimpleNamespace(scope={})
    end = _end_of(service, request)
    assert end == pytest.approx(time.monotonic() + service.settings.request_seconds, abs=1)
    time.sleep(0.002)
    assert _end_of(service, request) == end


@pytest.mark.parametrize("filters", [{}, {"top_p": 0.9, "top_k": None}, {"top_k": 3}, {"min_p": 0.1, "top_k": None}])
def test_temperature_near_the_least_float_is_that_of_the_most_probable_token(post, filters):
    texts = {
        post("/v1/completions", {"prompt": "ev", "max_tokens": 8, "temperature": temperature, **filters})
        ["choices"][0]["text"]
        for temperature in (1e-6, 1e-40, 1e-308, 5e-324)
    }  # fmt: skip
    assert len(texts) == 1


def test_a_request_that_takes_too_long_is_given_up(service, post):
    app = guarded(service, request_seconds=0.01)
    found = call(app, "POST", "/v1/completions", json={"prompt": "ev", "max_tokens": 60, "n": 8})
    assert found.status_code == 503
    assert "not finished after 0.01 seconds" in found.json()["error"]["message"]
    post("/v1/completions", {"prompt": "ev", "max_tokens": 2})
    assert service.engine.num_active == 0


def test_a_stream_that_takes_too_long_ends_with_the_reason(service):
    app = guarded(service, request_seconds=0.05)
    body = {"prompt": "ev", "max_tokens": 60, "n": 8, "stream": True, "diffusing": True, "order": "random"}
    found = call(app, "POST", "/v1/completions", json=body)
    *_, told, end = [line for line in found.text.split("\n\n") if line]
    assert end == "data: [DONE]"
    assert "not finished after 0.05 seconds" in told
    assert service.engine.num_active == 0 or not time.sleep(0.2)
    assert service.engine.num_active == 0


def test_a_stream_is_refused_like_any_request_when_too_many_wait(service):
    other = copy.copy(service)
    other.engine = StepEngine(service.generator.reader, mask_id=service.codec.mask_id, max_waiting=1)
    hold = threading.Event()
    for _ in range(2):
        other.engine.hand_in(Ticket(lambda event: None, work=lambda pause: hold.wait(20)))
        time.sleep(0.05)
    app, body = create_app(other), {"prompt": "ev", "max_tokens": 4, "stream": True}
    try:
        for path, more in (("/v1/completions", {}), ("/v1/completions", {"diffusing": True})):
            found = call(app, "POST", path, json={**body, **more})
            assert found.status_code == 429
            assert found.headers["retry-after"] == "1"
        # It is said before the body is read, so to whoever sends anything; what needs no model is answered.
        assert call(app, "POST", "/v1/fill-mask", content=b"{").status_code == 429
        assert call(app, "POST", "/tokenize", json={"text": "ev"}).status_code == 200
    finally:
        hold.set()
    other.engine.close(seconds=5)
    assert call(app, "POST", "/v1/completions", json=body).status_code == 503


def test_a_fault_in_a_stream_or_a_route_is_told_and_counted(service, monkeypatch, caplog):
    app = create_app(service)
    monkeypatch.setattr("diffutron.generation.frames.Frames.frame", lambda self, step: 1 / 0)
    found = call(
        app, "POST", "/v1/completions", json={"prompt": "ev", "max_tokens": 4, "stream": True, "diffusing": True}
    )
    assert "an error of the server" in found.text
    assert found.text.endswith("data: [DONE]\n\n")
    monkeypatch.setattr(service.codec, "encode", lambda text: 1 / 0)
    assert call(app, "POST", "/tokenize", json={"text": "ev"}).status_code == 500
    assert 'diffutron_requests_total{route="/tokenize",status="500"}' in call(app, "GET", "/metrics").text
    assert "ZeroDivisionError" in caplog.text


def test_behind_a_proxy_with_a_key_the_servers_own_name_does_not_matter(service):
    app, key = guarded(service, key="çok gizli anahtar"), "çok gizli anahtar".encode()
    headers = {b"authorization": b"Bearer " + key, b"host": b"diller.example", b"origin": b"https://diller.example"}
    assert call(app, "GET", "/v1/models", headers=headers).status_code == 200
    headers[b"origin"] = b"https://evil.example"
    assert call(app, "GET", "/v1/models", headers=headers).status_code == 403


@pytest.mark.parametrize("path", ["/../pyproject.toml", "/%2e%2e/app.py", "/..%2fapp.py", "/app.py", "/.git/config"])
def test_no_file_but_the_pages_own_is_served(app, path):
    assert call(app, "GET", path).status_code == 404
