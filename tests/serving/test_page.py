"""The page in a real browser, from a real server: what it shows is what the server answers, and text stays text."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

import pyarrow as pa
import pytest

from pipelines.core.tables import BUSINESSES, SUMMARIES, read_table, write_table
from tests.params import ROOT
from tests.serving.browser import Page, needs_chromium, opened_page
from tests.serving.conftest import ServedWorld
from tests.serving.http_client import USER, Client, app_of, running

PAGE = ROOT / "serving" / "page.html"
MARKUP = '<img src=x onerror="document.title=1"><b class="planted">bold</b> & "quoted"'


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with opened_page(tmp_path / "profile") as page:
        yield page


def when(instant: str) -> str:
    """As the page writes an instant."""
    at = datetime.fromisoformat(instant).astimezone(UTC)
    return f"{at.day} {at:%b %Y, %H:%M} UTC"


def said_of(place: dict) -> list[str]:
    """What a row of the table says: rank apart."""
    price = "–" if place["price"] is None else f"{place['price']:g}"
    return [place["name"], f"{100 * place['probability']:.1f}\xa0%", str(place["reviews"]), price]


def shown_rows(page: Page) -> list[list[str]]:
    rows = page.value(
        "[...document.querySelectorAll('#ranking tbody tr')].map((row) => [...row.cells].map((cell) => cell.innerText))"
    )
    return [[name.splitlines()[0].strip(), chance.strip(), reviews, price] for _, name, chance, reviews, price in rows]


@needs_chromium
def test_the_ranking_and_why(page: Page, client: Client) -> None:
    answer = client.rank({"user_id": USER, "top": 4}).json
    business = answer["ranking"][1]["business_id"]
    page.open(f"{client.url}?{urlencode({'user': USER, 'top': 4, 'business': business})}")
    page.until("!document.getElementById('why').hidden")
    assert page.text("#ranking h2") == f"The best 4 of 10 businesses for {USER}"
    about = page.text("#ranking .about")
    assert when(answer["at"]) in about and answer["feature_service"] in about and answer["model"][:12] in about
    assert shown_rows(page) == [said_of(place) for place in answer["ranking"]]
    bars = page.value("[...document.querySelectorAll('#ranking .bar > i')].map((bar) => parseFloat(bar.style.width))")
    assert bars == pytest.approx([100 * place["probability"] for place in answer["ranking"]], abs=0.01)
    assert page.value("document.querySelectorAll('#ranking tr.chosen').length") == 1

    told = client.get(f"/why?{urlencode({'user_id': USER, 'business_id': business, 'at': answer['at']})}").json
    said = page.text("#why")
    assert told["name"] in said and f"{100 * told['probability']:.1f}\xa0%" in said
    moves = [one for one in told["moved"] if one["known"] and abs(one["change"]) >= 0.0005]
    assert moves
    assert page.texts(".moves li span:first-child") == [one["what"][0].upper() + one["what"][1:] for one in moves]
    shown = page.texts(".moves li .number")
    assert shown == [f"{'−' if one['change'] < 0 else '+'}{abs(100 * one['change']):.1f}" for one in moves]
    sides = page.value("[...document.querySelectorAll('.swing > i')].map((bar) => bar.className)")
    assert sides == ["down" if one["change"] < 0 else "up" for one in moves]
    for view in told["views"]:
        assert view["view"] in said
        if view["instant"] is None:
            continue
        assert when(view["instant"]) in said
        if view["reviews"] is not None:
            assert re.search(rf"\b{view['reviews']} reviews?\b", said)
        if view["reading"] is not None:
            for what in (view["reading"]["text"], view["reading"]["prompt"], view["reading"]["source"]):
                assert what is None or what in said or what == "review", what
        for feature in view["features"]:
            if feature["name"].endswith("_mean"):
                numbers = [float(number) for number in re.findall(r"\d+\.\d{3}\b", said)]
                assert (
                    any(abs(number - feature["value"]) <= 0.0006 for number in numbers)
                    or f"{feature['value']:g}" in said
                )
    assert page.problems == []


@needs_chromium
def test_the_keyboard_alone(page: Page, client: Client) -> None:
    most = client.get("/users?limit=1").json["users"][0]["user_id"]
    other = client.get("/users?prefix=u1&limit=2").json["users"][1]["user_id"]
    page.open(client.url)
    page.until(f"document.querySelector('#ranking h2')?.innerText.endsWith('for {most}')")  # something to look at
    page.value("document.getElementById('user').select()")
    page.type("u1")
    page.until("document.querySelectorAll('#suggested li').length === 10")
    assert page.text("#suggested li").split() == [
        other_of(client)["user_id"],
        str(other_of(client)["reviews"]),
        "reviews",
    ]
    page.press("ArrowDown")
    page.press("ArrowDown")
    assert page.value("document.querySelector('#suggested [aria-selected=true]').dataset.id") == other
    page.press("Enter")
    page.until(f"document.querySelector('#ranking h2').innerText.endsWith('for {other}')")
    assert page.value("location.search") == f"?user={other}"
    while page.value("document.activeElement.className") != "place":
        page.press("Tab")
    page.press("Enter")
    page.until("document.activeElement.id === 'why'")
    assert f"business={client.rank({'user_id': other}).json['ranking'][0]['business_id']}" in page.value(
        "location.search"
    )
    page.value("document.getElementById('user').focus()")
    page.value("document.getElementById('user').select()")
    page.type("somebody new")
    page.press("Enter")
    page.until("document.querySelector('#ranking h2').innerText.includes('for somebody new')")
    assert "Nothing is known of this user" in page.text("#ranking")
    assert page.problems == []


def other_of(client: Client) -> dict:
    return client.get("/users?prefix=u1&limit=1").json["users"][0]


@needs_chromium
def test_what_strangers_wrote_stays_text(page: Page, broken: ServedWorld) -> None:
    file = broken.data / "tables" / "businesses.parquet"
    businesses = read_table(file, BUSINESSES).to_pylist()
    for business in businesses:
        business["name"] = f"{business['business_id']} {MARKUP}"
        business["categories"] = [MARKUP]
    write_table(pa.Table.from_pylist(businesses, BUSINESSES), file, BUSINESSES)
    file = broken.data / "features" / "summarize" / "summaries.parquet"
    summaries = read_table(file, SUMMARIES).to_pylist()
    for summary in summaries:
        summary["summary"] = f"{MARKUP}<script>document.title = 2</script>"
    write_table(pa.Table.from_pylist(summaries, SUMMARIES), file, SUMMARIES)
    with running(app_of(broken)) as client:
        client.until_ready()
        page.open(f"{client.url}?{urlencode({'user': USER, 'business': 'b1', 'category': MARKUP})}")
        page.until("!document.getElementById('why').hidden")
        assert page.text("#why h2") == f"b1 {MARKUP}"
        assert f"{MARKUP}<script>document.title = 2</script>" in page.text("#why")
        assert MARKUP in page.text("#ranking")
        page.open(f"{client.url}?{urlencode({'user': MARKUP})}")
        page.until(f"document.querySelector('#ranking h2')?.innerText.includes({json.dumps(MARKUP)})")
        assert page.value("document.querySelectorAll('.planted, img').length") == 0
        assert page.value("document.title") == "Recommendations"
    assert page.problems == []


@needs_chromium
def test_the_security_policy_stops_what_would_get_through(page: Page, client: Client) -> None:
    page.open(client.url)
    page.until("!document.getElementById('ranking').hidden")
    page.value(
        """(() => {
          const planted = document.createElement("div");
          planted.innerHTML = "<img src=x onerror='document.title=1'>";
          const script = document.createElement("script");
          script.textContent = "document.title = 2";
          document.body.append(planted, script);
        })()"""
    )
    refused = "fetch('http://localhost:1/').then(() => 'sent', (error) => String(error))"
    assert "TypeError" in page.value(refused)
    assert page.value("document.title") == "Recommendations"
    assert "Content Security Policy" in "".join(page.problems)


@needs_chromium
def test_errors_are_said_in_words(page: Page, broken: ServedWorld) -> None:
    file = broken.model()
    file.rename(file.with_suffix(".kept"))
    with running(app_of(broken)) as client:
        page.open(f"{client.url}?user={USER}")
        page.until("!document.getElementById('error').hidden")
        assert page.text("#error") == client.rank({"user_id": USER}).line.replace("`", "")
        assert page.value("document.getElementById('error').getAttribute('role')") == "alert"
        file.with_suffix(".kept").rename(file)
        client.until_ready()
        page.value("document.querySelector('#ask button').click()")
        page.until("!document.getElementById('ranking').hidden")
        assert page.value("document.getElementById('error').hidden")
        page.value("document.getElementById('price-tag').value = ''")
        page.value("document.getElementById('category').value = 'acai_bowls'")
        page.value("document.querySelector('#ask button').click()")
        page.until("document.querySelector('#ranking h2').innerText === 'No business meets all of this'")
    page.value("document.querySelector('#ask button').click()")
    page.until("document.getElementById('error').innerText.includes('The server does not answer')")


@needs_chromium
def test_it_asks_for_the_token_and_keeps_it_in_the_tab(page: Page, served: ServedWorld) -> None:
    with running(app_of(served, token="open sesame")) as client:
        client.until_ready()
        page.open(client.url)
        page.until("!document.getElementById('token-form').hidden")
        assert page.value("document.activeElement.id") == "token" and page.value(
            "document.getElementById('ranking').hidden"
        )
        page.type("wrong")
        page.press("Enter")
        page.until("document.getElementById('error').innerText === 'The token was not taken.'")
        page.type("open sesame")
        page.press("Enter")
        page.until("!document.getElementById('ranking').hidden")
        assert page.value("document.getElementById('token-form').hidden && document.getElementById('error').hidden")
        assert page.value("JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}])") == json.dumps(
            ["", {}, {"token": "open sesame"}], separators=(",", ":")
        )
        assert "sesame" not in page.value("location.href")


@needs_chromium
@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_sticks_out_and_everything_has_a_label(page: Page, client: Client, width: int) -> None:
    page.open(f"{client.url}?{urlencode({'user': USER, 'business': 'b1'})}", width)
    page.until("!document.getElementById('why').hidden")
    assert page.value("document.documentElement.scrollWidth") <= width
    unlabelled = "[...document.querySelectorAll('input, select')].filter((one) => !one.labels.length).length"
    assert page.value(unlabelled) == 0
    assert (
        page.value("[...document.querySelectorAll('button')].filter((one) => !one.innerText).length") <= 1
    )  # token's, hidden


def test_the_page_needs_nothing_from_elsewhere() -> None:
    text = PAGE.read_text()
    assert re.findall(r"(?:https?:)?//[\w.]+", re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)) == []
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|localStorage|\son\w+=|style=", text
    )
    assert re.findall(r"""<(?:script|link|img|iframe)\b[^>]*(?:src|href)=["']?([^"'>]*)""", text) == ["data:,"]
