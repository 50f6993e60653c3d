"""Raw formats: a module each, with one entry point, `read(path, columns)`, that streams records.

`read` yields Review, Business, Photo, Reject and Ignored records (see `records`) and raises UserError where a
whole file is unusable. docs/formats.md says what becomes of every kind of dirt.
"""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from pipelines.formats.records import Columns, Record

Read = Callable[[Path, Columns], Iterator[Record]]

# Source -> module; imported when asked for, since some need packages that others do not.
MODULES = {
    "synthetic": "pipelines.formats.synthetic",
    "google_restaurants": "pipelines.formats.google_restaurants",
    "google_local": "pipelines.formats.google_local",
    "yelp": "pipelines.formats.yelp",
    "zomato": "pipelines.formats.zomato",
    "table": "pipelines.formats.table",
}


def reader_of(source: str) -> Read:
    """The `read` of a source; KeyError for an unknown one, which params.yaml refuses before."""
    return cast(Read, importlib.import_module(MODULES[source]).read)
