"""Bad requests get a status and one line, cost little, and never take the app down."""

import itertools
import json
import re
import socket
import time

import pytest

from serving import limits
from serving.app import create_app
from tests.serving.conftest import ServedWorld
from tests.serving.http_client import USER, Client, app_of, live_of, running, still_answers

# body of POST /rank -> status, and what its line says; the README's table
BAD_BODIES: list[tuple[str | bytes, int, str]] = [
    ("", 400, r"^the body is not JSON \(EOF .*\): send an object"),
    ("{", 400, "^the body is not JSON"),
    ("{'user_id': 'u'}", 400, "^the body is not JSON"),
    (b'{"user_id": "caf\xe9"}', 400, r"^the body is not UTF-8 \(byte 16\): send JSON as UTF-8$"),
    ('{"user_id": "u"}'.encode("utf-16"), 400, "^the body is not UTF-8"),
    (r'{"user_id": "\ud800"}', 400, "^the body is not JSON"),
    ("[" * 100_000, 400, "^the body is not JSON .*recursion"),
    ("[]", 422, "^the body: input should be an object$"),
    ("null", 422, "^the body: input should be an object$"),
    ("{}", 422, "^`user_id` is missing$"),
    ('{"user_id": ""}', 422, '^`user_id` is "": .*at least 1 character'),
    ('{"user_id": 7}', 422, "^`user_id` is 7: .*valid string"),
    (r'{"user_id": "a\u0000b"}', 422, r'^`user_id` is "a\\u0000b": no NUL is taken$'),
    (json.dumps({"user_id": "u" * 257}), 422, '^`user_id` is "u{59}…: .*at most 256 characters'),
    (r'{"user_id": "line\nline", "at": "line\nline"}', 422, r'^`at` is "line\\nline": '),
    ('{"user_id": "u", "category": "no such"}', 422, "^`category` is 'no such': no business and no type is called so;"),
    ('{"user_id": "u", "user": "v"}', 422, '^unknown field "user": the fields are user_id, candidates, category,'),
    ('{"user_id": "u", "candidates": []}', 422, "^`candidates` is a list of 0: .*at least 1 item"),
    ('{"user_id": "u", "candidates": "b1"}', 422, '^`candidates` is "b1": .*valid array'),
    ('{"user_id": "u", "candidates": ["b1", ""]}', 422, r'^`candidates\[1\]` is "": .*at least 1 character'),
    ('{"user_id": "u", "top": 0}', 422, "^`top` is 0: .*greater than or equal to 1"),
    ('{"user_id": "u", "top": 1001}', 422, "^`top` is 1001: .*less than or equal to 1000"),
    ('{"user_id": "u", "top": "5"}', 422, '^`top` is "5": .*valid integer'),
    ('{"user_id": "u", "top": 2.5}', 422, "^`top` is 2.5: .*valid integer"),
    ('{"user_id": "u", "top": true}', 422, "^`top` is true: .*valid integer"),
    ('{"user_id": "u", "max_price": NaN}', 422, "^`max_price` is NaN: .*finite"),
    ('{"user_id": "u", "max_price": -1}', 422, "^`max_price` is -1: .*greater than or equal to 0"),
    ('{"user_id": "u", "price_tag": "dear"}', 422, "^`price_tag` is 'dear': it is one of overpriced, fair, cheap,"),
    ('{"user_id": "u", "at": "2031-06-01T12:00:00"}', 422, "^`at` is .*: give an instant with its zone, such as"),
    ('{"user_id": "u", "at": "yesterday"}', 422, '^`at` is "yesterday": give an instant with its zone'),
    ('{"user_id": "u", "at": 1622548800}', 422, "^`at` is 1622548800: give an instant with its zone"),
    ('{"user_id": "u", "at": "0001-01-01T00:00:00+14:00"}', 422, "^`at` is .*: give an instant with its zone"),
    ('{"user_id": "u03", "at": "2001-01-01T00:00:00Z"}', 422, "^at 2001-01-01T00:00:00.* know of a review at"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status", "line"), BAD_BODIES, ids=range(len(BAD_BODIES)))
def test_a_bad_body_gets_a_line(client: Client, body: str | bytes, status: int, line: str) -> None:
    answer = client.rank(body.encode() if isinstance(body, str) else body)
    assert (answer.status, bool(re.search(line, answer.line))) == (status, True), answer.line
    assert len(answer.line) < 400
    still_answers(client)


BAD_REQUESTS = [
    ("GET", "/why?user_id=u", 422, "^`business_id` is missing$"),
    ("GET", "/why?user_id=u&business_id=", 422, '^`business_id` is "": '),
    ("GET", "/why?user_id=u&business_id=b&user=v", 422, '^unknown field "user": the fields are user_id, business_id,'),
    ("GET", "/why?user_id=u&business_id=b&at=2031-01-01T00:00:00+00:00", 422, "^`at` is .*: give an instant with"),
    ("GET", "/why?user_id=u03&business_id=b1&at=2001-01-01T00:00:00Z", 422, "the online rows know of a review at"),
    ("GET", "/why?user_id=%FF&business_id=b", 400, "^the query is not UTF-8"),
    ("GET", "/users?limit=0", 422, '^`limit` is "0": .*greater than or equal to 1'),
    ("GET", "/users?limit=many", 422, '^`limit` is "many": .*valid integer'),
    ("GET", "/users?skip=3", 422, '^unknown field "skip": the fields are prefix, limit$'),
    ("GET", "/nowhere%0Aelse", 404, r'^"/nowhere\\nelse": no such path; /openapi\.json lists those that are$'),
    ("GET", "/../params.yaml", 404, "no such path"),
    ("GET", "/rank", 405, '^"/rank": GET is not taken here, POST is$'),
    ("DELETE", "/users", 405, '^"/users": DELETE is not taken here, GET is$'),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "status", "line"), BAD_REQUESTS, ids=range(len(BAD_REQUESTS)))
def test_a_bad_request_gets_a_line(client: Client, method: str, path: str, status: int, line: str) -> None:
    answer = client.request(method, path)
    assert (answer.status, bool(re.search(line, answer.line))) == (status, True), answer.line
    still_answers(client)


def test_a_million_candidates(served: ServedWorld, client: Client) -> None:
    million = json.dumps({"user_id": USER, "candidates": [f"b{i}" for i in range(1_000_000)]}).encode()
    answer = client.rank(million)
    assert answer.status == 413 and "1,000,000 bytes" in answer.line
    with running(app_of(served, serve__most_bytes=20_000_000)) as roomy:
        roomy.until_ready()
        answer = roomy.rank(million)
        assert answer.status == 422
        assert answer.line == "`candidates`: 1000000 ids, at most 10000 are taken; ask in parts"
        bad = {"user_id": USER, "exclude": [""] * 10_001}  # counted before any id is looked at
        assert roomy.rank(bad).line == "`exclude`: 10001 ids, at most 10000 are taken; ask in parts"
        assert roomy.rank({"user_id": USER, "candidates": [f"b{i}" for i in range(10_000)]}).status == 200
        still_answers(roomy)


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


def test_a_body_that_says_it_is_huge_is_refused_unread(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = time.monotonic()
    answer = client.raw(head("POST", "/rank", "Content-Length: 1000001", "Expect: 100-continue"))
    assert answer.startswith(b"HTTP/1.1 413 ") and time.monotonic() - begun < limits.LINGER_S  # not told to go on
    monkeypatch.setattr(limits, "LINGER_S", 0.5)
    for sent in ("POST /rank", "GET /health", "POST /nowhere"):
        answer = client.raw(head(*sent.split(), "Content-Length: 1000001"))
        assert answer.startswith(b"HTTP/1.1 413 ") and b"connection: close" in answer.lower()
        assert json.loads(answer.split(b"\r\n\r\n", 1)[1]).keys() == {"error"}
    still_answers(client)


def test_a_body_is_counted_while_it_comes(client: Client) -> None:
    """No Content-Length: the server takes little more than its bound, then closes."""
    taken = 0
    with socket.create_connection(("127.0.0.1", client.port), timeout=30) as connection:
        connection.sendall(head("POST", "/rank", "Transfer-Encoding: chunked"))
        try:
            for _ in range(2000):  # 128 MB, if it were let
                connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
                taken += 65536
        except OSError:
            pass  # it has closed
    assert taken < 60_000_000  # what lingers, and what the kernel's buffers hold

    chunks = (b" " * 50_000 for _ in range(200))  # 10 MB
    answer = client.request("POST", "/rank", chunks)
    assert (
        answer.status == 413 and answer.line == "the body is above 1,000,000 bytes (`serve.most_bytes`): ask in parts"
    )
    small = iter([b'{"user_id": ', b'"u03"', b"}"])
    assert client.request("POST", "/rank", small).status == 200
    just = json.dumps({"user_id": USER}).encode()
    assert client.rank(just + b" " * (1_000_000 - len(just))).status == 200
    assert client.rank(just + b" " * (1_000_001 - len(just))).status == 413
    still_answers(client)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        head("POST", "/rank", "Content-Length: many"),
        head("POST", "/rank", "Content-Length: -1"),
        head("GET", "/" + "x" * 100_000),
    ],
    ids=["tls", "no length", "negative length", "long path"],
)
def test_what_is_hardly_http(client: Client, sent: bytes) -> None:
    answer = client.raw(sent + b"Connection: close\r\n\r\n")
    assert answer == b"" or re.match(rb"HTTP/1\.1 4\d\d ", answer)
    still_answers(client)


def test_who_leaves_early_is_no_bug(client: Client, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_connection(("127.0.0.1", client.port)) as connection:
        connection.sendall(head("POST", "/rank", "Content-Length: 1000") + b"{")
    time.sleep(0.3)
    still_answers(client)
    assert "Traceback" not in capfd.readouterr().err


def test_a_bug_leaves_a_traceback_in_the_log_and_a_line(served: ServedWorld, capfd: pytest.CaptureFixture[str]) -> None:
    app = app_of(served)

    @app.get("/bug")
    def bug() -> None:
        raise ZeroDivisionError("a bug")

    with running(app) as buggy:
        answer = buggy.get("/bug")
        assert answer.status == 500 and answer.line == "this is a bug of the server's: its log has the traceback"
        assert buggy.figure('mmrec_requests_total{route="other",status="500"}') == 1
        still_answers(buggy)
    assert "ZeroDivisionError: a bug" in capfd.readouterr().err


TOKEN = "a-token-öf-ours"


def test_the_token(served: ServedWorld) -> None:
    closed = [
        "/users",
        "/catalogue",
        "/metrics",
        "/openapi.json",
        f"/why?user_id={USER}&business_id=b1",
        "/nowhere",
    ]
    with running(app_of(served, token=TOKEN)) as stranger:
        stranger.until_ready()
        for path in ("/", "/health", "/ready"):
            assert stranger.get(path).status == 200
        friend = Client(stranger.port, {"Authorization": "bearer " + TOKEN.encode().decode("latin-1")})
        wrong = [
            {},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer "},
            {"Authorization": f"Bearer {TOKEN[:-1]}".encode().decode("latin-1")},
            {"Authorization": f"Bearer {TOKEN}x".encode().decode("latin-1")},
            {"Authorization": f"Basic {TOKEN}".encode().decode("latin-1")},
            {"Authorization": TOKEN.encode().decode("latin-1")},
        ]
        for headers, path in itertools.product(wrong, closed):
            answer = stranger.get(path, **headers)
            assert answer.status == 401 and "Authorization: Bearer" in answer.line, (headers, path)
            assert answer.headers["www-authenticate"] == "Bearer"
        assert stranger.rank({"user_id": USER}).status == 401
        twice = head("GET", "/users", f"Authorization: Bearer {TOKEN}", "Authorization: Bearer x", "Connection: close")
        assert stranger.raw(twice).startswith(b"HTTP/1.1 401 ")
        for path in closed[:-1]:
            assert friend.get(path).status == 200, path
        assert friend.get("/nowhere").status == 404
        still_answers(friend)
        figures = friend.get("/metrics").body.decode()
        assert 'mmrec_requests_total{route="/rank",status="401"} 1.0' in figures
        assert TOKEN not in figures and USER not in figures


def test_without_a_token_no_other_name_of_this_machine_is_answered(served: ServedWorld) -> None:
    """A stranger's page whose own name has come to mean 127.0.0.1 is a reader like any other to the browser."""
    app = create_app(live_of(served), served.params(), served.data, None, {"127.0.0.1", "localhost", "::1"})
    with running(app) as client:
        client.until_ready()
        for host in ("127.0.0.1", f"localhost:{client.port}", "[::1]:8080", "LOCALHOST"):
            assert client.get("/users", Host=host).status == 200
        for host in ("evil.example", f"evil.example:{client.port}", "localhost.evil.example", "[::1", ""):
            for path in ("/", "/users", "/health"):
                answer = client.get(path, Host=host)
                assert answer.status == 400
                assert answer.line.startswith("host: without a token only 127.0.0.1, ::1, localhost are answered")
        still_answers(client)


def test_a_body_that_never_ends(served: ServedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for as long as its sender likes, whoever else asks meanwhile."""
    monkeypatch.setattr("serving.app.BODY_S", 0.5)
    with running(app_of(served)) as client:
        client.until_ready()
        begun = time.monotonic()
        said = client.raw(b"POST /rank HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert said.startswith(b"HTTP/1.1 408 ") and b"the body did not come within 0.5 s" in said
        assert time.monotonic() - begun < 5
        still_answers(client)
