"""Latency of the control plane under readers, and what they cost a run at work.

    orpo-ray serve --storage runs                      # elsewhere, with a run at work: submit one to it
    python benchmarks/service_load.py --url http://127.0.0.1:8000 --run RUN --out benchmarks/service_load.json

Each reader does what the page does: it looks at the run as soon as the service says that it is worth a look again; and once in five
looks at the list of runs, a page of pairs or one of traces. Readers come and go in blocks of equal length, and the run's
optimizer steps are compared between the blocks in which they were there and those in which they were not, so that both sides
are of one run. Readers stand for other machines' browsers: here they take only time that nobody else wants (SCHED_IDLE). What the
service itself takes, with Serve's controller and proxy and the dashboard that it asks, is summed as seconds of the processor.
The token is read from ORPO_RAY_SERVICE_TOKEN.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import re
import statistics
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

PAGE = Path(__file__).resolve().parents[1] / "orpo_ray" / "service" / "page"
EVERY_S = 25.0
"""Within so many seconds all readers look for the first time: as often as the service has fifty of them look."""


def main() -> None:
    args = arguments()
    headers = {"Authorization": f"Bearer {os.environ.get('ORPO_RAY_SERVICE_TOKEN', '')}"}
    api = httpx.Client(base_url=args.url, headers=headers, timeout=60)
    seconds: dict[str, list[float]] = defaultdict(list)
    loads: dict[bool, list[float]] = {False: [], True: []}
    steps: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    failures, seen = 0, [(0, 0)] * args.readers
    for block in range(2 * args.blocks + 1):
        there = block % 2 == 1
        if there:
            process, pipe = begin_readers(args, headers, seen)
        # From here on: what was done while readers came up, or went, is of neither side.
        after, _ = new_steps(api, args.run, 0)
        began, used = time.monotonic(), service_seconds()
        while time.monotonic() < began + args.block_s - args.load_every_s:
            loads[there].append(page_load(args.url))
            time.sleep(args.load_every_s)
        time.sleep(max(0.0, began + args.block_s - time.monotonic()))
        _, done = new_steps(api, args.run, after)
        # The time that really went by, not the block's: under readers this very reading takes longer.
        took = round(time.monotonic() - began, 2)
        steps[there].append({"steps": done, "seconds": took, "service_s": round(service_seconds() - used, 2)})
        if there:
            found = pipe.recv()
            process.join()
            failures, seen = failures + found["failures"], found["seen"]
            for route, times in found["seconds"].items():
                seconds[route] += times
    result: dict[str, Any] = {
        "readers": args.readers, "cores": os.cpu_count(), "block_s": args.block_s, "failures": failures,
        "page_load_ms": {
            words: quantiles(loads[there]) | {"loads": len(loads[there])}
            for there, words in ((False, "alone"), (True, "watched"))
        },
        "latency_ms": {route: quantiles(times) | {"requests": len(times)} for route, times in sorted(seconds.items())},
        "blocks": {"alone": steps[False], "watched": steps[True]},
    }  # fmt: skip
    alone, watched = (pace(steps[there]) for there in (False, True))
    if alone and watched:
        result["steps_per_s"] = {
            "alone": alone, "watched": watched, "ratio": round(watched / alone, 3),
            "median_of_pairs": paired(steps[False], steps[True]),
        }  # fmt: skip
    result["service_share"] = {
        words: round(sum(block["service_s"] for block in steps[there]) / sum(block["seconds"] for block in steps[there])
                     / (os.cpu_count() or 1), 4)
        for there, words in ((False, "alone"), (True, "watched"))
    }  # fmt: skip
    if args.out:
        Path(args.out).write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--run", required=True, help="name of a run; at work, where its throughput is to be compared")
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--blocks", type=int, default=3, help="blocks with readers, each between two without")
    parser.add_argument("--block-s", type=float, default=45.0)
    parser.add_argument("--load-every-s", type=float, default=3.0, help="pause between two loads of the page")
    parser.add_argument("--out", help="where to write the results as JSON")
    return parser.parse_args()


def page_load(url: str) -> float:
    """Seconds to fetch the page as a browser does whose cache is empty: the document, then what it names, side by side."""
    names = [file.name for file in PAGE.iterdir() if file.name != "index.html"]

    async def load() -> None:
        limits = httpx.Limits(max_connections=6)  # a browser's, to one host
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
            (await client.get("/")).raise_for_status()
            for answer in await asyncio.gather(*(client.get(f"/{name}") for name in names)):
                answer.raise_for_status()

    began = time.perf_counter()
    asyncio.run(load())
    return time.perf_counter() - began


def new_steps(api: httpx.Client, run: str, after: int) -> tuple[int, int]:
    """Where metrics.jsonl ends, and how many steps stand behind `after`."""
    found = 0
    while True:
        page = api.get(f"/v1/runs/{run}/metrics", params={"after": after}).raise_for_status().json()
        found += len(page["items"])
        after = page["next"]
        if not page["more"]:
            return after, found


def pace(blocks: list[dict[str, float]]) -> float:
    """Steps a second over all blocks of a side."""
    return round(sum(block["steps"] for block in blocks) / sum(block["seconds"] for block in blocks), 4)


def paired(alone: list[dict[str, float]], watched: list[dict[str, float]]) -> float:
    """Median, over blocks with readers, of their pace by the mean of the blocks before and behind."""
    paces = [[block["steps"] / block["seconds"] for block in side] for side in (alone, watched)]
    around = [statistics.mean(paces[0][place : place + 2]) for place in range(len(paces[1]))]
    return round(statistics.median(mine / theirs for mine, theirs in zip(paces[1], around, strict=True)), 3)


def service_seconds() -> float:
    """Of the processor, taken so far by all of Serve's processes and the dashboard's on this machine."""
    seconds = 0.0
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if re.search(r"ray::(Serve|Proxy)|haproxy|dashboard", " ".join(process.cmdline()), re.IGNORECASE):
                seconds += sum(process.cpu_times()[:2])
    return seconds


Seen = list[tuple[int, int]]
"""For each reader, up to where it has read events and metrics."""


def begin_readers(args: argparse.Namespace, headers: dict[str, str], seen: Seen) -> tuple[Any, Any]:
    """Readers in a process of their own, who have all that there is; it sends what they saw when the block is over."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=readers, args=(theirs, args.url, args.run, seen, args.block_s, headers))
    process.start()
    ours.recv()
    return process, ours


def readers(pipe: Any, url: str, run: str, seen: Seen, seconds: float, headers: dict[str, str]) -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    pipe.send(asyncio.run(all_readers(pipe, url, run, seen, seconds, headers)))


async def all_readers(
    pipe: Any, url: str, run: str, seen: Seen, seconds: float, headers: dict[str, str]
) -> dict[str, Any]:
    count = len(seen)
    found: dict[str, Any] = {"seconds": defaultdict(list), "failures": 0, "seen": list(seen)}
    limits = httpx.Limits(max_connections=2 * count + 10)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60, limits=limits) as api:
        for place in range(count):  # one opens the page after another
            found["seen"][place] = await caught_up(api, run, found["seen"][max(0, place - 1)])
        pipe.send("up")
        end = time.monotonic() + seconds
        await asyncio.gather(*(reader(api, run, end, place, found) for place in range(count)))
    return found


async def caught_up(api: httpx.AsyncClient, run: str, seen: tuple[int, int]) -> tuple[int, int]:
    """Up to where there is anything to read, from where somebody else has read to."""
    while True:
        answer = await api.get(f"/v1/runs/{run}/live?events={seen[0]}&metrics={seen[1]}")
        found = answer.raise_for_status().json()
        seen = found["events"]["next"], found["metrics"]["next"]
        if found["again_s"] > 0:
            return seen


async def reader(api: httpx.AsyncClient, run: str, end: float, place: int, found: dict[str, Any]) -> None:
    """One page that is looked at."""
    (events, metrics), one = found["seen"][place], f"/v1/runs/{run}"
    late = place / len(found["seen"]) * EVERY_S
    await asyncio.sleep(late)
    # Not all readers at the same moment, nor each the same thing.
    elsewhere = itertools.cycle(
        [None, None, "/v1/runs", *[None] * 4, f"{one}/pairs", *[None] * 4, f"{one}/traces", None, None]
    )
    for _ in range(int(late / EVERY_S * 15)):
        next(elsewhere)
    while time.monotonic() < end:
        again_s = EVERY_S
        for route in (f"{one}/live?events={events}&metrics={metrics}", next(elsewhere)):
            if route is None:
                continue
            asked = time.perf_counter()
            answer = await api.get(route)
            name = route.partition("?")[0].replace(one, "/v1/runs/{name}")
            found["seconds"][name].append(time.perf_counter() - asked)
            found["failures"] += answer.status_code != 200
            if answer.status_code == 200 and name.endswith("/live"):
                seen = answer.json()
                events, metrics, again_s = seen["events"]["next"], seen["metrics"]["next"], seen["again_s"]
                found["seen"][place] = events, metrics
        await asyncio.sleep(min(again_s, max(0.0, end - time.monotonic())))


def quantiles(seconds: list[float]) -> dict[str, float]:
    """Median, 95 % and greatest, in milliseconds."""
    ordered = sorted(seconds)
    return {
        "p50": round(1000 * statistics.median(ordered), 1),
        "p95": round(1000 * ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 1),
        "max": round(1000 * ordered[-1], 1),
    }


def table(result: dict[str, Any]) -> str:
    rows = [(f"page, all files, {words}", times) for words, times in result["page_load_ms"].items()]
    rows += result["latency_ms"].items()
    lines = [
        f"{result['readers']} readers, {result['failures']} failures",
        f"{'':<32}{'p50':>9}{'p95':>9}{'max':>9}  ms",
    ]
    lines += [f"{name:<32}{times['p50']:>9}{times['p95']:>9}{times['max']:>9}" for name, times in rows]
    if "steps_per_s" in result:
        pace_of = result["steps_per_s"]
        lines.append(
            f"{pace_of['alone']} steps a second alone, {pace_of['watched']} watched: {pace_of['ratio']}; median of blocks {pace_of['median_of_pairs']}"
        )
    share = result["service_share"]
    lines.append(f"the service took {share['alone']:.1%} of all cores alone, {share['watched']:.1%} watched")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
