"""The server as a process: OpenAI's own client, clients that leave, clients that dawdle, and its end."""

import concurrent.futures
import socket
import subprocess
import sys
import threading
import time

import httpx
import openai
import pytest

from diffutron.testing import tiny_folder
from diffutron.testing.process import ServerProcess


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def server(model):
    server = ServerProcess(model, "--threads", "1", quiet=True)
    yield server
    told = server.stop()
    assert "Traceback" not in told, told
    assert "evlerimizden" not in told  # no text in the log


@pytest.fixture
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_openais_client_works_unchanged(client):
    [model] = client.models.list().data
    text = client.completions.create(model=model.id, prompt="evlerimizden", max_tokens=8, seed=1, temperature=0.7)
    stream = client.completions.create(
        model=model.id, prompt="evlerimizden", max_tokens=8, seed=1, temperature=0.7, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == text.choices[0].text
    messages = [{"role": "system", "content": "Kısa."}, {"role": "user", "content": "ev ne"}]
    whole = client.chat.completions.create(model=model.id, messages=messages, max_tokens=6, n=2)
    with client.chat.completions.create(
        model=model.id, messages=messages, max_tokens=6, n=2, stream=True, stream_options={"include_usage": True}
    ) as stream:
        texts, usage = ["", ""], None
        for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
    assert [text.strip() for text in texts] == [choice.message.content for choice in whole.choices]
    assert usage.total_tokens > 0
    vectors = client.embeddings.create(model=model.id, input=["ev", "deniz"])  # asks for base64, as it does unasked
    assert len(vectors.data) == 2
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="gpt-4", prompt="ev")
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        client.completions.create(model=model.id, prompt="ev", max_tokens=10**6)
    fim = client.completions.create(model=model.id, prompt="ev ", suffix=" deniz", max_tokens=3)
    assert fim.choices[0].text


def test_clients_that_leave_cost_no_further_step(server):
    body = {"prompt": "ev", "max_tokens": 60, "n": 8, "stream": True, "diffusing": True, "order": "random"}
    whole = httpx.post(f"{server.url}/v1/completions", json={**body, "stream": False, "diffusing": False}).json()
    full = whole["usage"]["completion_tokens"]
    before = server.metric("tokens")
    for seed in range(20):
        with httpx.stream("POST", f"{server.url}/v1/completions", json={**body, "seed": seed}) as response:
            next(response.iter_lines())
    server.wait_until_idle()
    assert server.metric("tokens") - before < 0.5 * 20 * full
    # Without a stream, too.
    before = server.metric("tokens")
    for seed in range(10):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/v1/completions", json={"prompt": "ev", "max_tokens": 60, "n": 8, "seed": seed},
                       timeout=httpx.Timeout(5, read=0.01))  # fmt: skip
    server.wait_until_idle()
    assert server.metric("tokens") - before < 0.5 * 10 * full


def test_connections_that_send_no_headers_are_closed_and_hinder_nobody(model):
    server = ServerProcess(model, "--threads", "1", "--header-seconds", "1", quiet=True)
    try:
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
        for each in idle[:50]:
            each.sendall(b"POST /tokenize HTTP/1.1\r\nHost: 127")
        assert httpx.get(f"{server.url}/health").status_code == 200
        time.sleep(2.5)
        closed = 0
        for each in idle[:50]:
            each.settimeout(2)
            try:
                closed += not each.recv(1000).startswith(b"HTTP/1.1 2")
            except ConnectionError:
                closed += 1
            except TimeoutError:
                pass
        assert closed == 50
        for each in idle:
            each.close()
    finally:
        server.stop()


def test_what_is_under_way_is_finished_when_it_is_told_to_stop(model):
    server = ServerProcess(model, "--threads", "1", quiet=True)
    body = {"prompt": "ev", "max_tokens": 60, "n": 2, "order": "random", "stream": True, "diffusing": True}
    begun = threading.Barrier(5)

    def read(seed):
        with httpx.stream("POST", f"{server.url}/v1/completions", json={**body, "seed": seed}, timeout=60) as response:
            lines = response.iter_lines()
            first = next(lines)
            begun.wait(60)
            return [first, *lines]

    with concurrent.futures.ThreadPoolExecutor() as pool:
        asked = [pool.submit(read, seed) for seed in range(4)]
        begun.wait(60)
        told = server.stop()
        streams = [[line for line in each.result() if line] for each in asked]
    for lines in streams:
        assert lines[-1] == "data: [DONE]", told
        assert "error" not in lines[-2]
        assert len(lines) > 60
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health")


@pytest.mark.parametrize(("options", "told"), [
    (["--host", "0.0.0.0"], "can be reached from elsewhere"), (["--model", "nothing"], "model 'nothing' is neither"),
    (["--key-file", "nowhere"], "the key file nowhere cannot be read"),
    (["--key-file", "short.key"], "the key in the key file short.key has 6 characters; a key has at least 8"),
])  # fmt: skip
def test_a_server_that_must_not_start_says_why_in_one_line(options, told, tmp_path):
    (tmp_path / "short.key").write_text("secret")
    found = subprocess.run([sys.executable, "-m", "diffutron", "serve", *options], capture_output=True, text=True,
                           env={"PATH": ""}, timeout=100, cwd=tmp_path)  # fmt: skip
    assert found.returncode == 1
    assert told in found.stderr
    assert "'secret'" not in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_a_port_that_is_taken_is_told_in_one_line(server, model):
    command = [sys.executable, "-m", "diffutron", "serve", "--model", str(model), "--port", str(server.port)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert found.returncode == 1
    assert "cannot be listened on" in found.stderr
    assert "Traceback" not in found.stderr
