"""Requests sent when they are due, whether or not earlier ones were answered.

A process of its own: a plan comes as JSON on standard input, what became of it goes as JSON to standard output.

    {"host", "port", "path", "headers": {name: value}, "timeout_s", "connections",
     "requests": [{"due": seconds from the start, "body": text, "wanted": {key of the JSON answer: value}}]}

A latency is counted from the instant at which a request was due, so a server that stalls is charged for all who waited
(no coordinated omission). Standard library sockets and uvicorn's own parser: a request costs the client about 0.2 ms.
"""

import asyncio
import json
import selectors
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httptools

HEAD_START = 0.2  # seconds until the first is due


class Broken(Exception):
    """The connection ended before the answer did."""


class Connection(asyncio.Protocol):
    """A keep-alive connection; one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.usable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        if not self.answer.done():
            self.answer.set_exception(Broken(str(exc or "closed")))

    async def ask(self, request: bytes) -> tuple[int, bytes, float]:
        """Status, body and the loop's time of the last byte."""
        assert self.transport is not None
        self.loop = asyncio.get_running_loop()
        self.answer = self.loop.create_future()
        self.body: list[bytes] = []
        self.parser = httptools.HttpResponseParser(self)
        self.transport.write(request)
        return await self.answer

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.usable = False
            if not self.answer.done():
                self.answer.set_exception(error)

    # the parser's callbacks
    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        self.usable = self.usable and self.parser.should_keep_alive()
        if not self.answer.done():
            self.answer.set_result((self.parser.get_status_code(), b"".join(self.body), self.loop.time()))

    def close(self) -> None:
        self.usable = False
        if self.transport is not None:
            self.transport.abort()


@dataclass
class Outcome:
    """Of a plan. Latencies in seconds, of the answers that were right; errors by what went wrong."""

    latencies: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)  # from due to begun: the generator's own doing
    errors: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0  # from the first that was due to the last that ended


class Generator:
    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.plan = plan
        self.outcome = Outcome()
        self.idle: list[Connection] = []
        self.free = asyncio.Semaphore(plan["connections"])

    async def run(self) -> Outcome:
        loop = asyncio.get_running_loop()
        requests = [self.encoded(one["body"]) for one in self.plan["requests"]]
        start = loop.time() + HEAD_START
        async with asyncio.TaskGroup() as tasks:
            for one, request in zip(self.plan["requests"], requests, strict=True):
                due = start + one["due"]
                await asyncio.sleep(due - loop.time())
                tasks.create_task(self.one(request, one["wanted"], due))
        self.outcome.seconds = loop.time() - start
        for connection in self.idle:
            connection.close()
        return self.outcome

    def encoded(self, body: str) -> bytes:
        content = body.encode()
        headers = {"Host": self.plan["host"], "Content-Type": "application/json", "Content-Length": len(content)}
        head = [f"POST {self.plan['path']} HTTP/1.1"]
        head += [f"{name}: {value}" for name, value in {**headers, **self.plan["headers"]}.items()]
        return "\r\n".join([*head, "", ""]).encode() + content

    async def one(self, request: bytes, wanted: Mapping[str, Any], due: float) -> None:
        """Send one request, and note what became of it."""
        loop = asyncio.get_running_loop()
        self.outcome.late.append(loop.time() - due)
        try:
            async with asyncio.timeout_at(due + self.plan["timeout_s"]), self.free:
                status, body, ended = await self.answered(request)
        except TimeoutError:
            self.outcome.errors["no answer in time"] += 1
        except (OSError, Broken, httptools.HttpParserError) as error:
            self.outcome.errors[f"{type(error).__name__}: {error}"] += 1
        else:
            wrong = mistake(status, body, wanted)
            if wrong is None:
                self.outcome.latencies.append(ended - due)
            else:
                self.outcome.errors[wrong] += 1

    async def answered(self, request: bytes) -> tuple[int, bytes, float]:
        connection = await self.connection()
        try:
            said = await connection.ask(request)
        except BaseException:  # a half-read answer must not meet the next request
            connection.close()
            raise
        if connection.usable:
            self.idle.append(connection)
        else:
            connection.close()
        return said

    async def connection(self) -> Connection:
        while self.idle:
            connection = self.idle.pop()
            if connection.usable:
                return connection
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Connection, self.plan["host"], self.plan["port"]))[1]


def mistake(status: int, body: bytes, wanted: Mapping[str, Any]) -> str | None:
    """What is wrong with an answer; None: it is a 200 and says what is wanted."""
    if status != 200:
        return f"HTTP {status}"
    try:
        said = json.loads(body)
    except ValueError:
        return "an answer that is no JSON"
    for key, value in wanted.items():
        if not isinstance(said, dict) or said.get(key) != value:
            return f"an answer whose `{key}` is not {value!r}"
    return None


def precise_loop() -> asyncio.AbstractEventLoop:
    """epoll sleeps whole milliseconds, and would send each request up to one late; select does not."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def drive(plan: Mapping[str, Any]) -> Outcome:
    """Carry out a plan."""
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        return runner.run(Generator(plan).run())


def main() -> None:
    outcome = drive(json.load(sys.stdin))
    json.dump(vars(outcome), sys.stdout)


if __name__ == "__main__":
    main()
