"""`python -m serving`: what it prints, and the one line where it cannot."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.core.tables import BUSINESSES
from serving.__main__ import main
from serving.catalogue import Catalogue
from serving.choice import Asked, choose
from serving.ranker import open_ranker
from serving.why import why
from tests.params import ROOT
from tests.serving.conftest import ServedWorld

AT = "2020-03-01T12:30:00Z"
LATER = datetime.fromisoformat(AT)

Said = tuple[int, str, str]
"""Exit code, stdout, stderr."""


@pytest.fixture
def run(served: ServedWorld, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """The command in this process; what argparse refuses ends as it does."""

    def running(*words: str, world: ServedWorld = served) -> Said:
        capsys.readouterr()
        places = () if words[0].startswith("-") else where(world)
        try:
            code = main([words[0], *places, *words[1:]])
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, *capsys.readouterr()

    return running


def where(world: ServedWorld) -> list[str]:
    paths = {"model": world.model(), "repo": world.repo, "data": world.data, "params": world.root / "params.yaml"}
    return [word for name, path in paths.items() for word in (f"--{name}", str(path))]


def process(words: Sequence[str], folder: Path, **environment: str) -> subprocess.Popen[str]:
    """`python -m serving` in another folder than the repository's."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", "serving", *words]
    return subprocess.Popen(
        command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def rows_of(said: str) -> list[list[str]]:
    """Cells of the table under the heading."""
    _, _, *rows = said.splitlines()
    return [re.split(r" {2,}", row.strip()) for row in rows]


# --- rank ------------------------------------------------------------------------------------------------------------


def test_rank_prints_what_is_chosen(run: Callable[..., Said], served: ServedWorld) -> None:
    code, out, err = run("rank", "--user", "u03", "--at", AT, "--top", "4")
    assert (code, err) == (0, "")
    params = served.params()
    ranker = open_ranker(served.model(), served.repo, params)
    chosen = choose(ranker, Catalogue(served.data).businesses(), Asked("u03", top=4, at=LATER), 10)
    head, titles = out.splitlines()[:2]
    assert head == (
        f"user u03 (known), at {AT}: 4 of 10 candidates; model {ranker.digest[:12]} by proposed_point_in_time"
    )
    assert titles.split() == ["rank", "probability", "reviews", "business_id", "name"]
    assert rows_of(out) == [
        [str(place), f"{one.probability:.4f}", str(one.reviews), one.business_id, f"Place {one.business_id[1:]}"]
        for place, one in enumerate(chosen.best, start=1)
    ]
    assert len({line.index("Place") for line in out.splitlines()[2:]}) == 1


def test_rank_as_json_is_the_http_answer(run: Callable[..., Said], served: ServedWorld) -> None:
    from fastapi.testclient import TestClient

    from serving.app import create_app
    from serving.live import Live

    params = served.params()
    app = create_app(Live(served.model(), served.repo, params), params, served.data, None)
    with TestClient(app) as client:
        for flags, request in (
            (["--top", "3"], {"top": 3}),
            (["--candidates", "b4,b1, b4,elsewhere"], {"candidates": ["b4", "b1", "b4", "elsewhere"]}),
            (["--category", "thai"], {"category": "thai"}),
            (["--price-tag", "cheap"], {"price_tag": "cheap"}),
            (["--max-price", "3.5", "--exclude", "b1,b2"], {"max_price": 3.5, "exclude": ["b1", "b2"]}),
        ):
            code, out, err = run("rank", "--user", "u03", "--at", AT, "--json", *flags)
            assert (code, err) == (0, "")
            printed = json.loads(out)
            for one in printed["ranking"]:
                # Rows that are encoded beside other rows differ in their last bits.
                one["probability"] = pytest.approx(one["probability"], abs=1e-6)
            assert printed == client.post("/rank", json={"user_id": "u03", "at": AT, **request}).json()


def test_candidates_from_a_file(run: Callable[..., Said], tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("b7\n\n  b2 \nelsewhere, too\n")
    code, out, err = run("rank", "--user", "u03", "--at", AT, "--candidates-file", str(file))
    assert (code, err) == (0, "")
    assert {row[3] for row in rows_of(out)} == {"b7", "b2", "elsewhere, too"}


def test_strangers_are_ranked_not_refused(run: Callable[..., Said]) -> None:
    code, out, err = run("rank", "--user", "nobody", "--candidates", "nowhere,b1", "--at", AT)
    assert (code, err) == (0, "")
    assert out.startswith(f"user nobody (unknown: ranked as a newcomer), at {AT}: 2 of 2 candidates;")
    assert {row[3]: row[2] for row in rows_of(out)}["nowhere"] == "0"


def test_without_an_instant_it_is_the_ranker_s(run: Callable[..., Said]) -> None:
    _, out, _ = run("rank", "--user", "u03")
    assert re.match(r"user u03 \(known\), at 2020-01-1\dT\d\d:\d\d:\d\dZ: 10 of 10 candidates; ", out)


def test_names_of_strangers_do_not_move_the_terminal(run: Callable[..., Said], broken: ServedWorld) -> None:
    names = {"business_id": ["b1"], "name": ["\x1b[2Jred\nherring\u202e"], "categories": [["x"]], "price": [1.0]}
    pq.write_table(pa.table(names, BUSINESSES), broken.data / "tables" / "businesses.parquet")
    for words in (["rank"], ["why", "--business", "b1"]):
        code, out, err = run(words[0], "--user", "u03", "--at", AT, *words[1:], world=broken)
        assert (code, err) == (0, "")
        assert "[2Jred herring" in out
        assert "\x1b" not in out and "\u202e" not in out


# --- why -------------------------------------------------------------------------------------------------------------


def test_why_as_json_is_the_whole(run: Callable[..., Said], served: ServedWorld) -> None:
    code, out, err = run("why", "--user", "u03", "--business", "b4", "--at", AT, "--json")
    assert (code, err) == (0, "")
    params = served.params()
    ranker = open_ranker(served.model(), served.repo, params)
    assert json.loads(out) == why(ranker, "u03", "b4", LATER, served.data, params)


def test_why_reads_as_a_page(run: Callable[..., Said], served: ServedWorld) -> None:
    code, out, err = run("why", "--user", "u03", "--business", "b4", "--at", AT)
    assert (code, err) == (0, "")
    params = served.params()
    found = why(open_ranker(served.model(), served.repo, params), "u03", "b4", LATER, served.data, params)
    assert f"user u03, business b4 (Place 4), at {AT}\nprobability {found['probability']:.4f}, by model" in out
    for view in found["views"]:
        assert f"\n{view['view']}" in out
        if view["reading"]:
            assert view["reading"]["note"] in out
            for call in view["reading"]["calls"]:
                assert f"call {call['key'][:12]}: {call['status']}" in out
    history = found["views"][0]
    mean = {feature["name"]: feature["value"] for feature in history["features"]}["user_history__rating_mean"]
    assert re.search(
        rf"user_history, of {history['reviews']} reviews, row of {history['instant']}, \d+ days old\n", out
    )
    assert re.search(rf"  rating_mean +{mean:.4f}\n", out)
    summary = next(view for view in found["views"] if view["view"] == "business_summary")["reading"]
    assert f"  | {summary['text']}\n" in out
    for group in found["moved"]:
        assert f"{group['without']:.4f}  {group['change']:+.4f}  {group['what']}\n" in out


def test_why_of_strangers_says_that_nothing_is_known(run: Callable[..., Said]) -> None:
    code, out, err = run("why", "--user", "nobody", "--business", "nowhere", "--at", AT)
    assert (code, err) == (0, "")
    assert out.count(": no row\n") == 6
    _, unknown = out.split("  unknown: ")
    said = " ".join(unknown.split())
    assert said.startswith("all numbers of the user's history, how many reviews") and said.endswith("business's photos")
    assert "0.0000" not in out


# --- one line where it cannot ----------------------------------------------------------------------------------------

REFUSED = {
    "rank --user u03 --at yesterday": "error: argument --at: 'yesterday' is no instant with its zone, such as"
    " 2021-06-01T12:00:00Z; see `python -m serving rank --help`",
    "rank --user u03 --at 2020-03-01T12:30:00": "error: argument --at: '2020-03-01T12:30:00' is no instant with its"
    " zone, such as 2021-06-01T12:00:00Z; see `python -m serving rank --help`",
    "why --user u03 --business b1 --at 2020-01-01T00:00:00Z": r"error: .*2020-01-01T00:00:00.*",
    "rank --user u03 --top 0": "error: argument --top: '0' is no number of at least 1; see .*",
    "rank --user u03 --max-price nan": "error: argument --max-price: 'nan' is no number of at least 0; see .*",
    "rank --user u03 --max-price dear": "error: argument --max-price: 'dear' is no number of at least 0; see .*",
    "rank --user u03 --candidates ,": "error: argument --candidates: names nobody; give ids with commas .*",
    "rank --user u03 --candidates b1 --candidates-file x": "error: argument --candidates-file: not allowed with .*",
    "rank --user u03 --candidates-file nowhere.txt": "error: --candidates-file nowhere.txt: No such file .*; .*",
    "rank --user u03 --price-tag dear": "error: .*'dear'.*overpriced, fair, cheap.*",
    "rank --user \udcff": r"error: argument --user: '\\udcff' is not UTF-8; .*",
    "rank": "error: the following arguments are required: --user; see `python -m serving rank --help`",
    "why --user u03": "error: the following arguments are required: --business; see .*",
    "rank --user u03 --whom": "error: unrecognized arguments: --whom; see `python -m serving --help`",
    "serve --port 99999": "error: argument --port: '99999' is no port: 0 to 65535; see .*",
    "rank --user u03 --model nowhere.safetensors": "error: nowhere.safetensors: no such file; run `dvc repro train`.*",
    "rank --user u03 --repo nowhere": "error: nowhere: no feature_store.yaml here; .*",
    "rank --user u03 --params nowhere.yaml": "error: nowhere.yaml: no such file; .*",
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_is_told_in_one_line(words: str, run: Callable[..., Said]) -> None:
    code, out, err = run(*words.split(" "))
    assert (code, out) == (2, "")
    assert re.fullmatch(f"{REFUSED[words]}\n", err), err


def test_no_table_of_businesses_and_no_candidates(run: Callable[..., Said], broken: ServedWorld) -> None:
    (broken.data / "tables" / "businesses.parquet").unlink()
    code, out, err = run("rank", "--user", "u03", "--at", AT, world=broken)
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1
    code, out, err = run("rank", "--user", "u03", "--at", AT, "--candidates", "b1", world=broken)
    assert (code, err) == (0, "") and rows_of(out)[0][3:] == ["b1", "-"]


def test_a_process_ends_with_its_code(served: ServedWorld, tmp_path: Path) -> None:
    """The whole of it, from another folder than the repository's: nothing on stderr but the line of an error."""
    fine = ["rank", *where(served), "--user", "nobody", "--at", AT]
    missing = [*fine, "--model", "nowhere.safetensors"]
    at_no_time = [*fine, "--at", "soon"]
    ended = [process(words, tmp_path) for words in (fine, missing, at_no_time)]
    said = [(*running.communicate(timeout=200), running.returncode) for running in ended]
    out, err, code = said[0]
    assert (err, code) == ("", 0)
    assert out.startswith("user nobody (unknown: ranked as a newcomer)") and len(out.splitlines()) == 12
    assert said[1] == ("", "error: nowhere.safetensors: no such file; run `dvc repro train` to make it\n", 2)
    out, err, code = said[2]
    assert (out, code) == ("", 2) and re.fullmatch("error: argument --at: 'soon' is no instant .*\n", err)


def test_help_comes_at_once_and_shows_examples(tmp_path: Path) -> None:
    """At once: without what takes seconds to import."""
    heavy = ["torch", "feast", "pyarrow", "pandas", "numpy", "pydantic", "fastapi"]
    code = (
        "import sys\nfrom serving.__main__ import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        f"sys.exit(', '.join(set({heavy!r}) & set(sys.modules)) or 0)"
    )
    for words in (["--help"], ["serve", "--help"], ["rank", "--help"], ["why", "--help"]):
        ended = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=ROOT, env={**os.environ, "COLUMNS": "110"},
            capture_output=True, text=True,
        )  # fmt: skip
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "python -m serving rank --user 102 --category thai_restaurant" in ended.stdout
        if len(words) == 2:
            for default in ("data/model/model.safetensors", "feature_repo", "data", "params.yaml"):
                assert f"(default: {default})" in ended.stdout


# --- serve -----------------------------------------------------------------------------------------------------------


def get(url: str, token: str | None = None) -> tuple[int, bytes]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_serve_answers_and_wants_the_token_of_the_environment(served: ServedWorld, tmp_path: Path) -> None:
    running = process(["serve", *where(served), "--port", "0"], tmp_path, MMREC_TOKEN="a secret")
    try:
        assert running.stdout is not None
        line = running.stdout.readline()
        match = re.fullmatch(r"serving (http://127\.0\.0\.1:\d+)/\n", line)
        assert match, line
        deadline = time.monotonic() + 30
        while get(f"{match[1]}/ready")[0] != 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert get(f"{match[1]}/health")[0] == 200
        question = f"{match[1]}/why?user_id=u03&business_id=b4&at={AT}"
        assert get(question)[0] == get(question, "another")[0] == 401
        status, body = get(question, "a secret")
        params = served.params()
        ranker = open_ranker(served.model(), served.repo, params)
        assert (status, json.loads(body)) == (200, why(ranker, "u03", "b4", LATER, served.data, params))
    finally:
        running.terminate()
        running.wait(timeout=20)


def test_a_port_that_is_taken_is_one_line(run: Callable[..., Said]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, out, err = run("serve", "--port", port)
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"error: .*{port}.*\n", err), err
