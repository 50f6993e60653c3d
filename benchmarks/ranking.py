"""One user and 500 candidates, ranked in process: Feast's plain route beside the ranker, from the same online store.

    python -m benchmarks.ranking                                     # SQLite and Redis, both models; some six minutes
    python -m benchmarks.ranking --store sqlite --model proposed

2,000 users and 2,000 businesses of random features, materialized through Feast; every request asks for a user and
candidates of its own. Four routes, in milliseconds:

    get_online_features  500 pairs through the feature service, `to_dict`, into columns, through the whole network
    ranker, warm         the same request to `serving.ranker`, whose cache has seen the businesses
    ranker, rewritten    the first requests after every row was materialized anew with other values
    ranker, beside       50 a second, while another process runs `feast materialize` over the same store again and again

All requests of the first and third are answered both ways, and some after the fourth: where two probabilities differ by
more than 1e-6, the benchmark stops. `CPU` is the thread's own time; `read`, `encode` and `score` are the ranker's,
medians; the last columns say how many times as fast as the plain route, and the load average of the machine.
"""

import argparse
import gc
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from feast import FeatureStore
from filling import fill_counts
from naming import online_service_name
from numpy.typing import NDArray

from benchmarks.online_world import (
    STORES,
    Materializing,
    World,
    interruptible,
    is_there,
    machine,
    make_world,
    online_store,
)
from models.recommender import TrainedRecommender
from pipelines.core.errors import UserError, exit_code_of
from pipelines.core.progress import progress
from pipelines.core.training_rows import columns, model_schema
from pipelines.register import open_store
from serving.ranker import Ranker, Ranking, open_ranker

MODELS = ("proposed", "baseline")
TOLERANCE = 1e-6
ROUNDS = 2  # of `feast materialize` beside the requests
LONGEST = 120.0  # seconds that they may take
PACE = 0.02  # seconds from one request beside them to the next: asked without a pause, the quick ones would be most
AFTERWARDS = 5  # of them, answered both ways
PARTS = ("read", "encode", "score")

Request = tuple[str, list[str]]


@dataclass
class Times:
    """Of one route's requests."""

    route: str
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # this thread's own seconds, whatever else the machine does
    parts: list[Mapping[str, float]] = field(default_factory=list)
    load: float = 0.0  # of the machine, when the last was answered

    @contextmanager
    def timing(self) -> Iterator[None]:
        began, cpu = time.perf_counter(), time.thread_time()
        yield
        self.cpu.append(time.thread_time() - cpu)
        self.seconds.append(time.perf_counter() - began)

    def percentile(self, q: float) -> float:
        """Milliseconds."""
        return milliseconds(self.seconds, q)

    def row(self, plain: "Times") -> str:
        """A line under `HEAD`."""
        taken = [milliseconds(self.seconds, q) for q in (50, 99, 100)] + [milliseconds(self.cpu, q) for q in (50, 99)]
        parts = [milliseconds([one[name] for one in self.parts], 50) for name in PARTS] if self.parts else []
        shares = [plain.percentile(q) / self.percentile(q) for q in (50, 99)]
        cells = [f"{self.route:<19}", f"{len(self.seconds):8}"]
        cells += [f"{one:7.2f}" for one in taken] + ([f"{one:6.2f}" for one in parts] or [f"{'-':>6}"] * len(PARTS))
        return "  ".join([*cells, *(f"{share:5.1f} x" for share in shares), f"{self.load:5.2f}"])


def milliseconds(seconds: Sequence[float], q: float) -> float:
    return float(np.percentile(seconds, q)) * 1e3


HEAD = "  ".join(
    [
        f"{'milliseconds':<19}",
        "requests",
        *(f"{name:>7}" for name in ("p50", "p99", "max", "CPU p50", "CPU p99")),
        *(f"{name:>6}" for name in PARTS),
        *(f"{name:>7}" for name in ("p50", "p99")),
        " load",
    ]
)


class PlainRoute:
    """What one writes with Feast's documentation open."""

    def __init__(self, store: FeatureStore, model: TrainedRecommender) -> None:
        self.store, self.model = store, model
        self.service = store.get_feature_service(online_service_name(model.feature_service))
        schema = model_schema(model.params["model"])
        self.fields = [schema.field(name) for name in model.encoding.columns if "__" in name]
        self.instant = schema.field("event_timestamp")
        parts = model.encoding.vectors.values()
        self.widths = {name: len(mean) for part in parts for name, mean in zip(part.names, part.means, strict=True)}

    def probabilities(self, user: str, candidates: Sequence[str], at: datetime) -> NDArray[np.float64]:
        """(N,), of the candidates in their order."""
        pairs = [{"user_id": user, "business_id": business} for business in candidates]
        said = self.store.get_online_features(self.service, pairs, full_feature_names=True).to_dict()
        rows = {one.name: pa.array(said[one.name], one.type) for one in self.fields}
        rows["event_timestamp"] = pa.array([at] * len(pairs), self.instant.type)
        return self.model.probabilities(columns(fill_counts(pa.table(rows)), self.widths, "online"))


def check(ours: NDArray[np.float64], plain: NDArray[np.float64], where: str) -> None:
    """UserError where the two routes do not say the same."""
    apart = float(np.abs(ours - plain).max())
    if not apart <= TOLERANCE:
        raise UserError(f"{where}: the ranker and get_online_features differ by {apart:.2e}, more than {TOLERANCE:.0e}")


def plain_beside_ours(plain: PlainRoute, ranker: Ranker, requests: Sequence[Request]) -> Times:
    """The plain route's times; afterwards the ranker has seen all of these requests, and said the same."""
    times = Times("get_online_features")
    for user, candidates in watched(requests, times.route):
        at = ranker.now()
        with times.timing():
            said = plain.probabilities(user, candidates, at)
        check(ranker.rank(user, candidates, at).probabilities, said, times.route)
    return finished(times)


def ours(ranker: Ranker, requests: Sequence[Request]) -> Times:
    times = Times("ranker, warm")
    for user, candidates in watched(requests, times.route):
        timed(times, ranker, user, candidates)
    return finished(times)


def timed(times: Times, ranker: Ranker, user: str, candidates: Sequence[str]) -> Ranking:
    with times.timing():
        ranking = ranker.rank(user, candidates)
    times.parts.append(ranking.seconds)
    return ranking


def after_rewrites(
    plain: PlainRoute, ranker: Ranker, world: World, draws: Iterator[int], rewrites: int, candidates: int
) -> Times:
    """The requests that first see each business after everything was rewritten."""
    times = Times("ranker, rewritten")
    for number in watched([next(draws) for _ in range(rewrites)], times.route):
        world.draw(number)
        world.materialize()
        shuffled = np.random.default_rng(number).permutation(world.businesses).tolist()
        for start in range(0, len(shuffled) - candidates + 1, candidates):
            user, block = world.users[number + start], shuffled[start : start + candidates]
            ranking = timed(times, ranker, user, block)
            check(ranking.probabilities, plain.probabilities(user, block, ranking.at), times.route)
    return finished(times)


def beside_materialize(
    plain: PlainRoute, ranker: Ranker, world: World, number: int, requests: Sequence[Request]
) -> Times:
    """Requests while rows are written: the first round changes every value, the next ones write the same again."""
    times = Times("ranker, beside")
    world.draw(number)
    with Materializing(world) as writing:
        began = time.perf_counter()
        while writing.rounds < ROUNDS and (passed := time.perf_counter() - began) < LONGEST:
            timed(times, ranker, *requests[len(times.seconds) % len(requests)])
            time.sleep(max(0.0, len(times.seconds) * PACE - passed))
    for user, candidates in requests[:AFTERWARDS]:
        ranking = ranker.rank(user, candidates)
        check(ranking.probabilities, plain.probabilities(user, candidates, ranking.at), times.route)
    return finished(times)


def watched(items: Sequence, route: str) -> Iterator:
    with progress(len(items), route, "request") as bar:
        for item in items:
            yield item
            bar.update()


def finished(times: Times) -> Times:
    times.load = os.getloadavg()[0]
    return times


def measure(world: World, variant: str, draws: Iterator[int], args: argparse.Namespace) -> None:
    """Print a model's table."""
    params = world.params
    with quiet():
        ranker = open_ranker(world.model(variant), world.repo, params)
        plain = PlainRoute(open_store(world.repo), ranker.model)
    gc.collect()
    gc.freeze()  # as the server does: what torch and Feast leave would be gone through in the midst of a request
    plain_times = plain_beside_ours(plain, ranker, world.requests(args.plain_requests, args.candidates, seed=1))
    print(plain_times.row(plain_times), flush=True)
    for times in (
        ours(ranker, world.requests(args.requests, args.candidates, seed=2)),
        after_rewrites(plain, ranker, world, draws, args.rewrites, args.candidates),
        beside_materialize(plain, ranker, world, next(draws), world.requests(args.requests, args.candidates, seed=3)),
    ):
        print(times.row(plain_times), flush=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Feast warns of a setting that feature_store.yaml explains."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)  # as the server does
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "feast", "redis"))
    print(f"{machine()}\nPython {platform.python_version()}, {packages}; {platform.platform()}")
    print(f"1 user x {args.candidates} of {args.businesses:,} businesses, {args.users:,} users", flush=True)
    for kind in args.store:
        if not is_there(kind):
            print(f"\n{kind}: left out, no redis-server is installed here")
            continue
        with tempfile.TemporaryDirectory(prefix="mmrec-ranking-") as name, online_store(kind, Path(name)) as settings:
            print(f"\n{kind}: making the world", file=sys.stderr, flush=True)
            world = make_world(Path(name) / "world", settings, args.users, args.businesses, args.seed, args.model)
            draws = iter(range(1, 1000))
            for variant in args.model:
                print(f"\n{kind}, {variant}\n{HEAD}", flush=True)
                measure(world, variant, draws, args)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", nargs="+", choices=STORES, default=STORES)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--businesses", type=int, default=2000)
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--requests", type=int, default=1000, help="to the warm ranker")
    parser.add_argument("--plain-requests", type=int, default=200, help="by get_online_features")
    parser.add_argument("--rewrites", type=int, default=3, help="of everything online; each gives a few cold requests")
    parser.add_argument("--seed", type=int, default=7)
    return parser.parse_args(arguments)


def main() -> None:
    args = parsed()
    with interruptible():
        sys.exit(exit_code_of(lambda: run(args)))


if __name__ == "__main__":
    main()
