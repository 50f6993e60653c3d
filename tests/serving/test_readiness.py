"""Whether it is ready, how old its rows are, and what it counts."""

import re
import sqlite3
import time
from datetime import UTC, datetime

import pytest

from models.recommender import TrainedRecommender
from tests.serving.conftest import ServedWorld
from tests.serving.http_client import USER, Client, app_of, running


def test_readiness_and_its_figures(client: Client) -> None:
    ready = client.get("/ready").json
    assert ready["ready"] is True and ready["reasons"] == [] and ready["warnings"] == []
    assert ready["views"].keys() == {
        "user_history", "business_history", "user_summary", "business_summary", "business_tags", "business_photos",
    }  # fmt: skip
    business = ready["views"]["business_history"]
    assert business["rows"] == 10 == client.figure('mmrec_view_rows{view="business_history"}')
    newest = datetime.fromisoformat(business["newest"])
    assert newest.year == 2020
    assert business["age_seconds"] == pytest.approx((datetime.now(UTC) - newest).total_seconds(), abs=5)
    first = client.figure('mmrec_view_newest_age_seconds{view="business_history"}')
    assert first == pytest.approx(business["age_seconds"], abs=5)
    time.sleep(0.05)
    assert client.figure('mmrec_view_newest_age_seconds{view="business_history"}') > first


@pytest.mark.parametrize(("hours", "status"), [(1.0, 503), (10_000_000.0, 200)])
def test_rows_past_their_bound_are_not_ready(served: ServedWorld, hours: float, status: int) -> None:
    with running(app_of(served, serve__stale_after_hours=hours)) as client:
        client.until(lambda client: client.get("/ready").json["views"] != {})
        answer = client.get("/ready")
        assert answer.status == status
        if status == 503:
            assert len(answer.json["reasons"]) == 6
            line = r"^user_history: its newest row is [\d.]+ hours old, `serve.stale_after_hours` is 1: materialize"
            assert re.search(line, answer.json["reasons"][0])
        assert client.figure("mmrec_ready") == (status == 200)
        assert client.rank({"user_id": USER}).status == 200  # who asks is answered


def test_an_empty_store_is_not_ready(broken: ServedWorld) -> None:
    with sqlite3.connect(broken.online) as store:
        for (table,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            store.execute(f'DELETE FROM "{table}"')
    store.close()
    with running(app_of(broken)) as client:
        client.until(lambda client: "has a row" in str(client.get("/ready").json["reasons"]))
        assert client.get("/ready").status == 503
        answer = client.rank({"user_id": USER})
        assert answer.status == 503 and "has a row; run `feast materialize`" in answer.line


def test_metrics_move(served: ServedWorld) -> None:
    canary = "canary-7f3a"
    with running(app_of(served)) as client:
        client.until_ready()
        for _ in range(3):
            client.rank({"user_id": USER})
        client.rank({"user_id": canary, "candidates": ["b1", canary, "nowhere"]})
        client.rank({"user_id": canary, "top": 0})
        client.get(f"/why?user_id={canary}&business_id={canary}")
        client.get(f"/{canary}")
        text = client.get("/metrics")
        assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert canary not in text.body.decode()
        for name, expected in {
            'mmrec_requests_total{route="/rank",status="200"}': 4,
            'mmrec_requests_total{route="/rank",status="422"}': 1,
            'mmrec_requests_total{route="/why",status="200"}': 1,
            'mmrec_requests_total{route="other",status="404"}': 1,
            'mmrec_request_seconds_count{route="/rank"}': 5,
            'mmrec_step_seconds_count{step="read"}': 4,
            'mmrec_step_seconds_count{step="encode"}': 4,
            'mmrec_step_seconds_count{step="score"}': 4,
            "mmrec_candidates_count": 4,
            "mmrec_candidates_sum": 33,
            'mmrec_candidates_bucket{le="1.0"}': 0,
            "mmrec_cold_users_total": 1,
            "mmrec_cold_businesses_total": 2,
            "mmrec_ready": 1,
        }.items():
            # counted when an answer has gone out: a moment after it has come in here
            client.until(lambda asked, name=name, expected=expected: asked.figure(name) == expected, seconds=5.0)
        digest = TrainedRecommender.load(served.model()).digest
        info = f'mmrec_model_info{{digest="{digest}",feature_service="proposed_point_in_time"}}'
        assert client.figure(info) == 1
        buckets = re.findall(r'mmrec_request_seconds_bucket\{le="([\d.]+)",route="/rank"\}', text.body.decode())
        assert sum(0.001 <= float(edge) <= 0.1 for edge in buckets) >= 10


def test_two_apps_count_apart(served: ServedWorld, client: Client) -> None:
    with running(app_of(served)) as other:
        name = 'mmrec_requests_total{route="/users",status="200"}'
        for _ in range(2):
            client.get("/users")
        other.get("/users")
        other.until(lambda asked: asked.figure(name) > 0, seconds=5.0)
        assert other.figure(name) == 1
