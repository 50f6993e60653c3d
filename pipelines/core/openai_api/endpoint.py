"""An OpenAI-compatible endpoint: one request at a time, and what its refusals mean.

The key is read here, and goes nowhere but to the endpoint.
"""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

import httpx2
import openai

from pipelines.core.errors import UserError
from pipelines.core.openai_api.retry_waits import asked_wait
from pipelines.core.params import Llm
from pipelines.core.questions import one_line

T = TypeVar("T")
KEY = "OPENAI_API_KEY"
LARGEST_BODY = 64 * 2**20  # bytes of a chat completion
NO_MONEY = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "account_deactivated"}
OUR_PARAMS = (
    "model",
    "temperature",
    "seed",
    "max_tokens",
    "max_completion_tokens",
    "response_format",
)  # wrong for one question: wrong for all
KEPT = "answers so far are kept"
SHORTEST_SECRET = 8  # characters; `none` or `ollama` is no secret, and a word of an answer


class TryAgain(Exception):
    """A request that may succeed later. `wait`: seconds that the server asks for; `billed`.

    It may have cost tokens; `gone`: nobody is there.
    """

    def __init__(self, reason: str, wait: float | None = None, billed: bool = False, gone: bool = False):
        super().__init__(reason)
        self.wait, self.billed, self.gone = wait, billed, gone


class Refused(Exception):
    """The endpoint does not answer this request, nor will it later. `worn_out`: after all its retries."""

    def __init__(self, reason: str, worn_out: bool = False):
        super().__init__(reason)
        self.worn_out = worn_out


class NotFound(UserError):
    """The endpoint knows no such thing, or no such path. `reason`: in its own words."""

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


class Endpoint:
    def __init__(self, llm: Llm):
        parts = _parts(llm.base_url)
        if parts.username or parts.password or parts.query or parts.fragment:
            raise UserError(
                f"params.yaml: `llm.base_url` names {parts.hostname} with more than a path; leave credentials to {KEY}"
            )
        self.llm = llm
        self.url = llm.base_url.rstrip("/")
        self._secret = ""

    @cached_property
    def client(self) -> openai.OpenAI:
        """Made when the first request goes out: a plan, or a run that knows every answer, needs no key."""
        key = os.environ.get(KEY, "").strip()
        if not key and not _is_loopback(urlsplit(self.url).hostname or ""):
            raise UserError(
                f"{KEY} is not set, and {self.url} wants a key; set it in the environment, or set `llm.base_url`"
            )
        if not (key.isascii() and key.isprintable()):
            raise UserError(f"{KEY} holds characters that no key has; set it to the key alone")
        self._secret = key
        timeout = httpx2.Timeout(self.llm.limits.timeout_s, connect=min(10.0, self.llm.limits.timeout_s))
        return openai.OpenAI(api_key=key or "none", base_url=self.url, timeout=timeout, max_retries=0)

    def chat(self, body: Mapping[str, Any], key: str) -> Any:
        """The chat completion's JSON, as it came.

        `key`: the ledger's, sent so that a request that went out twice may be known as one.
        TryAgain, Refused, UserError (nothing will work).
        """
        client = self.client

        def read() -> bytes:
            # read in pieces: the library's time-out is of a silence, and an answer that drips would last for ever
            until = time.monotonic() + self.llm.limits.timeout_s
            pieces: list[bytes] = []
            size = 0
            create = client.chat.completions.with_streaming_response.create
            with create(**body, extra_headers={"Idempotency-Key": key}) as response:
                for piece in response.iter_bytes():
                    pieces.append(piece)
                    size += len(piece)
                    if time.monotonic() > until:
                        raise httpx2.ReadTimeout("the answer drips")
                    if size > LARGEST_BODY:
                        raise httpx2.ReadError(f"the answer is larger than {LARGEST_BODY} bytes")
            return b"".join(pieces)

        answer = self.parsed(self.tried(read))
        if answer is None:
            raise TryAgain("the answer is no JSON object", billed=True)
        return answer

    def parsed(self, raw: bytes) -> dict[str, Any] | None:
        """A JSON object from the endpoint, without the key should it hold it; None: it is none."""
        try:
            value = json.loads(self.scrubbed(raw.decode("utf-8", "replace")), parse_constant=str, parse_float=_finite)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    def tried(self, call: Callable[[], T]) -> T:
        """The call's result, or what its exception means.

        The library's exceptions carry the request, and so the key: ours, and our bugs, are raised outside of `except`,
        lest those hang on them.
        """
        caught: Exception
        try:
            return call()
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            caught = error
        raise self._meaning(caught)

    def _meaning(self, error: Exception) -> Exception:
        if isinstance(error, openai.APIStatusError):
            return self._of_status(error)
        if isinstance(error, openai.APITimeoutError | httpx2.TimeoutException):
            return TryAgain(f"no answer within {self.llm.limits.timeout_s:g} s", billed=True)
        if isinstance(error, openai.APIConnectionError):
            gone = isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout)
            cause = self.scrubbed(str(error.__cause__ or error))
            return TryAgain(f"the connection broke ({one_line(cause)})", billed=not gone, gone=gone)
        if isinstance(error, httpx2.HTTPError):
            return TryAgain(f"the connection broke ({one_line(self.scrubbed(str(error)))})", billed=True)
        return TryAgain(one_line(self.scrubbed(str(error))), billed=True)

    def scrubbed(self, text: str) -> str:
        return text.replace(self._secret, "***") if len(self._secret) >= SHORTEST_SECRET else text

    def _of_status(self, error: openai.APIStatusError) -> Exception:
        body = error.body if isinstance(error.body, dict) else {}
        told = one_line(self.scrubbed(str(body.get("message") or body.get("detail") or error.message)))
        status, reason = error.status_code, f"HTTP {error.status_code}: {told}"
        if status in (401, 403):
            return UserError(
                f"{self.url}: {KEY} is refused ({reason}); set a key that may use `llm.model` {self.llm.model!r}"
            )
        if status == 404:
            return NotFound(
                f"{self.url}: not found ({reason}); "
                f"set `llm.base_url` and `llm.model` {self.llm.model!r} to what there is",
                reason,
            )
        if {str(body.get("code")), str(body.get("type"))} & NO_MONEY:
            return UserError(f"{self.url}: the account has no credit left ({reason}); add some and run again: {KEPT}")
        if status in (408, 409, 429) or status >= 500:
            return TryAgain(reason, wait=asked_wait(error.response.headers))
        param = str(body.get("param") or "").split(".")[0]
        if status in (400, 422) and param in OUR_PARAMS:
            return UserError(
                f"params.yaml: {self.url} refuses the parameter `{param}` ({reason}); change or unset it under `llm`"
            )
        return Refused(reason)


def _parts(address: str) -> SplitResult:
    """Of an address that a request can go to; else UserError."""
    try:
        parts = urlsplit(address)
        httpx2.URL(address)
        host = (parts.hostname or "").encode("idna")  # as the look-up of a name will
        if parts.scheme in ("http", "https") and host and parts.port != 0 and not any(map(str.isspace, address)):
            return parts
    except (ValueError, httpx2.InvalidURL):
        pass  # told below, outside of `except`
    shown = repr(one_line(address)) if not set("@?#") & set(address) else "its value"  # which may hold a password
    raise UserError(
        f"params.yaml: `llm.base_url`: {shown} is no address of an endpoint; set it to one as in http://127.0.0.1:8000/v1"
    )


def _finite(number: str) -> float | str:
    """1e999 is JSON and no number of ours."""
    value = float(number)
    return value if math.isfinite(value) else number


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
