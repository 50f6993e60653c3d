"""The ranker over HTTP: its answers are the ranker's, and it says what it takes."""

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.core.errors import UserError, exit_code_of
from pipelines.core.tables import REVIEWS, write_table
from pipelines.core.vocabulary import PRICE_TAGS
from serving.app import bind, read_page, serve
from serving.catalogue import Catalogue
from serving.choice import Asked, choose
from serving.ranker import Ranker, open_ranker, open_store
from serving.requests import RankRequest
from serving.why import why
from tests.params import ROOT
from tests.serving.conftest import ServedWorld
from tests.serving.http_client import USER, Client, app_of, ids, live_of, nearly, running
from tests.serving.stores import write_row
from tests.small_world import honest_reviews


@pytest.fixture(scope="module")
def ranker(served: ServedWorld) -> Ranker:
    return open_ranker(served.model(), served.repo, served.params())


def test_all_businesses_are_ranked_as_the_ranker_ranks_them(client: Client, ranker: Ranker) -> None:
    answer = client.rank({"user_id": USER}).json
    told = ranker.rank(USER, [f"b{i}" for i in range(10)])
    assert answer["known"] is True and answer["candidates"] == 10
    assert datetime.fromisoformat(answer["at"]) == told.at
    assert answer["feature_service"] == "proposed_point_in_time"
    assert answer["model"] == ranker.digest
    chances = [place["probability"] for place in answer["ranking"]]
    assert chances == sorted(chances, reverse=True)
    assert {place["business_id"]: place["probability"] for place in answer["ranking"]} == pytest.approx(
        dict(zip(told.ids, told.probabilities, strict=True)), abs=1e-6
    )
    reviews, types = dict(zip(told.ids, told.reviews, strict=True)), dict(zip(told.ids, told.types, strict=True))
    for place in answer["ranking"]:
        one = place["business_id"]
        assert place["name"] == f"Place {one[1:]}"
        assert place["categories"] == (["Thai", "Bar"] if one == "b0" else ["Diner"])
        assert place["price"] == (None if one == "b0" else float(one[1:]) - 1)
        assert place["reviews"] == reviews[one] > 0
        assert tuple(place["types"]) == types[one]
        assert place["price_tag"] in (*PRICE_TAGS, None)


def test_candidates_known_or_not_each_count_once(client: Client) -> None:
    answer = client.rank({"user_id": USER, "candidates": ["b2", "nowhere", "b2", "b1", "elsewhere", "b9"]})
    assert sorted(ids(answer)) == ["b1", "b2", "b9", "elsewhere", "nowhere"]
    assert answer.json["candidates"] == 5
    places = {place["business_id"]: place for place in answer.json["ranking"]}
    unknown = places["nowhere"]
    assert unknown["probability"] == places["elsewhere"]["probability"]
    blank = {"name": None, "reviews": 0, "categories": [], "price": None, "price_tag": None, "types": []}
    assert unknown == {"business_id": "nowhere", "probability": unknown["probability"], **blank}
    order = ids(answer)
    assert order.index("elsewhere") + 1 == order.index("nowhere")  # equals by their ids


def test_an_unknown_user_is_cold_and_no_error(client: Client) -> None:
    answer = client.rank({"user_id": "nobody at all <b>", "top": 3}).json
    assert answer["known"] is False and len(answer["ranking"]) == 3
    cold = client.rank({"user_id": "nobody at all <b>", "candidates": ["nowhere"]}).json
    assert 0 < cold["ranking"][0]["probability"] < 1


def test_conditions(client: Client) -> None:
    everything = client.rank({"user_id": USER}).json["ranking"]

    def left(holds) -> list[str]:
        return [place["business_id"] for place in everything if holds(place)]

    assert ids(client.rank({"user_id": USER, "category": "tHAI"})) == ["b0"]
    some_type = next(place["types"][0] for place in everything if place["types"])
    of_type = left(lambda place: some_type in place["types"])
    assert of_type and ids(client.rank({"user_id": USER, "category": some_type.upper()})) == of_type
    for tag in PRICE_TAGS:
        assert ids(client.rank({"user_id": USER, "price_tag": tag})) == left(
            lambda place, tag=tag: place["price_tag"] == tag
        )
    cheap = left(lambda place: place["price"] is not None and place["price"] <= 3)
    assert len(cheap) == 4 and ids(client.rank({"user_id": USER, "max_price": 3})) == cheap
    assert ids(client.rank({"user_id": USER, "max_price": 3, "top": 2})) == cheap[:2]
    two_left = client.rank({"user_id": USER, "max_price": 3, "exclude": [*cheap[:2], "nowhere"]})
    assert ids(two_left) == cheap[2:] and two_left.json["candidates"] == 2
    assert ids(client.rank({"user_id": USER, "candidates": cheap[:3], "max_price": 3})) == cheap[:3]
    for nothing in (
        {"category": "acai_bowls"},
        {"max_price": 0, "exclude": ["b1"]},
        {"candidates": ["b1"], "exclude": ["b1"]},
    ):
        answer = client.rank({"user_id": USER} | nothing)
        assert ids(answer) == [] and answer.json["candidates"] == 0 and answer.json["known"] is True


def test_more_businesses_than_a_request_may_name_are_ranked_in_blocks(served: ServedWorld, client: Client) -> None:
    with running(app_of(served, serve__most_candidates=3)) as bounded:
        for asked in ({"user_id": USER}, {"user_id": USER, "category": "diner", "top": 4}):
            one, other = bounded.rank(asked).json, client.rank(asked).json
            assert ids(bounded.rank(asked)) == ids(client.rank(asked))
            assert one["candidates"] == other["candidates"] > 3 and one["at"] == other["at"]


def test_blocks_are_of_one_instant_though_one_has_just_been_written(broken: ServedWorld) -> None:
    ranker = open_ranker(broken.model(), broken.repo, broken.params())
    later = ranker.now() + timedelta(days=3)
    values = {"review_count": 3, "rating_mean": 4.0, "rating_std": 0.0, "rating_trend": 0.0, "newest_review_at": later}
    write_row(open_store(broken.repo), "business_history", "b9", values, later)
    businesses = Catalogue(broken.data).businesses()
    chosen = choose(ranker, businesses, Asked(USER), 3)
    assert [ranking.at for ranking in chosen.rankings] == [later] * 4 and chosen.at == later
    at_once = ranker.rank(USER, businesses.ids, later)
    best = sorted(range(10), key=lambda i: (-at_once.probabilities[i], at_once.ids[i]))
    assert [one.business_id for one in chosen.best] == [at_once.ids[i] for i in best]
    with pytest.raises(UserError, match="know of a review at"):
        choose(ranker, businesses, Asked(USER, at=later - timedelta(days=1)), 3)


def test_an_instant_is_about_its_moment(client: Client, ranker: Ranker) -> None:
    later = ranker.now() + timedelta(days=400)
    answer = client.rank({"user_id": USER, "candidates": ["b1"], "at": later.isoformat()}).json
    assert datetime.fromisoformat(answer["at"]) == later
    assert answer["ranking"][0]["probability"] == pytest.approx(ranker.rank(USER, ["b1"], later).probabilities[0])
    india = later.astimezone(datetime.strptime("+0530", "%z").tzinfo).isoformat()
    assert client.rank({"user_id": USER, "candidates": ["b1"], "at": india}).json == nearly(answer)


def test_why_is_what_why_says(client: Client, ranker: Ranker, served: ServedWorld) -> None:
    told = client.get(f"/why?user_id={USER}&business_id=b1").json
    assert told == why(ranker, USER, "b1", None, served.data, served.params())
    ranked = client.rank({"user_id": USER, "candidates": ["b1"], "at": told["at"]}).json
    assert ranked["ranking"][0]["probability"] == pytest.approx(told["probability"], abs=1e-6)
    assert client.get("/why?user_id=nobody&business_id=nowhere").status == 200


def test_users_and_catalogue(client: Client, served: ServedWorld) -> None:
    counts = pq.read_table(served.data / "tables" / "reviews.parquet")["user_id"].value_counts().to_pylist()
    expected = sorted(
        ({"user_id": one["values"], "reviews": one["counts"]} for one in counts),
        key=lambda user: (-user["reviews"], user["user_id"]),
    )
    assert client.get("/users").json["users"] == expected[:20]
    assert client.get("/users?limit=200").json["users"] == expected
    assert (
        client.get("/users?prefix=u1&limit=3").json["users"]
        == [one for one in expected if one["user_id"].startswith("u1")][:3]
    )
    assert client.get("/users?prefix=zzz").json == {"users": []}
    assert client.get("/catalogue").json == {
        "businesses": 10,
        "categories": ["Diner", "Bar", "Thai"],
        "price_tags": list(PRICE_TAGS),
        "prices": {"min": 0.0, "max": 8.0},
    }


def test_a_model_without_tags(served: ServedWorld) -> None:
    with running(app_of(served, "baseline")) as baseline:
        assert baseline.get("/catalogue").json["price_tags"] == []
        place = baseline.rank({"user_id": USER}).json["ranking"][0]
        assert place["price_tag"] is None and place["types"] == []
        refused = baseline.rank({"user_id": USER, "price_tag": "cheap"})
        assert refused.status == 422 and "baseline_point_in_time has no tags" in refused.line
        assert ids(baseline.rank({"user_id": USER, "category": "thai"})) == ["b0"]


def test_users_by_prefix_are_those_a_scan_finds(tmp_path: Path) -> None:
    reviews = honest_reviews(300, users=40)
    reviews["user_id"] = [f"{'é' if i % 3 else 'z'}{name}" for i, name in enumerate(reviews["user_id"])]
    write_table(pa.Table.from_pandas(reviews, preserve_index=False), tmp_path / "tables" / "reviews.parquet", REVIEWS)
    users = Catalogue(tmp_path).users()
    counts = reviews["user_id"].value_counts()
    for prefix, limit in itertools.product(("", "z", "zu1", "é", "éu", "éu12", "nobody"), (1, 3, 1000)):
        found = [(name, int(counts[name])) for name in counts.index if name.startswith(prefix)]
        assert users.beginning_with(prefix, limit) == sorted(found, key=lambda one: (-one[1], one[0]))[:limit]


def test_openapi_says_what_is_taken_and_answered(client: Client) -> None:
    told = client.get("/openapi.json").json
    assert told["paths"].keys() == {"/rank", "/why", "/users", "/catalogue", "/health", "/ready", "/metrics"}
    schema = told["paths"]["/rank"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"].keys() == RankRequest.model_fields.keys()
    assert schema["additionalProperties"] is False and schema["required"] == ["user_id"]
    assert all(field.get("description") for field in schema["properties"].values())
    for example in schema["examples"]:
        assert client.rank(example).status == 200
    for path, status in (
        ("/rank", "400"),
        ("/rank", "413"),
        ("/rank", "422"),
        ("/why", "422"),
        ("/why", "503"),
        ("/users", "401"),
    ):
        (operation,) = told["paths"][path].values()
        reference = operation["responses"][status]["content"]["application/json"]["schema"]["$ref"]
        assert reference == "#/components/schemas/ErrorAnswer"
    assert "HTTPValidationError" not in json.dumps(told)
    assert [one["name"] for one in told["paths"]["/why"]["get"]["parameters"]] == ["user_id", "business_id", "at"]
    assert client.get("/docs").status == 404, "its viewer would come from another machine"


def test_every_answer_has_its_headers(client: Client) -> None:
    for answer in (client.get("/"), client.rank({"user_id": USER}), client.get("/nowhere"), client.rank(b"{")):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
    policy = client.get("/").headers["content-security-policy"]
    assert policy == read_page(ROOT / "serving" / "page.html")[1]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
    assert len(re.findall(r"'sha256-[A-Za-z0-9+/]{43}='", policy)) == 2


def test_an_address_that_cannot_be_had_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^--host no\.such\.host\.invalid: .*; name an address of this machine$"):
        bind("no.such.host.invalid", 0)
    with pytest.raises(
        UserError, match=r"^--host 192\.0\.2\.1 --port 0: cannot assign requested address; pass another$"
    ):
        bind("192.0.2.1", 0)


SERVE = """
import sys
from pathlib import Path
from pipelines.core.params import load_params
from serving.app import serve
from serving.live import Live
root = Path(sys.argv[1])
params = load_params(root / "params.yaml")
serve(Live(root / "proposed.safetensors", root / "feature_repo", params), params, root / "data", None, sys.argv[2], 0)
"""


def test_served_until_told_to_end_and_nobody_is_named_in_its_log(served: ServedWorld) -> None:
    """On all addresses and without a token: a warning. 127.0.0.1 is the other tests'."""
    canary = "canary-91c2"
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(served.root), "0.0.0.0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert process.stdout is not None
    address = re.fullmatch(r"serving http://0\.0\.0\.0:(\d+)/\n", process.stdout.readline())
    assert address is not None
    client = Client(int(address[1]), {})
    client.until_ready()
    assert client.rank({"user_id": canary}).status == 200
    assert client.rank({"user_id": canary, "at": "2001-01-01T00:00:00Z", "candidates": ["b1"]}).status == 422
    assert client.get(f"/why?user_id={canary}&business_id=b1").status == 200
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert out == "" and canary not in err and "Traceback" not in err
    warned = [line for line in err.splitlines() if line.startswith("warning: ")]
    assert warned == ["warning: 0.0.0.0 is reachable from other machines, and nobody needs a token: set MMREC_TOKEN"]


def test_a_taken_port_ends_it(served: ServedWorld, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        live, params = live_of(served), served.params()
        assert exit_code_of(lambda: serve(live, params, served.data, None, port=port)) == 2
    assert capsys.readouterr() == ("", f"error: --host 127.0.0.1 --port {port}: address already in use; pass another\n")
