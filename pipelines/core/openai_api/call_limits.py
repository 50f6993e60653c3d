"""What calls may cost, and how fast they may go out: a budget that is never exceeded, and a pace."""

import threading
import time
from dataclasses import dataclass

from pipelines.core.params import Budget, Price


class BudgetReached(Exception):
    """A call might exceed the budget, and nothing under way can still give room back.

    The message names the parameter and its value.
    """


class Stopped(Exception):
    """Everything stops; what waits need not wait on."""


@dataclass(frozen=True)
class Cost:
    calls: int = 0
    tokens: int = 0
    dollars: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.calls + other.calls, self.tokens + other.tokens, self.dollars + other.dollars)

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.calls - other.calls, self.tokens - other.tokens, self.dollars - other.dollars)

    def __str__(self) -> str:
        return f"{self.calls:,} calls, {self.tokens:,} tokens, ${self.dollars:.4f}"


def cost(price: Price, input_tokens: int, output_tokens: int, calls: int = 1) -> Cost:
    dollars = (input_tokens * price.input + output_tokens * price.output) / 1_000_000
    return Cost(calls, input_tokens + output_tokens, dollars)


class Purse:
    """Spends a budget from several threads.

    The most that a call can cost is set aside before it goes out, and what it did cost is settled after.
    """

    def __init__(self, budget: Budget):
        self.budget = budget
        self.spent = Cost()
        self._aside: dict[int, Cost] = {}  # reservation -> the most it can cost
        self._aside_in_all = Cost()  # kept, since a batch sets 50,000 aside
        self._tickets = 0
        self._changed = threading.Condition()
        self._stopped = False

    def reserve(self, most: Cost) -> int:
        """Set `most` aside, waiting for calls under way to give back what they did not need.

        BudgetReached when none is left to wait for.
        """
        with self._changed:
            while not self._stopped:
                if (ticket := self._set_aside(most)) is not None:
                    return ticket
                if not self._aside:
                    raise self.reached(most)
                self._changed.wait()
            raise Stopped

    def reserve_now(self, most: Cost) -> int | None:
        """Set `most` aside if there is room for it."""
        with self._changed:
            return self._set_aside(most)

    def reached(self, most: Cost) -> BudgetReached:
        name = self._exceeded_by(most)
        assert name is not None
        return BudgetReached(f"`llm.budget.{name}` is {getattr(self.budget, name)}")

    def _set_aside(self, most: Cost) -> int | None:
        if self._exceeded_by(most) is not None:
            return None
        self._tickets += 1
        self._aside[self._tickets] = most
        self._aside_in_all += most
        return self._tickets

    def settle(self, ticket: int, actual: Cost | None) -> None:
        """`actual` None: unknown, so all that was set aside counts as spent."""
        with self._changed:
            most = self._aside.pop(ticket)
            self._aside_in_all = self._aside_in_all - most if self._aside else Cost()  # no rounding stays behind
            self.spent += most if actual is None else actual
            self._changed.notify_all()

    def stop(self) -> None:
        """Nothing more is set aside; who waits is told."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def resume(self) -> None:
        with self._changed:
            self._stopped = False

    def _exceeded_by(self, most: Cost) -> str | None:
        after = self.spent + self._aside_in_all + most
        for name in ("calls", "tokens", "dollars"):
            limit = getattr(self.budget, name)
            if limit is not None and getattr(after, name) > limit:
                return name
        return None


class Pace:
    """Requests and tokens a minute, evenly spaced, so that no minute anywhere sees more.

    A server's wish to be left alone holds for all.
    """

    def __init__(self, requests_per_minute: int | None, tokens_per_minute: int | None):
        self._request_s = 60 / requests_per_minute if requests_per_minute else 0.0
        self._token_s = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._next_request = self._next_token = self._not_before = 0.0  # instants of time.monotonic
        self._lock = threading.Lock()

    def wait(self, tokens: int, stopping: threading.Event) -> None:
        """Until a call of about so many tokens may go out. Stopped when everything stops."""
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next_request, self._next_token)
            self._next_request = at + self._request_s
            self._next_token = at + tokens * self._token_s
        while (left := max(at, self._not_before) - time.monotonic()) > 0:
            if stopping.wait(left):
                raise Stopped

    def settle(self, guessed: int, tokens: int) -> None:
        """What it was in truth: the next call comes sooner or later by the difference."""
        with self._lock:
            self._next_token += (tokens - guessed) * self._token_s

    def hold(self, seconds: float) -> None:
        """Nothing goes out for so long."""
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + seconds)
