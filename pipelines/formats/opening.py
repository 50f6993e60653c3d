"""Raw files as bytes: plain or gzip, with progress, and one clear line where a file is no such thing."""

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from tqdm import tqdm

from pipelines.core.errors import UserError

# How a file begins that is something else than text.
KNOWN = {
    b"PK\x03\x04": "a ZIP archive (or an Excel workbook): unpack it, or export it as CSV",
    b"SQLite format 3": "a SQLite database: export the table as CSV",
    b"BZh": "a bzip2 archive: unpack it",
    b"\x28\xb5\x2f\xfd": "a zstd archive: unpack it",
    b"\xfd7zXZ": "an xz archive: unpack it",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8",
    b"%PDF": "a PDF document: name the data file itself",
    b"<!DOCTYPE": "a web page, perhaps the download's error page: download the data again",
    b"<html": "a web page, perhaps the download's error page: download the data again",
}
GZIP = b"\x1f\x8b"


def head_of(path: Path, size: int = 16) -> bytes:
    """The first bytes as they lie on the disk. UserError where there is no such file, or it is empty."""
    try:
        with path.open("rb") as handle:
            head = handle.read(size)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file or folder; set `ingest.path` to the raw data") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; set `ingest.path` to the file itself") from None
    except PermissionError:
        raise UserError(f"{path}: may not be read; change its permissions") from None
    if not head:
        raise UserError(f"{path}: the file is empty (0 bytes); download or export it again")
    return head


class _Counting(io.RawIOBase):
    """A file that tells a progress bar what is read from it."""

    def __init__(self, handle: io.FileIO, bar: "tqdm[None]") -> None:
        self._handle, self._bar = handle, bar

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]  # typeshed's Buffer is 3.12's
        count = self._handle.readinto(buffer) or 0
        self._bar.update(count)
        return count


@contextmanager
def open_raw(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked where it is gzip. UserError where it is missing, empty, truncated or another kind."""
    head = head_of(path)
    for magic, remedy in KNOWN.items():
        if head.startswith(magic):
            raise UserError(f"{path}: byte 0: the file is {remedy}")
    with (
        path.open("rb", buffering=0) as handle,
        tqdm(total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True, delay=5, mininterval=1) as bar,
    ):
        counting = io.BufferedReader(_Counting(handle, bar), 1 << 20)
        if not head.startswith(GZIP):
            yield cast(BinaryIO, counting)
            return
        try:
            with gzip.GzipFile(fileobj=counting) as unpacked:
                yield cast(BinaryIO, unpacked)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(
                f"{path}: byte {handle.tell()}: the gzip file is truncated or damaged ({error}); download it again"
            ) from None


def data_files(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """`path` itself, or, of a folder, its files with one of `suffixes` by name (hidden ones and subfolders left out).

    A sorted order, so that `source_row` means the same everywhere. UserError where there is none.
    """
    if not path.is_dir():
        head_of(path)
        return [path]
    found = sorted(
        file
        for file in path.iterdir()
        if file.is_file() and not file.name.startswith(".") and file.name.lower().endswith(suffixes)
    )
    if not found:
        raise UserError(f"{path}: no file here ends in {', '.join(suffixes)}; set `ingest.path` to the raw data")
    return found


Kinds = dict[str, set[str]]  # kind of file -> keys (JSON) or columns (CSV) that a file of it has
Files = dict[str, list[Path]]


def files_by_kind(
    path: Path,
    suffixes: tuple[str, ...],
    keys_of: Callable[[Path], set[str]],
    kinds: Kinds,
    *,
    required: str,
    ignored: tuple[set[str], ...] = (),
) -> Files:
    """The files at `path` by what their keys say they are, whatever their names; the first matching kind counts.

    `ignored`: keys of files that belong to the dataset and say nothing here. UserError for any other file, and where
    no file is of the kind `required`.
    """
    found: Files = {kind: [] for kind in kinds}
    for file in data_files(path, suffixes):
        keys = keys_of(file)
        kind = next((kind for kind, needed in kinds.items() if needed <= keys), None)
        if kind is not None:
            found[kind].append(file)
        elif not any(needed <= keys for needed in ignored):
            wanted = "; or ".join(f"{', '.join(sorted(needed))} ({kind})" for kind, needed in kinds.items())
            raise UserError(
                f"{file}: line 1: has {', '.join(sorted(keys))}; expected {wanted}: set `ingest.source` to its format"
            )
    if not found[required]:
        needed = ", ".join(sorted(kinds[required]))
        raise UserError(f"{path}: holds no file of {required} (with {needed}); set `ingest.path` to the raw data")
    return found
