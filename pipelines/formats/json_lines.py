"""JSON Lines, one record in memory at a time."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pipelines.core.errors import UserError
from pipelines.formats.fields import Unusable
from pipelines.formats.opening import Files, Kinds, files_by_kind, open_raw

SUFFIXES = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz")
LONGEST_LINE = 16 * 2**20  # bytes; a file without line ends must not fill the memory
LOOKED_AT = 100  # records that decide which file this is


def json_lines(path: Path) -> Iterator[tuple[int, str, dict[str, Any] | Unusable]]:
    """Yield (line number from 1, the line, its object or why it is none).

    Bytes that are not UTF-8 become U+FFFD. A broken last line without a line end means that the file was cut:
    UserError, since what is missing cannot be counted.
    """
    with open_raw(path) as lines:
        number = 0
        while line := lines.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise UserError(f"{path}: line {number} is longer than {LONGEST_LINE} bytes; this is not JSON Lines")
            text = line.decode("utf-8-sig" if number == 1 else "utf-8", "replace").rstrip("\r\n")
            parsed = parse_object(text)
            if isinstance(parsed, Unusable) and text.strip() and not line.endswith(b"\n"):
                if number == 1:
                    raise UserError(f"{path}: line 1: expected JSON Lines, a JSON object a line ({parsed})")
                raise UserError(
                    f"{path}: line {number}, the last, ends within a record: the file is truncated; download it again"
                )
            yield number, text, parsed


def parse_object(text: str) -> dict[str, Any] | Unusable:
    """A line's JSON object, or why it is none."""
    if not text.strip():
        return Unusable("empty line")
    try:
        parsed = json.loads(text)
    # ValueError: also an integer of thousands of digits; RecursionError: nested as deep.
    except (ValueError, RecursionError) as error:
        return Unusable(f"not JSON: {' '.join(str(error).split())}")
    return parsed if isinstance(parsed, dict) else Unusable("not a JSON object")


def keys_of(path: Path) -> set[str]:
    """The keys of the first records. UserError where none of them is a JSON object."""
    seen: set[str] = set()
    for _, _, parsed in islice(json_lines(path), LOOKED_AT):
        if isinstance(parsed, dict):
            seen |= parsed.keys()
    if not seen:
        raise UserError(f"{path}: line 1: expected JSON Lines, a JSON object a line; the first lines hold none")
    return seen


def json_files_by_kind(path: Path, kinds: Kinds, *, required: str, ignored: tuple[set[str], ...] = ()) -> Files:
    """`files_by_kind` for JSON Lines."""
    return files_by_kind(path, SUFFIXES, keys_of, kinds, required=required, ignored=ignored)
