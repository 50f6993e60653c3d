"""The app of a world on a free port, and what a test says to it."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from fastapi import FastAPI

from serving.app import bind, create_app
from serving.live import Live

if TYPE_CHECKING:
    from tests.serving.conftest import ServedWorld

USER = "u03"  # has a history


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def line(self) -> str:
        """Of an error: the answer holds it and nothing else, and it is one line."""
        said = self.json
        assert said.keys() == {"error"} and isinstance(said["error"], str), said
        assert said["error"] and len(said["error"].splitlines()) == 1, said
        return said["error"]


@dataclass(frozen=True)
class Client:
    """Each request has a connection of its own."""

    port: int
    headers: Mapping[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def with_token(self, token: str) -> "Client":
        return Client(self.port, {"Authorization": f"Bearer {token}"})

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """`body`: bytes as they are, an iterator of bytes in chunks, anything else as JSON."""
        if body is not None and not isinstance(body, bytes | Iterator):
            body = json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, {**self.headers, **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, headers=headers)

    def rank(self, body: Any) -> Answer:
        return self.request("POST", "/rank", body)

    def raw(self, sent: bytes) -> bytes:
        """All that comes back to `sent` until the server closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(sent)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def until(self, holds: Callable[["Client"], bool], seconds: float = 60.0) -> None:
        """Ask again until it holds."""
        over = time.monotonic() + seconds
        while not holds(self):
            assert time.monotonic() < over, f"did not come to hold within {seconds} s"
            time.sleep(0.05)

    def until_ready(self) -> None:
        self.until(lambda client: client.get("/ready").status == 200)

    def figure(self, name: str) -> float:
        """The value of one sample of /metrics, 0 where there is none yet; `name` with its labels."""
        for line in self.get("/metrics").body.decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0


@contextmanager
def running(app: FastAPI) -> Iterator[Client]:
    """The app on a socket, as `serving.app.serve` runs it, in a thread."""
    listening = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        client = Client(listening.getsockname()[1], {})
        client.until(lambda _: server.started)
        yield client
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listening.close()
        assert not thread.is_alive()


def live_of(world: "ServedWorld", model: str = "proposed", **changes: Any) -> Live:
    return Live(world.model(model), world.repo, world.params(**changes))


def app_of(world: "ServedWorld", model: str = "proposed", token: str | None = None, **changes: Any) -> FastAPI:
    """With what differs in params.yaml; it looks at its store five times a second."""
    changes = {"serve__freshness_every_s": 0.2} | changes
    return create_app(live_of(world, model, **changes), world.params(**changes), world.data, token)


def ids(answer: Answer) -> list[str]:
    """Of the businesses in a ranking, best first."""
    assert answer.status == 200, answer.body
    return [place["business_id"] for place in answer.json["ranking"]]


def nearly(ranked: Any) -> Any:
    """The same ranking: the same request may differ in a probability's seventh digit."""
    places = [{**one, "probability": pytest.approx(one["probability"], abs=1e-6)} for one in ranked["ranking"]]
    return {**ranked, "ranking": places}


def still_answers(client: Client) -> None:
    assert client.get("/health").status == 200
    assert len(ids(client.rank({"user_id": USER, "candidates": ["b1", "b2"]}))) == 2
