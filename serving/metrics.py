"""What the app counts, for Prometheus. No token, no id and no text: labels are routes, steps, views, the model."""

import time
from collections.abc import Collection, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    ProcessCollector,
    generate_latest,
    values,
)
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.choice import Chosen
from serving.freshness import Freshness

# Feast sets an environment variable by which this library, and that of every child process, counts in files for several
# workers: all registries of a process would then share their counts. We are one process.
values.ValueClass = values.MutexValue

# Close together around what a ranking is to take
SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.035, 0.05, 0.075, 0.1, 0.25, 1.0, 5.0)
CANDIDATES = (1, 10, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 100_000)


class Metrics:
    """The figures of one app, in a registry of its own."""

    def __init__(self, freshness: Freshness) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "mmrec_requests", "Requests answered, by route and status", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "mmrec_request_seconds",
            "From a request's head to its answer's end",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.steps = Histogram(
            "mmrec_step_seconds",
            "Of a ranking: reading online rows, encoding those that changed, scoring",
            ["step"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.candidates = Histogram(
            "mmrec_candidates", "Businesses ranked in a request", buckets=CANDIDATES, registry=self.registry
        )
        self.cold_users = Counter("mmrec_cold_users", "Rankings for a user without a history", registry=self.registry)
        self.cold_businesses = Counter(
            "mmrec_cold_businesses", "Businesses ranked without a history", registry=self.registry
        )
        self.registry.register(OfFreshness(freshness))
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def count(self, chosen: Chosen) -> None:
        for step in chosen.rankings[0].seconds:
            self.steps.labels(step).observe(sum(ranking.seconds[step] for ranking in chosen.rankings))
        self.candidates.observe(sum(len(ranking.ids) for ranking in chosen.rankings))
        self.cold_users.inc(not chosen.known)
        self.cold_businesses.inc(sum(int((ranking.reviews == 0).sum()) for ranking in chosen.rankings))

    def text(self) -> bytes:
        return generate_latest(self.registry)


class OfFreshness(Collector):
    """What the last look at model and store found, its ages as they are when somebody asks."""

    def __init__(self, freshness: Freshness) -> None:
        self._freshness = freshness

    def collect(self) -> Iterator[Metric]:
        freshness = self._freshness
        yield GaugeMetricFamily("mmrec_ready", "1: the ranker is ready", value=int(not freshness.reasons()))
        rows = GaugeMetricFamily("mmrec_view_rows", "Entities with a row in the online store", labels=["view"])
        for view, (count, _) in freshness.views.items():
            rows.add_metric([view], count)
        yield rows
        ages = GaugeMetricFamily(
            "mmrec_view_newest_age_seconds", "Age of the newest row in the online store", labels=["view"]
        )
        for view, age in freshness.ages().items():
            ages.add_metric([view], age)
        yield ages
        model = InfoMetricFamily("mmrec_model", "The model that answers")
        if (about := freshness.model) is not None:
            model.add_metric([], {"feature_service": about.feature_service, "digest": about.digest})
        yield model


class Measured:
    """Middleware around everything: counts and times each request by route, whoever answers it.

    A route has no parts that vary, so its path is its template; what is no route is `other`, or strangers could make
    series without end.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: Collection[str]) -> None:
        self.app = app
        self.metrics = metrics
        self.routes = frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in self.routes else "other"
        status = 500  # of what ends without an answer
        begun = ended = time.perf_counter()

        async def send_noted(message: Message) -> None:
            nonlocal status, ended
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            if message.get("body"):
                ended = time.perf_counter()  # what comes after the last of it, a connection that lingers, is not ours

        try:
            await self.app(scope, receive, send_noted)
        finally:
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(ended - begun)
