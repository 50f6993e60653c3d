"""Stores, models and tables that go, are broken, hang and come back: the app says so, and goes on by itself."""

import dataclasses
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from redis import Redis

from models.recommender import TrainedRecommender
from pipelines.core.tables import BUSINESSES, write_table
from pipelines.core.vocabulary import PRICE_TAGS
from serving import limits
from serving.app import create_app
from serving.live import Live
from serving.ranker import Ranker
from tests.serving.conftest import ServedWorld
from tests.serving.http_client import USER, app_of, nearly, running, still_answers
from tests.serving.redis_server import redis_server
from tests.serving.stores import move_to_redis


def hide(world: ServedWorld) -> None:
    for file in world.online.parent.glob("online.db*"):
        file.rename(file.with_name(f"hidden-{file.name}"))


def bring_back(world: ServedWorld) -> None:
    for file in world.online.parent.glob("hidden-*"):
        file.rename(file.with_name(file.name.removeprefix("hidden-")))


def test_the_store_goes_and_comes_back(broken: ServedWorld) -> None:
    asked = {"user_id": USER, "candidates": ["b1", "b2", "b3"]}
    with running(app_of(broken)) as client:
        client.until_ready()
        before = nearly(client.rank(asked).json)
        hide(broken)
        for answer in (client.rank(asked), client.get(f"/why?user_id={USER}&business_id=b1")):
            assert answer.status == 503 and "no such file" in answer.line and "online.db" in answer.line
            assert answer.headers["retry-after"] == "1"
        client.until(lambda client: client.get("/ready").status == 503)
        ready = client.get("/ready").json
        assert ready["ready"] is False and "online.db" in ready["reasons"][0]
        assert client.figure("mmrec_ready") == 0
        assert client.get("/health").status == client.get("/users").status == client.get("/").status == 200
        bring_back(broken)
        client.until_ready()
        assert client.rank(asked).json == before
        assert client.figure("mmrec_ready") == 1


def test_a_store_that_is_no_store(broken: ServedWorld) -> None:
    with running(app_of(broken)) as client:
        client.until_ready()
        hide(broken)
        broken.online.write_bytes(b"no database" * 1000)
        answer = client.rank({"user_id": USER})
        assert answer.status == 503 and "not a database" in answer.line
        broken.online.unlink()
        bring_back(broken)
        client.until_ready()
        still_answers(client)


def test_a_model_that_comes_later(broken: ServedWorld) -> None:
    file = broken.model()
    file.rename(file.with_suffix(".later"))
    with running(app_of(broken)) as client:
        for answer in (client.rank({"user_id": USER}), client.get("/catalogue")):
            assert answer.status == 503 and answer.line.startswith(f"{file}: no such file; ")
        client.until(lambda client: "no such file" in str(client.get("/ready").json["reasons"]))
        assert client.get("/health").status == 200 and client.get("/users").status == 200
        file.with_suffix(".later").rename(file)
        assert client.rank({"user_id": USER}).status == 200
        client.until_ready()


def test_a_model_that_goes_a_broken_one_and_another(broken: ServedWorld) -> None:
    file = broken.model()
    good = file.read_bytes()
    with running(app_of(broken)) as client:
        client.until_ready()
        before = nearly(client.rank({"user_id": USER}).json)
        file.unlink()
        assert client.rank({"user_id": USER}).json == before  # the loaded one goes on, and says so
        client.until(lambda client: client.get("/ready").json["warnings"] != [])
        assert "the file is gone" in client.get("/ready").json["warnings"][0] and client.get("/ready").status == 200

        file.write_bytes(b"not a model")
        answer = client.rank({"user_id": USER})
        assert answer.status == 503 and "not a safetensors file" in answer.line
        client.until(lambda client: client.get("/ready").status == 503)

        file.write_bytes(good)
        strange = dataclasses.replace(TrainedRecommender.load(file), feature_service="other_point_in_time")
        strange.save(file)
        answer = client.rank({"user_id": USER})
        assert answer.status == 503 and "'other_point_in_time'" in answer.line and "registry" in answer.line

        renamed = broken.model("baseline").read_bytes()
        file.write_bytes(renamed)
        assert client.rank({"user_id": USER}).json["feature_service"] == "baseline_point_in_time"
        file.write_bytes(good)
        assert client.rank({"user_id": USER}).json == before
        client.until_ready()
        assert client.get("/ready").json["warnings"] == []
        info = 'feature_service="proposed_point_in_time"'
        client.until(lambda client: info in client.get("/metrics").body.decode())


def test_tables_that_come_go_and_change(broken: ServedWorld) -> None:
    tables = broken.data / "tables"
    with running(app_of(broken)) as client:
        (tables / "businesses.parquet").rename(tables / "kept.parquet")
        (tables / "reviews.parquet").unlink()
        refused = client.rank({"user_id": USER})
        assert refused.status == 422 and "name the candidates" in refused.line
        place = client.rank({"user_id": USER, "candidates": ["b1"]}).json["ranking"][0]
        assert place["name"] is None and place["reviews"] > 0
        assert client.get("/users").json == {"users": []}
        assert client.get("/catalogue").json == {
            "businesses": 0,
            "categories": [],
            "price_tags": list(PRICE_TAGS),
            "prices": None,
        }
        for name in ("Renamed", "And again"):
            one = {"business_id": ["b1"], "name": [name], "categories": [["New"]], "price": [None]}
            write_table(pa.table(one, schema=BUSINESSES), tables / "businesses.parquet", BUSINESSES)
            assert [place["name"] for place in client.rank({"user_id": USER}).json["ranking"]] == [name]
        (tables / "businesses.parquet").write_bytes(b"no table")  # what was read goes on
        assert [place["name"] for place in client.rank({"user_id": USER}).json["ranking"]] == ["And again"]


class Stuck(Live):
    """A model whose store answers when it is let."""

    def __init__(self, world: ServedWorld) -> None:
        super().__init__(world.model(), world.repo, world.params())
        self.let = threading.Event()
        self.waiting = 0

    def ranker(self) -> Ranker:
        self.waiting += 1
        self.let.wait(30)
        return super().ranker()


def test_while_requests_hang_the_app_lives(served: ServedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 45  # more than there are threads
    monkeypatch.setattr(limits, "MOST_UNDER_WAY", most)
    stuck = Stuck(served)
    with running(create_app(stuck, served.params(), served.data, None)) as client, ThreadPoolExecutor(most) as pool:
        try:
            asked = [pool.submit(client.rank, {"user_id": USER}) for _ in range(most)]
            client.until(lambda _: stuck.waiting >= 40)
            time.sleep(0.3)
            for path in ("/health", "/metrics", "/"):
                begun = time.monotonic()
                assert client.get(path).status == 200
                assert time.monotonic() - begun < 10  # s, of the 30 that the others hang
            assert client.get("/ready").status == 503
            refused = client.rank({"user_id": USER})
            assert refused.status == 503 and refused.line == f"{most} requests are under way: ask again in a moment"
        finally:
            stuck.let.set()
        assert {answer.result().status for answer in asked} == {200}
        assert client.rank({"user_id": USER}).status == 200


@pytest.mark.slow
def test_a_redis_that_stops_answering(broken: ServedWorld, tmp_path: Path) -> None:
    """With a `socket_timeout` in its settings; without one, requests wait, as in the test above."""
    asked = {"user_id": USER, "candidates": ["b1", "b2", "b3"]}
    with redis_server(tmp_path / "redis") as address:
        move_to_redis(broken, f"{address},socket_timeout=0.5")
        host, port = address.split(":")
        process = Redis(host, int(port)).info("server")["process_id"]
        with running(app_of(broken)) as client:
            client.until_ready()
            before = nearly(client.rank(asked).json)
            os.kill(process, signal.SIGSTOP)
            try:
                answer = client.rank(asked)
                assert answer.status == 503 and "online store redis" in answer.line, answer.body
                assert client.get("/health").status == 200
                client.until(lambda client: client.get("/ready").status == 503)
            finally:
                os.kill(process, signal.SIGCONT)
            client.until_ready()
            assert client.rank(asked).json == before
