"""How long to wait before a request is made again: as long as the server says, else longer each time."""

import random
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that `retry-after-ms` or `retry-after` (seconds or an HTTP date) asks for; None.

    Neither, or not to be understood.
    """
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    except (KeyError, ValueError):
        pass
    told = headers.get("retry-after", "")
    try:
        return max(0.0, float(told))
    except ValueError:
        pass
    try:
        instant = parsedate_to_datetime(told)
        # an HTTP date has whole seconds and is GMT, whether or not it says so
        return max(0.0, (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp() - time.time())
    except (ValueError, OverflowError, TypeError):
        return None


def next_wait(retry: int, asked: float | None, chance: random.Random) -> float:
    """Seconds before retry number `retry` (from 0): never less than asked, and never all at the same instant."""
    if asked:
        return asked * (1 + 0.1 * chance.random()) + 0.05 * chance.random()
    longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**retry)
    return longest * (0.5 + 0.5 * chance.random())
