"""The Batch API: all questions in one file, answered within a day.

A batch is remembered, so that an interrupted run picks it up instead of paying twice.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.core.errors import UserError
from pipelines.core.ledger import Batch, Ledger
from pipelines.core.openai_api.call_limits import Cost
from pipelines.core.openai_api.endpoint import NotFound, Refused, TryAgain
from pipelines.core.openai_api.requests import body_of
from pipelines.core.questions import Failure, Question, Reply, key_of

if TYPE_CHECKING:
    from pipelines.core.openai_api.provider import OpenAIProvider

T = TypeVar("T")
ENDED = {"completed", "failed", "expired", "cancelled"}
FIRST_POLL_S, LONGEST_POLL_S = 1.0, 60.0
MOST_REQUESTS, MOST_BYTES = 50_000, 100 * 2**20  # of one file; OpenAI takes 200 MB
LOOK_BACK = 1000  # batches of the account that are looked through for one whose creation was interrupted


class Gone(NotFound):
    """The endpoint knows a remembered batch no more."""


class BatchRun:
    def __init__(self, provider: "OpenAIProvider", ledger: Ledger):
        self.provider = provider
        self.endpoint = provider.endpoint
        self.ledger = ledger
        self._aside: dict[str, int] = {}  # key -> what is set aside for it in this run's budget
        self._questions: dict[str, Question] = {}  # by key

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply | Failure]]:
        """First from batches that an earlier run left, then from new ones, one after the other."""
        waiting = {key_of(self.provider, question): index for index, question in enumerate(questions)}
        self._questions = {key: questions[index] for key, index in waiting.items()}
        for batch in self.ledger.batches(self.endpoint.url):
            if waiting.keys() & set(batch.keys):
                try:
                    yield from self._collected(self._created(batch, maybe=True), waiting)
                except Gone:
                    self.ledger.forget_batch(batch)
        while waiting:
            yield from self._collected(self._created(self._uploaded(waiting), maybe=False), waiting)

    def _body(self, key: str) -> dict[str, Any]:
        """Made when it is needed: those of all questions would fill the memory."""
        return body_of(self._questions[key], self.provider.llm)

    def _uploaded(self, waiting: dict[str, int]) -> Batch:
        """As many of the questions as one file and the budget take, uploaded."""
        lines: list[bytes] = []
        keys: list[str] = []
        size = 0
        for key in waiting:
            body = self._body(key)
            request = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}
            line = json.dumps(request).encode() + b"\n"
            if keys and (len(keys) == MOST_REQUESTS or size + len(line) > MOST_BYTES):
                break
            most = self.provider.most(body)
            ticket = self.provider.purse.reserve_now(most)
            if ticket is None and not keys:
                raise self.provider.stop_of(self.provider.purse.reached(most), len(waiting))
            if ticket is None:
                break
            self._aside[key] = ticket
            keys.append(key)
            lines.append(line)
            size += len(line)
        content = b"".join(lines)
        file = self._patiently(
            lambda: self.endpoint.client.files.create(file=("questions.jsonl", content), purpose="batch")
        )
        batch = Batch(file.id, None, self.endpoint.url, tuple(keys))
        self.ledger.remember_batch(batch)  # before there is anything to pay
        return batch

    def _created(self, batch: Batch, maybe: bool) -> Batch:
        """The batch, running. `maybe`: an earlier request may have made it, so it is looked for first."""
        if batch.batch is not None:
            return batch
        looking = maybe

        def create() -> str:
            nonlocal looking
            if looking and (made := self._made_of(batch.file)):
                return made
            looking = True  # if this request breaks, it may have been heard
            client = self.endpoint.client
            return client.batches.create(
                input_file_id=batch.file, endpoint="/v1/chat/completions", completion_window="24h"
            ).id

        running = replace(batch, batch=self._patiently(create))
        self.ledger.remember_batch(running)
        return running

    def _made_of(self, file: str) -> str | None:
        for number, batch in enumerate(self.endpoint.client.batches.list(limit=100)):
            if batch.input_file_id == file:
                return batch.id
            if number >= LOOK_BACK:
                break
        return None

    def _collected(self, batch: Batch, waiting: dict[str, int]) -> Iterator[tuple[int, Reply | Failure]]:
        """The outcomes of those questions of a batch that are waited for.

        The batch is forgotten when all of its questions have been.
        """
        mine = {key: None for key in batch.keys if key in waiting}  # in their order
        ended = self._ended(batch)
        problems = [error.message for error in (ended.errors.data or [])] if ended.errors else []
        reason = f"its batch {ended.status}" + (f": {problems[0]}" if problems else "")
        for file in (ended.output_file_id, ended.error_file_id):
            for key, outcome in self._outcomes(file):
                if key in waiting and key in mine:
                    yield waiting.pop(key), outcome
        for key in mine:
            if key in waiting:
                self._settle(key, Cost(calls=1))
                yield waiting.pop(key), Failure(self.endpoint.scrubbed(f"{reason}, without an entry for it"))
        rest = tuple(
            key for key in batch.keys if key not in mine
        )  # paid for by a run that asked more: they may be asked again
        if rest:
            self.ledger.remember_batch(replace(batch, keys=rest))
        else:
            self.ledger.forget_batch(batch)

    def _ended(self, batch: Batch) -> Any:
        assert batch.batch is not None
        name, wait = batch.batch, FIRST_POLL_S
        print(
            f"batch {name}: {len(batch.keys):,} questions; if this is interrupted, run again and it goes on",
            file=sys.stderr,
        )
        while True:
            now = self._retrieved(name)
            if now.status in ENDED:
                return now
            time.sleep(wait)
            wait = min(LONGEST_POLL_S, wait * 1.5)

    def _retrieved(self, name: str) -> Any:
        """A batch as it is now. Gone, if it is not there and not there a little later either: it is paid for."""
        for wait in (FIRST_POLL_S, 0):
            try:
                return self._retried(lambda: self.endpoint.client.batches.retrieve(name))
            except NotFound as error:
                told = str(error), error.reason
            time.sleep(wait)
        raise Gone(*told)

    def _outcomes(self, file: str | None) -> Iterator[tuple[str, Reply | Failure]]:
        if file is None:
            return
        content = self._patiently(lambda: self.endpoint.client.files.content(file).content)
        for line in content.split(b"\n"):
            entry = self.endpoint.parsed(line) if line.strip() else None
            key = entry.get("custom_id") if entry is not None else None
            if entry is not None and isinstance(key, str) and key in self._questions:
                yield key, self._outcome(key, entry)

    def _outcome(self, key: str, entry: dict[str, Any]) -> Reply | Failure:
        response = _object(entry.get("response"))
        if response.get("status_code") == 200:
            try:
                reply = self.provider.reply_of(response.get("body"), self._body(key))
            except TryAgain as error:
                self._settle(key, None)
                return Failure(str(error))
            self._settle(key, self.provider.actual_of(reply, self._body(key)))
            return reply
        self._settle(key, Cost(calls=1))
        told = entry.get("error") or _object(response.get("body")).get("error")
        if not told:
            return Failure("no answer in its batch")
        words = _object(told).get("message") or _object(told).get("code") or told
        return Failure(f"HTTP {response.get('status_code')}: {words}")

    def _settle(self, key: str, actual: Cost | None) -> None:
        ticket = self._aside.pop(key, None)  # none where an earlier run paid
        if ticket is not None:
            self.provider.purse.settle(ticket, actual)

    def _patiently(self, call: Callable[[], T]) -> T:
        """A request about a batch. Where it is refused the run stops.

        The batch goes on, and the next run asks for it.
        """
        try:
            return self._retried(call)
        except NotFound as error:
            refusal = error.reason
        except Refused as error:
            refusal = str(error)
        raise UserError(
            f"{self.endpoint.url}: the Batch API refuses ({refusal}); run again later, or set `llm.batch` to false"
        )

    def _retried(self, call: Callable[[], T]) -> T:
        return self.provider.patiently(lambda: self.endpoint.tried(call), threading.Event())


def _object(value: Any) -> dict[str, Any]:
    """What should be a JSON object, or an empty one: a line may hold anything."""
    return value if isinstance(value, dict) else {}
