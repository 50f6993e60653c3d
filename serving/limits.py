"""What stands in front of every route: a token where one is set, a bound on bodies and on requests under way.

Plain ASGI, so that a body is counted while it comes, whatever its headers say of it.
"""

import asyncio
import hmac
import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from urllib.parse import unquote_to_bytes, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN = frozenset({"/", "/health", "/ready"})  # without a token: the page, and what asks whether we live
ALWAYS = frozenset({"/", "/health", "/ready", "/metrics"})  # answered however many requests wait for the store
MOST_UNDER_WAY = 200
# Of a body that was refused, what is still taken in, and thrown away
LINGER_BYTES = 32_000_000
LINGER_S = 5.0

HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)


class TooLarge(Exception):
    """More of a body came, or is said to come, than is taken."""


class Limits:
    """Middleware: 400, 401, 413 and 503 for what goes no further; `HEADERS` on every answer.

    `hosts`: the names by which this is to be asked; None: by any.
    """

    def __init__(self, app: ASGIApp, most_bytes: int, token: str | None, hosts: Collection[str] | None) -> None:
        self.app = app
        self.most_bytes = most_bytes
        self.token = None if token is None else token.encode()
        self.hosts = hosts
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *HEADERS]}
            await send(message)

        refused = self.refusal(scope)
        if refused is not None:
            await answer(send_with_headers, *refused)
            return
        try:
            if says_more(scope["headers"], self.most_bytes):
                raise TooLarge
            self.under_way += 1
            try:
                await self.app(scope, counted(receive, self.most_bytes), send_with_headers)
            finally:
                self.under_way -= 1
        except TooLarge:
            await self.refuse_body(scope, receive, send_with_headers)

    async def refuse_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer at once, then take in a little of what is still being sent: who sends until the end and only then
        reads would otherwise find the connection broken, and no answer."""
        line = f"the body is above {self.most_bytes:,} bytes (`serve.most_bytes`): ask in parts"
        await answer(send, 413, line, [(b"connection", b"close")], ended=False)
        # Who asks whether to send at all is not told to.
        if not values_of(scope["headers"], b"expect"):
            left = LINGER_BYTES
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    while left > 0 and (message := await receive())["type"] == "http.request" and message["more_body"]:
                        left -= len(message["body"])
        await send({"type": "http.response.body", "body": b""})

    def refusal(self, scope: Scope) -> tuple[int, str, Sequence[tuple[bytes, bytes]]] | None:
        """Status, line and headers for a request that goes no further; judged by its head alone."""
        path, headers = scope["path"], scope["headers"]
        if self.hosts is not None and host_of(headers) not in self.hosts:
            return 400, f"host: without a token only {', '.join(sorted(self.hosts))} are answered: set MMREC_TOKEN", []
        if path not in OPEN and self.token is not None and not authorized(headers, self.token):
            line = "the token is missing or wrong: send it as `Authorization: Bearer <token>`"
            return 401, line, [(b"www-authenticate", b"Bearer")]
        try:
            unquote_to_bytes(scope["query_string"]).decode("utf-8")
        except UnicodeDecodeError:
            return 400, "the query is not UTF-8: encode its values as UTF-8, then percent-encode them", []
        if path not in ALWAYS and self.under_way >= MOST_UNDER_WAY:
            return 503, f"{self.under_way} requests are under way: ask again in a moment", [(b"retry-after", b"1")]
        return None


def says_more(headers: Collection[tuple[bytes, bytes]], most_bytes: int) -> bool:
    """By its Content-Length, which is trusted only where it condemns."""
    return any(value.isdigit() and int(value) > most_bytes for value in values_of(headers, b"content-length"))


def counted(receive: Receive, most_bytes: int) -> Receive:
    """`receive` that raises TooLarge once more than `most_bytes` of a body have come."""
    come = 0

    async def receive_counted() -> Message:
        nonlocal come
        message = await receive()
        if message["type"] == "http.request":
            come += len(message.get("body", b""))
            if come > most_bytes:
                raise TooLarge
        return message

    return receive_counted


def host_of(headers: Collection[tuple[bytes, bytes]]) -> str | None:
    """The name in the Host header, without its port. None where there is no such name.

    A stranger's page may have its own name resolve to this machine, and then read what it asks for: under that name.
    """
    given = values_of(headers, b"host")
    try:
        return urlsplit(f"//{given[0].decode('latin-1')}").hostname if len(given) == 1 else None
    except ValueError:  # brackets that are no address
        return None


def values_of(headers: Collection[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


def authorized(headers: Collection[tuple[bytes, bytes]], token: bytes) -> bool:
    """Exactly one Authorization header, of Bearer, with the token; compared in constant time."""
    given = values_of(headers, b"authorization")
    if len(given) != 1:
        return False
    scheme, _, said = given[0].partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(said.strip(), token)


async def answer(
    send: Send, status: int, line: str, headers: Sequence[tuple[bytes, bytes]], ended: bool = True
) -> None:
    """The app's one error shape, without the app."""
    body = json.dumps({"error": line}).encode()
    about = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": about})
    await send({"type": "http.response.body", "body": body, "more_body": not ended})
