"""The Batch API over a real socket, also where a run is interrupted."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import UserError
from pipelines.core.ledger import Batch
from pipelines.core.openai_api import batch as openai_batch
from pipelines.core.questions import Answer, Failed
from tests.llm.asking import door_to, question, questions
from tests.llm.server import Response, Server, completion, echo, failure, texts_of


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setattr(openai_batch, "FIRST_POLL_S", 0.05)


def interrupted(run: openai_batch.BatchRun, batch: Batch) -> None:
    """Instead of waiting for the batch."""
    raise KeyboardInterrupt


def posts(server: Server, path: str) -> int:
    return sum(request.path == path and request.body != b"" for request in server.requests)


def mixed(body: Mapping[str, Any], number: int) -> Response:
    return {
        "review number 1": failure(400, "bad line"),
        "review number 2": Response(0),  # expired
        "review number 3": Response(body=completion("cut", "length", body)),
    }.get(texts_of(body)[0]) or echo(body, number)


def test_a_batch_answers_as_calls_would(tmp_path: Path) -> None:
    with Server(mixed) as server:
        outcomes = door_to(tmp_path, server.url, batch=True, attempts=1).ask(questions(6), "test")
        assert [isinstance(outcome, Answer) for outcome in outcomes] == [True, False, False, False, True, True]
        reasons = [outcome.reason for outcome in outcomes if isinstance(outcome, Failed)]
        assert reasons == [
            "HTTP 400: bad line",
            "HTTP None: expired before it could be run",
            "truncated: the answer is longer than its room",
        ]
        assert posts(server, "/v1/batches") == 1 and not server.chats
        [direct] = door_to(tmp_path / "direct", server.url).ask(questions(1), "test")
        assert direct == outcomes[0]
        server.respond = echo
        again = door_to(tmp_path, server.url, batch=True).ask(questions(6), "test")
        assert all(isinstance(outcome, Answer) for outcome in again)
        assert posts(server, "/v1/batches") == 2  # of the three that failed
        assert server.files["file-1"].count(b"custom_id") == 3
        door = door_to(tmp_path, server.url, batch=True)
        assert door.ask(questions(6), "test") == again and door.ledger.batches(server.url) == []
    assert posts(server, "/v1/batches") == 2


def test_an_interrupted_run_picks_its_batch_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as server:
        server.batch_ready_s = 1e9
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(openai_batch.BatchRun, "_ended", interrupted)
            door_to(tmp_path, server.url, batch=True).ask(questions(5), "test")
        server.batch_ready_s = 0
        # a run that asks for some of it only, and for something else: what it does not ask for stays to be had
        some = door_to(tmp_path, server.url, batch=True).ask([*questions(2), question("new")], "test")
        assert all(isinstance(outcome, Answer) for outcome in some)
        assert posts(server, "/v1/batches") == 2 and server.files["file-1"].count(b"custom_id") == 1
        rest = door_to(tmp_path, server.url, batch=True).ask(questions(5), "test")
        assert all(isinstance(outcome, Answer) for outcome in rest)
        assert posts(server, "/v1/batches") == 2
        assert door_to(tmp_path, server.url, batch=True).ledger.batches(server.url) == []


def test_a_creation_that_broke_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server made the batch; its answer never came. Within the run, and by the next run after a kill."""
    with Server() as server:
        api = server._batch_api

        def broken(handler: Any, body: Any) -> Response:
            response = api(handler, body)
            first = handler.command == "POST" and handler.path == "/v1/batches" and len(server.batches) == 1
            return Response(drop=True) if first else response

        server._batch_api = broken  # type: ignore[method-assign]
        assert isinstance(door_to(tmp_path / "a", server.url, batch=True).ask([question("x")], "test")[0], Answer)
        assert posts(server, "/v1/batches") == 1

        server.batches.clear()
        with pytest.raises(UserError, match="refuses"):
            door_to(tmp_path / "b", server.url, batch=True, limits__retries=0).ask([question("x")], "test")
        assert isinstance(door_to(tmp_path / "b", server.url, batch=True).ask([question("x")], "test")[0], Answer)
        assert posts(server, "/v1/batches") == 2


def test_a_batch_that_is_gone_is_asked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as server:
        door = door_to(tmp_path, server.url, batch=True)
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(openai_batch.BatchRun, "_ended", interrupted)
            door.ask([question("x")], "test")
        assert len(door.ledger.batches(server.url)) == 1
        server.batches.clear()
        assert isinstance(door_to(tmp_path, server.url, batch=True).ask([question("x")], "test")[0], Answer)


def test_a_batch_is_asked_anew_only_when_it_is_gone_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 404 that passes, and one of something else, cost no paid answer."""
    with Server() as server:
        door = door_to(tmp_path, server.url, batch=True)
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(openai_batch.BatchRun, "_ended", interrupted)
            door.ask([question("x")], "test")
        api, missing = server._batch_api, ["/v1/files/batch-0-out/content"]

        def some_missing(handler: Any, body: Any) -> Response:
            if handler.path in missing:
                return failure(404, "not now")
            return api(handler, body)

        server._batch_api = some_missing  # type: ignore[method-assign]
        with pytest.raises(UserError, match=r"refuses \(HTTP 404: not now\).*`llm.batch` to false"):
            door_to(tmp_path, server.url, batch=True).ask([question("x")], "test")
        assert len(door.ledger.batches(server.url)) == 1
        missing[:] = ["/v1/batches/batch-0"]
        monkeypatch.setattr(openai_batch.time, "sleep", lambda _: missing.clear())
        assert isinstance(door_to(tmp_path, server.url, batch=True).ask([question("x")], "test")[0], Answer)
        assert posts(server, "/v1/batches") == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"error": "boom"}, "HTTP None: boom"),
        ({"response": "x"}, "no answer in its batch"),
        ({"response": {"status_code": 500, "body": "oops"}}, "no answer in its batch"),
        ({"response": {"status_code": 400, "body": {"error": ["a"]}}}, "HTTP 400: ['a']"),
        ({"response": {"status_code": 200, "body": "oops"}}, "the answer is no chat completion"),
        ({"response": {"status_code": 200, "body": {"choices": "x"}}}, "the answer is no chat completion"),
        ({"custom_id": ["a"]}, "its batch completed, without an entry for it"),
        ("x", "its batch completed, without an entry for it"),
    ],
)
def test_an_odd_line_fails_its_question_alone(tmp_path: Path, line: Any, reason: str) -> None:
    with Server() as server:
        finish = server._finish

        def odd(batch: dict[str, Any]) -> None:
            finish(batch)
            first, *rest = server.files["batch-0-out"].splitlines()
            told = {"custom_id": json.loads(first)["custom_id"], **line} if isinstance(line, dict) else line
            server.files["batch-0-out"] = b"\n".join([json.dumps(told).encode(), *rest])

        server._finish = odd  # type: ignore[method-assign]
        bad, good = door_to(tmp_path, server.url, batch=True).ask(questions(2), "test")
    assert isinstance(bad, Failed) and bad.reason == reason
    assert isinstance(good, Answer)


def test_a_failed_batch_says_why(tmp_path: Path) -> None:
    with Server() as server:

        def finish(batch: dict[str, Any]) -> None:
            batch |= {"status": "failed", "errors": {"data": [{"message": "line 1: too large"}]}}

        server._finish = finish  # type: ignore[method-assign]
        [outcome] = door_to(tmp_path, server.url, batch=True).ask([question("x")], "test")
    assert isinstance(outcome, Failed)
    assert outcome.reason == "its batch failed: line 1: too large, without an entry for it"


@pytest.mark.parametrize(("name", "limit"), [("calls", 4), ("tokens", 3000), ("dollars", 0.0006)])
def test_a_batch_is_as_large_as_the_budget(tmp_path: Path, name: str, limit: float) -> None:
    with Server() as server, pytest.raises(UserError, match=f"`llm.budget.{name}` is {limit}"):
        door_to(tmp_path, server.url, batch=True, **{f"budget__{name}": limit}).ask(questions(50), "test")
    lines = sum(file.count(b"custom_id") for name, file in server.files.items() if name.startswith("file-"))
    assert 0 < lines <= 50 and (name != "calls" or lines == 4)


def test_a_refused_key_is_one_line(tmp_path: Path) -> None:
    with Server() as server, pytest.raises(UserError, match="OPENAI_API_KEY is refused"):
        server._batch_api = lambda handler, body: failure(401, "no")  # type: ignore[method-assign]
        door_to(tmp_path, server.url, batch=True).ask([question("x")], "test")
    assert len(server.requests) == 1
