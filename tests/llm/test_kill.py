"""kill -9 at random instants: no answer that was kept is lost, little is asked twice, and the last run asks nothing."""

import multiprocessing
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tests.llm.asking import door_to, questions
from tests.llm.server import Response, Server, echo, texts_of
from tests.params import ROOT

CONCURRENCY = 8


def ask(folder: Path, url: str, count: int, ready: Connection) -> None:
    ready.send_bytes(b"ready")
    door_to(folder, url, limits__concurrency=CONCURRENCY).ask(questions(count), "test")


def kept(folder: Path) -> int:
    path = folder / "llm" / "ledger.sqlite"
    if not path.exists():
        return 0
    with sqlite3.connect(path) as connection:
        return (
            connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'answers'").fetchone()[0]
            and (connection.execute("SELECT count(*) FROM answers WHERE status = 'ok'").fetchone()[0])
        )


def kill_often(folder: Path, kills: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    chance = random.Random(kills)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # up to Python 3.12 it does not look where we do
    context = multiprocessing.get_context("forkserver")  # a process that has imported everything, and forks
    context.set_forkserver_preload(["tests.llm.asking", "openai"])

    def respond(body: Mapping[str, Any], number: int) -> Response:
        response = echo(body, number)
        return Response(body=response.body, delay_s=chance.uniform(0.03, 0.15))

    with Server(respond) as server:
        done, standing = 0, 0
        while done < kills:
            ours, theirs = multiprocessing.Pipe()
            child = context.Process(target=ask, args=(folder, server.url, count, theirs))
            child.start()
            assert ours.recv_bytes() == b"ready"
            asked, until = len(server.chats), time.monotonic() + 30
            if chance.random() > 0.2:  # a fifth is killed as it starts, the others at work
                while len(server.chats) == asked and time.monotonic() < until:
                    time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.5))
            child.kill()
            child.join()
            done += child.exitcode == -signal.SIGKILL
            now = kept(folder)
            assert now >= standing  # nothing that stood is lost
            standing = now
            assert standing < count, "all was answered before the last kill: ask more"
        time.sleep(0.2)  # what the last one asked is answered into the void
        times = Counter(texts_of(request.body)[0] for request in server.chats)
        before = len(server.chats)
        outcomes = door_to(folder, server.url).ask(questions(count), "test")
        assert [outcome.text for outcome in outcomes] == [f"review number {number}" for number in range(count)]
        assert len(server.chats) - before == count - standing
        repeats = len(server.chats) - count
        assert times and repeats <= kills * CONCURRENCY
        before = len(server.chats)
        assert door_to(folder, server.url).ask(questions(count), "test") == outcomes
        assert len(server.chats) == before
        with sqlite3.connect(folder / "llm" / "ledger.sqlite") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        print(f"{kills} kills, {count} questions, {repeats} asked twice")


def test_five_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill_often(tmp_path, 5, 400, monkeypatch)


@pytest.mark.slow
def test_fifty_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill_often(tmp_path, 50, 2500, monkeypatch)
