"""Progress with rate and time left on stderr: smooth on a terminal, a line every ten seconds in a log."""

import sys
from typing import Any

from tqdm import tqdm


def progress(total: int, description: str, unit: str, watched: bool = True) -> "tqdm[Any]":
    """A bar that appears only when the work lasts over a second; never where it is not `watched`."""
    interval = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm(
        total=total, desc=description, unit=unit, delay=1, mininterval=interval, miniters=1, disable=not watched
    )
