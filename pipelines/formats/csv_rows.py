"""CSV, one record in memory at a time: any line ends (bare carriage returns too), line feeds in quoted fields."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.formats.fields import Unusable
from pipelines.formats.opening import Files, Kinds, files_by_kind, open_raw

SUFFIXES = (".csv", ".csv.gz")
LONGEST_LINE = 16 * 2**20  # characters; a file without line ends must not fill the memory


class _Lines:
    """The file's lines, that remember the newest one and its number."""

    def __init__(self, path: Path, text: io.TextIOWrapper) -> None:
        self.number, self.newest = 0, ""
        self._path, self._text = path, text

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._text.readline(LONGEST_LINE + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > LONGEST_LINE:
            raise UserError(
                f"{self._path}: line {self.number} is longer than {LONGEST_LINE} characters; this is no CSV"
            )
        self.newest = line
        return line


def csv_rows(path: Path) -> Iterator[tuple[str, dict[str, str] | Unusable]]:
    """Yield (the row as a JSON list, its values by column or why it is no row), the header left out.

    Bytes that are not UTF-8 become U+FFFD. UserError where the header is unusable or the file ends within a row: what
    is missing cannot be counted.
    """
    with open_raw(path) as raw:
        lines = _Lines(path, io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline=""))
        reader = csv.reader(lines, strict=True)
        header = next(_rows(path, reader, lines), [])
        if isinstance(header, Unusable) or not any(header):
            raise UserError(f"{path}: line 1: expected the names of the columns, found {lines.newest[:60]!r}")
        twice = [name for name, times in Counter(header).items() if times > 1 and name]
        if twice:
            raise UserError(f"{path}: line 1: two columns are named {twice[0]!r}; rename one")
        for row in _rows(path, reader, lines):
            if isinstance(row, Unusable):
                yield lines.newest, row
            elif not row:
                yield "", Unusable("empty line")
            elif len(row) == len(header):
                yield json.dumps(row, ensure_ascii=False), dict(zip(header, row, strict=True))
            elif len(row) < len(header) and not lines.newest.endswith(("\r", "\n")):
                raise truncated(path, lines)
            else:
                why = f"wrong number of columns: {len(row)}, the header has {len(header)}"
                yield json.dumps(row, ensure_ascii=False), Unusable(why)


def truncated(path: Path, lines: _Lines) -> UserError:
    return UserError(
        f"{path}: line {lines.number}, the last, ends within a row: the file is truncated, or a quote is never closed; "
        "download or mend it"
    )


def _rows(path: Path, reader: Iterator[list[str]], lines: _Lines) -> Iterator[list[str] | Unusable]:
    """The reader's rows; a row whose quotes are broken is unusable, and the reader goes on at the next line."""
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                raise truncated(path, lines) from None
            if "field larger" in str(error):
                raise UserError(
                    f"{path}: line {lines.number}: a field is longer than {csv.field_size_limit()} characters: "
                    "a quote before it is never closed, or the text is that long; mend it"
                ) from None
            yield Unusable(f"broken quotes: {error}")


def columns_of(path: Path) -> set[str]:
    """The names of the columns."""
    with open_raw(path) as raw:
        lines = _Lines(path, io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline=""))
        header = next(_rows(path, csv.reader(lines, strict=True), lines), [])
    if isinstance(header, Unusable) or not any(header):
        raise UserError(f"{path}: line 1: expected the names of the columns, found {lines.newest[:60]!r}")
    return set(header)


def csv_files_by_kind(path: Path, kinds: Kinds, *, required: str) -> Files:
    """`files_by_kind` for CSV."""
    return files_by_kind(path, SUFFIXES, columns_of, kinds, required=required)
