"""The app under load over HTTP: 50 requests a second, one user and 500 candidates each, whatever it answers.

    python -m benchmarks.load                     # SQLite; five runs of 20 s evenly spaced, five as a Poisson process
    python -m benchmarks.load --store redis --arrivals poisson --runs 2

The world is the one of benchmarks/ranking.py. The app runs as a user starts it (`python -m serving serve`), the
generator (benchmarks/open_loop.py) in a third process; a latency is counted from the instant at which its request was
due. The first line is the app's first seconds, with nothing in its cache; the last one while `feast materialize` gives
every row another value, and then writes it again. Neither is among the totals. `CPU` is the server's, a request;
`late` is how late the generator began, at its p99. Ends with 1 where any request failed.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.online_world import (
    ROOT,
    STORES,
    Materializing,
    World,
    free_port,
    interruptible,
    is_there,
    machine,
    make_world,
    online_store,
    running,
)
from pipelines.core.errors import UserError, exit_code_of
from pipelines.core.progress import progress

ARRIVALS = ("even", "poisson")
TOP = 10
TIMEOUT_S = 5.0  # a request's; what comes later is an error
CONNECTIONS = 200
STARTING_S = 120.0
WARMING_S = 4.0
MODELS = ("proposed", "baseline")


@dataclass(frozen=True)
class Run:
    """What became of one run. Milliseconds, and shares of them."""

    name: str
    latencies: list[float]  # seconds
    late: list[float]
    errors: Counter[str]
    seconds: float
    cpu: float  # seconds of the server
    load: float

    @property
    def requests(self) -> int:
        return len(self.late)

    def row(self) -> str:
        """A line under `HEAD`."""
        p50, p99, longest = (f"{one:7.2f}" for one in milliseconds(self.latencies))
        rate = f"{len(self.latencies) / self.seconds:6.1f}"
        cpu, late = f"{self.cpu / self.requests * 1e3:6.2f}", f"{milliseconds(self.late)[1]:6.2f}"
        counts = [f"{self.requests:8}", f"{sum(self.errors.values()):6}"]
        return "  ".join([f"{self.name:<16}", *counts, rate, p50, p99, longest, cpu, late, f"{self.load:5.2f}"])


HEAD = "  ".join(
    [
        f"{'milliseconds':<16}",
        "requests",
        *(f"{name:>6}" for name in ("errors", "rate/s")),
        *(f"{name:>7}" for name in ("p50", "p99", "max")),
        *(f"{name:>6}" for name in ("CPU", "late")),
        " load",
    ]
)


def milliseconds(seconds: Sequence[float]) -> tuple[float, float, float]:
    """p50, p99 and the longest; NaN of nothing."""
    if not seconds:
        return (float("nan"),) * 3
    return tuple(float(np.percentile(seconds, q)) * 1e3 for q in (50, 99, 100))  # type: ignore[return-value]


def together(runs: Sequence[Run]) -> Run:
    """All of them as one."""
    return Run(
        f"all {len(runs)}",
        [one for run in runs for one in run.latencies],
        [one for run in runs for one in run.late],
        sum((run.errors for run in runs), Counter()),
        sum(run.seconds for run in runs),
        sum(run.cpu for run in runs),
        max(run.load for run in runs),
    )


# --- a run -----------------------------------------------------------------------------------------------------------


def dues(arrivals: str, rate: float, seconds: float, rng: np.random.Generator) -> list[float]:
    """Seconds from the start, in order, `rate * seconds` of them: all a period apart, or at random as a Poisson
    process has them, which is many that crowd."""
    count = round(rate * seconds)
    if arrivals == "even":
        return [i / rate for i in range(count)]
    return np.sort(rng.uniform(0, seconds, count)).tolist()


def plan(world: World, port: int, arrivals: str, seconds: float, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """What benchmarks/open_loop.py is to send."""
    when = dues(arrivals, args.rate, seconds, np.random.default_rng(seed))
    requests = world.requests(len(when), args.candidates, seed)
    return {
        "host": "127.0.0.1",
        "port": port,
        "path": "/rank",
        "headers": {},
        "timeout_s": TIMEOUT_S,
        "connections": CONNECTIONS,
        "requests": [
            {
                "due": due,
                "body": json.dumps({"user_id": user, "candidates": candidates, "top": TOP}),
                "wanted": {"user_id": user, "candidates": args.candidates},
            }
            for due, (user, candidates) in zip(when, requests, strict=True)
        ],
    }


def carried_out(name: str, planned: dict[str, Any], server: int) -> Run:
    """One run. UserError where the generator itself fails."""
    before = cpu_seconds(server)
    with generating(planned) as (process, answer):
        lasting = planned["requests"][-1]["due"]
        with progress(round(lasting), name, "s") as bar:
            while process.poll() is None:
                time.sleep(0.5)
                bar.update(min(0.5, bar.total - bar.n))
        if process.returncode:
            raise UserError(f"the load generator failed with {process.returncode}; its errors are above")
        said = json.loads(answer.read_text(encoding="utf-8"))
    return Run(
        name,
        said["latencies"],
        said["late"],
        Counter(said["errors"]),
        said["seconds"],
        cpu_seconds(server) - before,
        os.getloadavg()[0],
    )


@contextmanager
def generating(planned: dict[str, Any]) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
    """benchmarks/open_loop.py at work, and the file in which its answer will lie."""
    with tempfile.TemporaryDirectory(prefix="mmrec-load-") as name:
        asked, answer = Path(name) / "plan.json", Path(name) / "outcome.json"
        asked.write_text(json.dumps(planned), encoding="utf-8")
        with asked.open("rb") as plan_file, answer.open("wb") as outcome_file:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.open_loop"],
                cwd=ROOT,
                stdin=plan_file,
                stdout=outcome_file,
                start_new_session=True,
            )
        try:
            yield process, answer
        finally:
            process.kill()
            process.wait()


def cpu_seconds(session: int) -> float:
    """Of all processes of a session, as Linux counts them; NaN elsewhere."""
    ticks, found = 0, False
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
        if int(fields[3]) == session:
            ticks, found = ticks + int(fields[11]) + int(fields[12]), True
    return ticks / os.sysconf("SC_CLK_TCK") if found else float("nan")


# --- the app ---------------------------------------------------------------------------------------------------------


@contextmanager
def app(world: World, variant: str) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """The app, ready to answer, and its port. UserError where it does not come up."""
    port = free_port()
    flags = {
        "model": world.model(variant),
        "repo": world.repo,
        "data": world.folder / "data",
        "params": world.folder / "params.yaml",
        "host": "127.0.0.1",
        "port": port,
    }
    command = [sys.executable, "-m", "serving", "serve"]
    command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    with running(command, world.folder / "app.log") as process:
        until = time.monotonic() + STARTING_S
        while not is_ready(port):
            if process.poll() is not None or time.monotonic() > until:
                raise UserError(f"the app does not become ready; it says:\n{said_by_app(world)}")
            time.sleep(0.2)
        yield process, port


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return answer.status == 200
    except (OSError, urllib.error.HTTPError):
        return False


def measure(world: World, variant: str, args: argparse.Namespace) -> bool:
    """Print a store's table; whether every request was answered. UserError where the app ends meanwhile."""
    with app(world, variant) as (process, port):

        def one(name: str, arrivals: str, seconds: float, seed: int) -> Run:
            run = carried_out(name, plan(world, port, arrivals, seconds, seed, args), process.pid)
            say(run)
            if process.poll() is not None:
                raise UserError(f"the app has ended with {process.returncode}; it says:\n{said_by_app(world)}")
            return run

        all_runs = [one("first seconds", "even", WARMING_S, args.seed)]
        for arrivals in args.arrivals:
            runs = [one(f"{arrivals} {i + 1}", arrivals, args.seconds, args.seed + i + 1) for i in range(args.runs)]
            say(together(runs))
            all_runs += runs
        world.draw(1)
        with Materializing(world) as writing:
            all_runs.append(one("materializing", args.arrivals[-1], args.seconds, args.seed + args.runs + 1))
            print(f"rounds of `feast materialize` meanwhile: {writing.rounds}")
    return not any(run.errors for run in all_runs)


def said_by_app(world: World) -> str:
    return (world.folder / "app.log").read_text(encoding="utf-8")[-2000:]


def say(run: Run) -> None:
    print(run.row(), flush=True)
    for error, count in run.errors.most_common():
        print(f"    {count} x {error}", flush=True)


def run_load(args: argparse.Namespace) -> int:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "feast", "redis", "uvicorn", "fastapi"))
    print(f"{machine()}\nPython {platform.python_version()}, {packages}; {platform.platform()}")
    print(f"{args.rate:g} requests a second for {args.seconds:g} s, 1 user x {args.candidates} of {args.businesses:,}")
    right = True
    for kind in args.store:
        if not is_there(kind):
            print(f"\n{kind}: left out, no redis-server is installed here")
            continue
        with tempfile.TemporaryDirectory(prefix="mmrec-load-") as name, online_store(kind, Path(name)) as settings:
            print(f"{kind}: making the world", file=sys.stderr, flush=True)
            world = make_world(Path(name) / "world", settings, args.users, args.businesses, args.seed, [args.model])
            print(f"\n{kind}, {args.model}\n{HEAD}", flush=True)
            right = measure(world, args.model, args) and right
    return 0 if right else 1


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", nargs="+", choices=STORES, default=["sqlite"])
    parser.add_argument("--model", choices=MODELS, default="proposed")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of a run")
    parser.add_argument("--runs", type=int, default=5, help="of each kind of arrivals")
    parser.add_argument("--arrivals", nargs="+", choices=ARRIVALS, default=list(ARRIVALS))
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--businesses", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=7)
    return parser.parse_args(arguments)


def main() -> None:
    args = parsed()
    ended = 0

    def counted() -> None:
        nonlocal ended
        ended = run_load(args)

    with interruptible():
        sys.exit(exit_code_of(counted) or ended)


if __name__ == "__main__":
    main()
