"""The provider `openai`.

Any endpoint that speaks its API, with bounded concurrency, pace, retries and a budget that is never exceeded.
"""

import queue
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

from pipelines.core.errors import UserError
from pipelines.core.ledger import Ledger
from pipelines.core.openai_api.call_limits import BudgetReached, Cost, Pace, Purse, Stopped, cost
from pipelines.core.openai_api.endpoint import KEPT, Endpoint, Refused, TryAgain
from pipelines.core.openai_api.requests import (
    body_of,
    bytes_without_pictures,
    identity_of,
    likely_input,
    most_input,
    room_of,
)
from pipelines.core.openai_api.retry_waits import next_wait
from pipelines.core.params import Llm
from pipelines.core.questions import Estimate, Failure, Question, Reply, key_of

T = TypeVar("T")
LONGEST_ASKED_S = 600.0  # a server that wants to be left alone for longer is left alone: the run stops
MOST_COUNTED = 2**40  # tokens; who reports more does not count
WORN_OUT = 20  # so many questions in a row without an answer after all their retries: the endpoint is down


class OpenAIProvider:
    name = "openai"
    kept_together = 1  # each is paid for

    def __init__(self, llm: Llm, ledger: Ledger | None = None):
        """`ledger` remembers running batches and what tokens a text turned out to be; `llm.batch` needs it."""
        assert ledger is not None or not llm.batch, "batches are remembered in the ledger"
        self.llm = llm
        self.endpoint = Endpoint(llm)
        self.purse = Purse(llm.budget)
        self.pace = Pace(llm.limits.requests_per_minute, llm.limits.tokens_per_minute)
        self._ledger = ledger
        self._more_than_most = 1.0  # by how much an endpoint's own count has exceeded our bound
        self._open = False  # after a first call that the endpoint did not refuse altogether
        self._chance = random.Random()  # noqa: S311 (spreads retries)

    def identity(self, question: Question) -> dict[str, Any]:
        return identity_of(question, self.llm)

    def fits(self, question: Question) -> bool:
        if question.image is not None:
            return True  # a picture cannot be asked about in steps
        body = body_of(question, self.llm)
        return likely_input(body) + question.max_tokens <= self.llm.context_tokens

    @cached_property
    def _tokens_a_byte(self) -> float | None:
        if self._ledger is None:
            return None
        return self._ledger.tokens_a_byte(self.name, lambda asked: bytes_without_pictures(asked, self.llm.model))

    def estimate(self, question: Question) -> Estimate:
        """Input by what this model reported so far, where it did; output at most."""
        body = body_of(question, self.llm)
        likely = likely_input(body)
        if self._tokens_a_byte is not None and question.image is None:
            likely = round(most_input(body) * self._tokens_a_byte)
        return Estimate(likely, room_of(body))

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply | Failure]]:
        if self.llm.batch:
            from pipelines.core.openai_api.batch import BatchRun

            assert self._ledger is not None
            yield from BatchRun(self, self._ledger).answer(questions)
        else:
            yield from self._answer_side_by_side(questions)

    def _answer_side_by_side(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply | Failure]]:
        """A thread a call. The next call starts only when what came back has been taken.

        A kill loses no more than is under way.
        """
        came: queue.Queue[tuple[int, Reply | Failure | Exception]] = queue.Queue()
        stopping = threading.Event()
        waiting = deque(range(len(questions)))
        under_way = answered = worn_out = 0
        stop: UserError | None = None
        self.purse.resume()
        try:
            while under_way or (waiting and stop is None):
                while waiting and stop is None and under_way < (self.llm.limits.concurrency if self._open else 1):
                    self._start(waiting.popleft(), questions, came, stopping)
                    under_way += 1
                index, outcome = came.get()
                under_way -= 1
                if isinstance(outcome, Stopped):
                    continue
                if isinstance(outcome, UserError | BudgetReached):
                    stop = stop or self.stop_of(outcome, len(questions) - answered)
                elif isinstance(outcome, Exception) and not isinstance(outcome, Refused):
                    raise outcome  # a bug
                else:
                    self._open = True
                    answered += 1
                    worn_out = worn_out + 1 if isinstance(outcome, Refused) and outcome.worn_out else 0
                    if worn_out >= WORN_OUT:
                        stop = stop or UserError(
                            f"{self.endpoint.url}: {worn_out} questions in a row went unanswered ({outcome}); "
                            f"run again later: {KEPT}"
                        )
                    yield index, Failure(str(outcome)) if isinstance(outcome, Refused) else outcome
                if stop is not None:
                    # calls under way are paid for and awaited; who waits for a retry or for room in the budget is not
                    stopping.set()
                    self.purse.stop()
        finally:
            stopping.set()
            self.purse.stop()
        if stop is not None:
            raise stop

    def _start(
        self,
        index: int,
        questions: Sequence[Question],
        came: "queue.Queue[tuple[int, Reply | Failure | Exception]]",
        stopping: threading.Event,
    ) -> None:
        def call() -> None:
            try:
                came.put((index, self._ask(questions[index], stopping)))
            except Exception as error:  # handed to the thread that asked
                came.put((index, error))

        # daemons: after a stop the program ends at once, whatever an endpoint still has to say
        threading.Thread(target=call, daemon=True).start()

    def _ask(self, question: Question, stopping: threading.Event) -> Reply:
        body = body_of(question, self.llm)
        key = key_of(self, question)
        return self.patiently(lambda: self._ask_once(body, key, stopping), stopping)

    def _ask_once(self, body: dict[str, Any], key: str, stopping: threading.Event) -> Reply:
        """One call, within pace and budget."""
        guess = likely_input(body) + room_of(body)
        self.pace.wait(guess, stopping)
        most = self.most(body)
        ticket = self.purse.reserve(most)
        actual: Cost | None = None  # until known, all that was set aside counts
        try:
            reply = self.reply_of(self.endpoint.chat(body, key), body)
            actual = self.actual_of(reply, body)
            return reply
        except TryAgain as error:
            actual = None if error.billed else Cost(calls=1)
            raise
        except (Refused, UserError):
            actual = Cost(calls=1)
            raise
        finally:
            self.purse.settle(ticket, actual)
            self.pace.settle(guess, guess if actual is None else actual.tokens)

    def patiently(self, once: Callable[[], T], stopping: threading.Event) -> T:
        """`once`, again after what may pass. Refused after the last retry, Stopped, UserError."""
        for retry in range(self.llm.limits.retries + 1):
            try:
                return once()
            except TryAgain as error:
                last = error
            if retry == self.llm.limits.retries:
                break
            if last.wait is not None and last.wait > LONGEST_ASKED_S:
                raise UserError(
                    f"{self.endpoint.url}: wants no request for {last.wait:,.0f} s ({last}); run again then: {KEPT}"
                )
            if last.wait:
                self.pace.hold(last.wait)
            if stopping.wait(next_wait(retry, last.wait, self._chance)):
                raise Stopped
        if last.gone:
            raise UserError(
                f"{self.endpoint.url}: cannot be reached ({last}); set `llm.base_url`, or run again later: {KEPT}"
            )
        raise Refused(f"{last}, after {self.llm.limits.retries + 1} calls", worn_out=True)

    def most(self, body: Mapping[str, Any]) -> Cost:
        """The most that a call can cost."""
        by = self._more_than_most
        return cost(self.llm.price, round(most_input(dict(body)) * by), round(room_of(dict(body)) * by))

    def reply_of(self, response: Any, body: Mapping[str, Any]) -> Reply:
        """What a chat completion's JSON says. TryAgain where it is none."""
        try:
            choice = response["choices"][0]
            message = choice["message"]
            text, refusal, finish = message.get("content"), message.get("refusal"), choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise TryAgain("the answer is no chat completion", billed=True) from None
        usage = _usage(response)
        known = cost(self.llm.price, usage["input"], usage["output"]) if usage else self.most(body)
        return Reply(
            text=refusal if isinstance(refusal, str) and refusal else text if isinstance(text, str) else "",
            finish_reason="refusal" if refusal else str(finish),
            usage=usage,
            model=str(response.get("model") or self.llm.model),
            response=response,
            dollars=known.dollars,
        )

    def actual_of(self, reply: Reply, body: Mapping[str, Any]) -> Cost | None:
        """What a reply did cost, and how far that is above what it could; None: it does not say."""
        if not reply.usage:
            return None
        over = max(reply.usage["input"] / most_input(dict(body)), reply.usage["output"] / room_of(dict(body)))
        self._more_than_most = max(self._more_than_most, over)
        return cost(self.llm.price, reply.usage["input"], reply.usage["output"])

    def stop_of(self, why: UserError | BudgetReached, remaining: int) -> UserError:
        if isinstance(why, UserError):
            return why
        return UserError(
            f"params.yaml: {why}: the next call might exceed it; spent {self.purse.spent}; "
            f"{remaining:,} questions remain. Run again, or with a larger budget: {KEPT}"
        )


def _usage(response: Mapping[str, Any]) -> dict[str, int]:
    usage = response.get("usage")
    if not isinstance(usage, dict):
        return {}
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not (
        isinstance(read, int) and isinstance(written, int) and 0 <= read < MOST_COUNTED and 0 <= written < MOST_COUNTED
    ):
        return {}
    return {"input": read, "output": written}
