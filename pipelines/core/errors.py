"""Errors meant for the user, and the one place that turns them into an exit code."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Bad input or configuration: one line that names the value, its place and the remedy."""


class CheckFailed(UserError):
    """A data check, a guard or the leak prover refused a table: the lines say what and where."""


def exit_code_of(main: Callable[[], None]) -> int:
    """Run `main`; 0, or 2 after printing a `UserError` to stderr. A bug keeps its traceback."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
