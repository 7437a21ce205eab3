"""A server under clients, in one run: step-level batching beside one request after the other, overload, and leaving.

    python benchmarks/serve.py [--model mini] [--seconds 30] [--overload-seconds 300]

* batching: eight clients, each with its next request as soon as the last is answered; tokens a second of a server that
  denoises up to eight texts in a call, over those of one that denoises one.
* overload: requests arrive at ten times the rate at which the server can answer them, at random moments, whatever it
  answers; tokens committed a second, over the best of the server with 8, 16 and 32 clients, the tokens of whole
  answers, and every status that was sent.
* crowd: 248 clients that ask again as soon as they are answered, or when a refusal told them to.
* leaving: requests that are streamed and left after their first event; tokens committed after that.
* silence: the 95th percentile of small requests with and without 500 connections that send half a header.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import json
import os
import platform
import random
import socket
import statistics
import sys
import time
from collections import Counter
from typing import Any

import httpx
import psutil

from diffutron.testing.process import ServerProcess

PROMPTS = ("Bir gün", "Türkiye'nin", "Dün akşam", "Çocuklar okula", "Yeni yılda", "Kentin ortasında", "Uzun bir", "")
TOKENS = 32


def memory_of(server: ServerProcess) -> int:
    """Resident bytes of the worker and its parent."""
    own = psutil.Process(server.process.pid)
    return sum(each.memory_info().rss for each in [own, *own.children(recursive=True)])


async def arrivals(url: str, rate: float, seconds: float, tokens: int) -> dict[str, Any]:
    """Requests at so many a second, each at a moment of its own; whoever is not answered in time leaves."""
    moments, statuses, answered = random.Random(0), Counter[str](), [0]
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:

        async def one(seed: int) -> None:
            body = {"prompt": PROMPTS[seed % len(PROMPTS)], "max_tokens": tokens, "seed": seed}
            answer = await client.post("/v1/completions", json=body)
            statuses[str(answer.status_code)] += 1
            if answer.status_code == 200:
                answered[0] += answer.json()["usage"]["completion_tokens"]

        asked, end, next_one = set[asyncio.Task[None]](), time.monotonic() + seconds, time.monotonic()
        while next_one < end:
            await asyncio.sleep(next_one - time.monotonic())
            asked.add(asyncio.ensure_future(one(len(asked))))
            next_one += moments.expovariate(rate)
        waiting = [each for each in asked if not each.done()]
        for each in waiting:
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    return {
        "asked_per_second": len(asked) / seconds, "answered_tokens_per_second": answered[0] / seconds,
        "statuses": dict(statuses), "still_waiting": len(waiting),
    }  # fmt: skip


async def load(url: str, clients: int, seconds: float, tokens: int) -> dict[str, Any]:
    """So many clients for so long; each asks again as soon as it is answered, or when it was told to if refused."""
    end, found, statuses = time.monotonic() + seconds, [0], Counter[int]()
    waits = list[float]()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:

        async def one(number: int) -> None:
            turn = 0
            while time.monotonic() < end:
                turn += 1
                body = {"prompt": PROMPTS[number % len(PROMPTS)], "max_tokens": tokens, "seed": 1000 * number + turn}
                begun = time.monotonic()
                answer = await client.post("/v1/completions", json=body)
                statuses[answer.status_code] += 1
                if answer.status_code == 200 and time.monotonic() <= end:
                    found[0] += answer.json()["usage"]["completion_tokens"]
                    waits.append(time.monotonic() - begun)
                elif answer.status_code != 200:
                    await asyncio.sleep(float(answer.headers.get("retry-after", 0.5)))

        await asyncio.gather(*(one(number) for number in range(clients)))
    return {
        "tokens_per_second": found[0] / seconds, "statuses": {str(key): each for key, each in statuses.items()},
        "median_seconds": statistics.median(waits) if waits else None,
    }  # fmt: skip


def speed(server: ServerProcess, clients: int, seconds: float) -> float:
    """Tokens committed a second while so many clients are being served, after three seconds to fill up.

    Whole answers would be too coarse: eight clients end theirs nearly at once.
    """
    with concurrent.futures.ThreadPoolExecutor() as pool:
        asked = pool.submit(asyncio.run, load(server.url, clients, seconds + 4, TOKENS))
        time.sleep(3)
        before, begun = server.metric("tokens"), time.perf_counter()
        time.sleep(seconds)
        found = (server.metric("tokens") - before) / (time.perf_counter() - begun)
        asked.result()  # or the reason why nobody was served
    return found


def batching(model: str, seconds: float, rounds: int) -> dict[str, Any]:
    """Both servers by turns."""
    speeds: dict[str, list[float]] = {"ours": [], "one_by_one": []}
    for _ in range(rounds):
        for name, options in (("ours", ()), ("one_by_one", ("--max-rows", "1"))):
            server = ServerProcess(model, *options)
            try:
                speeds[name].append(speed(server, 8, seconds))
            finally:
                server.stop()
    return {name: [round(each, 1) for each in found] for name, found in speeds.items()}


def overload(model: str, seconds: float) -> dict[str, Any]:
    """The best of the server, then ten times as many requests as that answers, then a crowd for a fifth of the time."""
    server = ServerProcess(model)
    try:
        best = max(speed(server, clients, 30) for clients in (8, 16, 32))
        rate, before, resident = 10 * best / TOKENS, server.metric("tokens"), memory_of(server)
        under = asyncio.run(arrivals(server.url, rate, seconds, TOKENS))
        found = (server.metric("tokens") - before) / seconds
        grown = memory_of(server) / resident - 1
        server.wait_until_idle()
        before = server.metric("tokens")
        crowd = asyncio.run(load(server.url, 8 * 10 + 128 + 40, seconds / 5, TOKENS))
        return {
            "best_tokens_per_second": round(best, 1), "kept_share": round(found / best, 3), "seconds": seconds,
            **{name: round(each, 1) if isinstance(each, float) else each for name, each in under.items()},
            "memory_grew_by": round(grown, 3), "crowd": crowd["statuses"],
        }  # fmt: skip
    finally:
        server.stop()


def leaving(model: str, number: int) -> dict[str, Any]:
    """How many steps were taken for requests after their client had gone, beyond the one under way."""
    server, late = ServerProcess(model), 0
    body = {"prompt": "Bir gün", "max_tokens": 200, "stream": True, "diffusing": True}
    try:
        for seed in range(number):
            with httpx.stream("POST", f"{server.url}/v1/completions", json={**body, "seed": seed}) as response:
                next(response.iter_lines())
            server.wait_until_idle()
            before = server.metric("steps")
            time.sleep(0.02)
            late += server.metric("steps") > before
        return {"requests": number, "that_went_on": late, "steps_each": round(server.metric("steps") / number, 2)}
    finally:
        server.stop()


def silence(model: str) -> dict[str, Any]:
    server = ServerProcess(model, "--header-seconds", "60")

    def ninety_fifth() -> float:
        waits = []
        with httpx.Client(base_url=server.url, timeout=60) as client:
            for seed in range(200):
                begun = time.perf_counter()
                client.post("/v1/completions", json={"prompt": "Bir gün", "max_tokens": 2, "seed": seed})
                waits.append(time.perf_counter() - begun)
        return sorted(waits)[189]

    try:
        ninety_fifth()
        alone, held = ninety_fifth(), []
        for _ in range(500):
            held.append(socket.create_connection(("127.0.0.1", server.port)))
            held[-1].sendall(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Le")
        beside = ninety_fifth()
        for each in held:
            each.close()
        return {"alone_ms": round(1000 * alone, 1), "beside_500_ms": round(1000 * beside, 1),
                "rose_by": round(beside / alone - 1, 3)}  # fmt: skip
    finally:
        server.stop()


def memory(model: str, requests: int) -> dict[str, Any]:
    """Resident bytes after a tenth of the requests, and after all."""
    server = ServerProcess(model)
    try:

        async def ask(count: int) -> None:
            async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
                for start in range(0, count, 16):
                    bodies = [{"prompt": f"{start + seed}", "max_tokens": 4, "seed": seed} for seed in range(16)]
                    await asyncio.gather(*(client.post("/v1/completions", json=body) for body in bodies))

        asyncio.run(ask(requests // 10))
        early = memory_of(server)
        asyncio.run(ask(requests - requests // 10))
        return {"requests": requests, "early_mb": early >> 20, "late_mb": memory_of(server) >> 20}
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--tiny", help="a tiny model's folder, for the memory of many requests")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--overload-seconds", type=float, default=300)
    parser.add_argument("--leaving", type=int, default=200)
    parser.add_argument("--requests", type=int, default=10_000)
    options = parser.parse_args()
    speeds = batching(options.model, options.seconds, options.rounds)
    print(f"batching: {speeds}", file=sys.stderr)
    found: dict[str, Any] = {"overload": overload(options.model, options.overload_seconds)}
    found["leaving"] = leaving(options.model, options.leaving)
    found["silence"] = silence(options.model)
    if options.tiny:
        found["memory"] = memory(options.tiny, options.requests)
    print(json.dumps({
        "ratio": round(statistics.median(speeds["ours"]) / statistics.median(speeds["one_by_one"]), 2),
        "ours_tokens_per_second": speeds["ours"], "one_by_one_tokens_per_second": speeds["one_by_one"], **found,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.python_version()}",
    }))  # fmt: skip


if __name__ == "__main__":
    main()
