"""The benchmarks of the ranker: both routes say the same, and what goes wrong under load is counted as that."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from benchmarks.load import dues
from benchmarks.online_world import World, make_world, online_store
from benchmarks.open_loop import Outcome, drive
from benchmarks.ranking import MODELS, PlainRoute, check, plain_beside_ours
from pipelines.core.errors import UserError
from pipelines.register import open_store
from serving.ranker import open_ranker

# --- both routes -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with online_store("sqlite", folder) as settings:
        yield make_world(folder / "world", settings, users=30, businesses=40, seed=7, variants=MODELS)


@pytest.mark.parametrize("model", MODELS)
def test_the_ranker_says_what_the_plain_route_says(world: World, model: str) -> None:
    ranker = open_ranker(world.model(model), world.repo, world.params)
    plain = PlainRoute(open_store(world.repo), ranker.model)
    user, _ = world.requests(1, candidates=1, seed=0)[0]
    times = plain_beside_ours(plain, ranker, [*world.requests(5, 20, seed=1), ("nobody", ["nowhere", "b"])])
    assert len(times.seconds) == 6
    said = plain.probabilities(user, world.businesses, ranker.now())
    assert said.std() > 0.001, "a network that says the same of everybody would agree with anything"


def test_it_stops_where_they_differ() -> None:
    one = np.array([0.2, 0.7])
    check(one, one + 5e-7, "here")
    for other in (one + 2e-6, one * np.nan):
        with pytest.raises(UserError, match="here: the ranker and get_online_features differ"):
            check(one, other, "here")


# --- the load generator ----------------------------------------------------------------------------------------------


@contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler, str], None]) -> Iterator[int]:
    """The port of a server that passes each request's `user_id` to `answer`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer(self, json.loads(body)["user_id"])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def say(handler: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def carried_out(port: int, users: list[str], due: list[float], connections: int = 20) -> Outcome:
    return drive(
        {
            "host": "127.0.0.1",
            "port": port,
            "path": "/rank",
            "headers": {},
            "timeout_s": 1.0,
            "connections": connections,
            "requests": [
                {"due": when, "body": json.dumps({"user_id": user}), "wanted": {"candidates": 3}}
                for user, when in zip(users, due, strict=True)
            ],
        }
    )


RIGHT = json.dumps({"candidates": 3}).encode()


def test_every_kind_of_failure_is_counted() -> None:
    def answer(handler: BaseHTTPRequestHandler, user: str) -> None:
        said: dict[str, tuple[int, bytes]] = {
            "right": (200, RIGHT),
            "refused": (503, RIGHT),
            "too few": (200, json.dumps({"candidates": 2}).encode()),
            "no JSON": (200, b"<html>"),
        }
        if user == "gone":
            handler.close_connection = True
        elif user == "slow":
            time.sleep(1.5)
        elif user == "no HTTP":
            handler.wfile.write(b"what?\r\n\r\n")
        else:
            say(handler, *said[user])

    users = ["right", "refused", "too few", "no JSON", "gone", "slow", "no HTTP", "right"]
    with answering(answer) as port:
        outcome = carried_out(port, users, [i * 0.02 for i in range(len(users))])
    assert len(outcome.latencies) == 2
    assert len(outcome.late) == len(users)
    kinds = Counter(error.split(":")[0] for error in outcome.errors)
    assert outcome.errors.total() == 6
    assert kinds == Counter(
        [
            "HTTP 503",
            "an answer whose `candidates` is not 3",
            "an answer that is no JSON",
            "Broken",
            "no answer in time",
            "HttpParserError",
        ]
    )


def test_nobody_there_is_an_error_too() -> None:
    with answering(lambda handler, user: say(handler, 200, RIGHT)) as port:
        pass
    outcome = carried_out(port, ["right", "right"], [0.0, 0.01])
    assert (outcome.latencies, outcome.errors.total()) == ([], 2)


def test_a_latency_is_counted_from_when_the_request_was_due() -> None:
    """One connection and a server that takes 0.1 s: the third request, due at once, has waited for the other two."""

    def answer(handler: BaseHTTPRequestHandler, user: str) -> None:
        time.sleep(0.1)
        say(handler, 200, RIGHT)

    with answering(answer) as port:
        outcome = carried_out(port, ["a", "b", "c"], [0.0, 0.0, 0.0], connections=1)
    assert [round(one, 1) >= least for one, least in zip(outcome.latencies, (0.1, 0.2, 0.3), strict=True)] == [True] * 3


@pytest.mark.parametrize("arrivals", ["even", "poisson"])
def test_arrivals(arrivals: str) -> None:
    made, same, other = (dues(arrivals, 50, 20, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert made == same == sorted(made)
    assert (made == other) == (arrivals == "even")
    assert len(made) == 1000
    assert made[0] >= 0
    assert made[-1] < 20
    gaps = np.diff(made)
    assert gaps.mean() == pytest.approx(0.02, rel=0.02)
    # of a Poisson process the gaps' deviation is their mean
    assert gaps.std() == pytest.approx(0.0 if arrivals == "even" else 0.02, rel=0.2, abs=1e-9)
