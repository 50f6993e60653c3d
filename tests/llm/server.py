"""A real HTTP server that speaks the OpenAI API.

It counts what it is asked, answers as it is told, and breaks on purpose.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Response:
    status: int = 200
    body: Any = None  # JSON, or bytes as they are
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drop: bool = False  # the connection, without a word
    drip_s: float = 0.0  # between the answer's bytes


@dataclass(frozen=True)
class Request:
    path: str
    body: Any
    headers: Mapping[str, str]
    at: float  # time.monotonic when it came


def texts_of(body: Mapping[str, Any]) -> list[str]:
    """The strangers' texts in a chat request."""
    return json.loads(body["messages"][-1]["content"].split("JSON array of strings:\n", 1)[1])


def tokens_of(body: Mapping[str, Any]) -> int:
    """As a byte-level tokenizer counts, which is the most there can be."""
    return 20 + sum(len(str(message["content"]).encode()) for message in body["messages"])


def completion(
    text: str | None, finish: str = "stop", body: Mapping[str, Any] | None = None, **message: Any
) -> dict[str, Any]:
    usage = {"prompt_tokens": tokens_of(body), "completion_tokens": len((text or "").encode())} if body else None
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": "real-name", "choices": [choice], "usage": usage}


def failure(status: int, message: str = "broken", headers: Mapping[str, str] | None = None, **error: Any) -> Response:
    return Response(status, {"error": {"message": message, **error}}, headers or {})


def echo(body: Mapping[str, Any], number: int) -> Response:
    """Everything it was given."""
    return Response(body=completion(" | ".join(texts_of(body)), body=body))


class Server:
    """`respond(body, number)` answers the chat request that came as number 0, 1, ....

    The Batch API answers each line by it.
    """

    def __init__(self, respond: Callable[[Mapping[str, Any], int], Response] = echo):
        self.respond = respond
        self.requests: list[Request] = []
        self.batches: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.batch_ready_s = 0.0
        self.lock = threading.Lock()
        self.usage: list[tuple[int, int]] = []  # of answers that were sent
        self.asleep = threading.Event()

    def __enter__(self) -> Self:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                raw = self.rfile.read(length)
                if len(raw) == length:  # else who asks was killed in the middle of it
                    server.handle(self, raw)

            def do_GET(self) -> None:
                server.handle(self, b"")

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_: Any) -> None:
                pass  # clients that were killed

        self._http = Quiet(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.asleep.set()
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @property
    def chats(self) -> list[Request]:
        return [request for request in self.requests if request.path == "/v1/chat/completions"]

    def handle(self, handler: BaseHTTPRequestHandler, raw: bytes) -> None:
        is_json = handler.headers.get("content-type", "").startswith("application/json")
        body = json.loads(raw) if raw and is_json else raw
        with self.lock:
            number = len(self.chats)
            self.requests.append(
                Request(
                    handler.path.split("?")[0],
                    body,
                    {name.lower(): value for name, value in handler.headers.items()},
                    time.monotonic(),
                )
            )
        if handler.path == "/v1/chat/completions":
            response = self.respond(body, number)
        else:
            response = self._batch_api(handler, body)
        if response.delay_s and self.asleep.wait(response.delay_s):
            return
        if response.drop:
            handler.close_connection = True
            return
        payload = response.body if isinstance(response.body, bytes) else json.dumps(response.body).encode()
        usage = response.body.get("usage") if isinstance(response.body, dict) else None
        if usage:
            with self.lock:
                self.usage.append((usage["prompt_tokens"], usage["completion_tokens"]))
        handler.send_response(response.status)
        for name, value in {"content-type": "application/json", **response.headers}.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(payload)))
        handler.end_headers()
        if response.drip_s:
            for byte in payload:
                handler.wfile.write(bytes([byte]))
                if self.asleep.wait(response.drip_s):
                    return
        else:
            handler.wfile.write(payload)

    def _batch_api(self, handler: BaseHTTPRequestHandler, body: Any) -> Response:
        path = handler.path.split("?")[0].removeprefix("/v1")
        if path == "/files":
            name = f"file-{sum(name.startswith('file-') for name in self.files)}"
            boundary = re.search(r"boundary=(\S+)", handler.headers["content-type"])[1].encode()
            part = next(part for part in body.split(b"--" + boundary) if b"filename=" in part)
            self.files[name] = part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
            return Response(body={"id": name, "object": "file"})
        if path == "/batches" and handler.command == "POST":
            name = f"batch-{len(self.batches)}"
            self.batches[name] = {
                "id": name,
                "object": "batch",
                "status": "in_progress",
                "at": time.monotonic(),
                **body,
            }
            return Response(body=self.batches[name])
        if path == "/batches":
            return Response(body={"object": "list", "data": list(self.batches.values()), "has_more": False})
        if path.startswith("/batches/") and (name := path.split("/")[2]) in self.batches:
            batch = self.batches[name]
            if batch["status"] == "in_progress" and time.monotonic() - batch["at"] >= self.batch_ready_s:
                self._finish(batch)
            return Response(body=batch)
        if path.startswith("/files/") and (name := path.split("/")[2]) in self.files:
            return Response(body=self.files[name], headers={"content-type": "application/octet-stream"})
        return failure(404, "no such thing")

    def _finish(self, batch: dict[str, Any]) -> None:
        """Answers with status 200 go to the output file, others to the error file, those without status nowhere.

        They expired.
        """
        out, err = [], []
        for number, line in enumerate(self.files[batch["input_file_id"]].splitlines()):
            request = json.loads(line)
            response = self.respond(request["body"], number)
            entry = {
                "custom_id": request["custom_id"],
                "response": {"status_code": response.status, "body": response.body},
                "error": None,
            }
            if response.status == 0:
                entry |= {
                    "response": None,
                    "error": {"code": "batch_expired", "message": "expired before it could be run"},
                }
            (out if response.status == 200 else err).append(json.dumps(entry))
        self.files[f"{batch['id']}-out"], self.files[f"{batch['id']}-err"] = (
            "\n".join(out).encode(),
            "\n".join(err).encode(),
        )
        batch |= {
            "status": "completed",
            "output_file_id": f"{batch['id']}-out",
            "error_file_id": f"{batch['id']}-err" if err else None,
        }
