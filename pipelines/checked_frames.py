"""What Great Expectations is shown of a table: the columns its suite looks at, and derived ones, as a pandas frame.

Great Expectations knows neither joins nor vectors (on arrays of 384 it is wrong or takes minutes), so integrity and the
length and norm of vectors are columns that DuckDB derives, streaming over the Parquet files.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.core.errors import UserError
from pipelines.core.vocabulary import restaurant_types
from pipelines.suites import PART, Suite

WHITE = r"\pZ\x{09}-\x{0D}\x{1C}-\x{1F}\x{85}"  # what Arrow and Python strip, in RE2's words: \s is ASCII alone

# What suites may call beside DuckDB's own functions. A vector with a null inside has no norm and is not finite.
MACROS = f"""
    CREATE MACRO number_finite(x) AS coalesce(isfinite(x), true);
    CREATE MACRO vector_finite(v) AS coalesce(
        CASE WHEN list_count(v) = len(v) THEN isfinite(list_dot_product(v, v)) ELSE v IS NULL END, true);
    CREATE MACRO vector_norm(v) AS CASE WHEN list_count(v) = len(v) THEN sqrt(list_dot_product(v, v)) END;
    CREATE MACRO given_iff(condition, x, y) AS (x IS NOT NULL) = condition AND (y IS NOT NULL) = condition;
    CREATE MACRO has_words(text) AS regexp_matches(text, '[^{WHITE}]');
    CREATE MACRO trimmed(text) AS regexp_replace(text, '^[{WHITE}]+|[{WHITE}]+$', '', 'g');
"""


def read_schema(path: Path) -> pa.Schema:
    """The columns of a Parquet file. UserError where it is missing or not one."""
    try:
        return pq.read_schema(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such table; run `dvc repro` to make it") from None
    except (pa.ArrowInvalid, IsADirectoryError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({error}); run `dvc repro` to remake it") from None


def type_name(kind: pa.DataType) -> str:
    """`string`, `list<float>`, …: what a column holds, whatever its items are called and however long its offsets."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list<{type_name(kind.value_type)}>"
    return "string" if pa.types.is_large_string(kind) else str(kind)


def schema_frame(schema: pa.Schema) -> pd.DataFrame:
    """One row with the table's columns, in order, each holding the name of its type."""
    return pd.DataFrame([{field.name: type_name(field.type) for field in schema}], columns=schema.names)


def connect(files: Mapping[str, Sequence[Path]]) -> duckdb.DuckDBPyConnection:
    """DuckDB with a view per table (name -> its Parquet files); several files have a column `part`, their stem."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(MACROS)
    types = ", ".join(map(_quoted, restaurant_types()))
    connection.execute(f"CREATE MACRO restaurant_types() AS [{types}]")
    for table, paths in files.items():
        connection.execute(f'CREATE VIEW "{table}" AS {" UNION ALL BY NAME ".join(_selects(paths))}')
    return connection


def _selects(paths: Sequence[Path]) -> list[str]:
    part = [f", {_quoted(path.stem)} AS {PART}" if len(paths) > 1 else "" for path in paths]
    files = [f"read_parquet({_quoted(str(path))})" for path in paths]
    return [f"SELECT *{column} FROM {file}" for column, file in zip(part, files, strict=True)]  # noqa: S608 (quoted)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def other_tables(suite: Suite, column: str) -> set[str]:
    """The tables beside the suite's own that the derived column `column` reads."""
    query = f'SELECT {suite.derive[column]} FROM "{suite.table}"'  # noqa: S608 (only parsed)
    serialized = duckdb.execute("SELECT json_serialize_sql(?)", [query]).fetchall()[0][0]
    tree = json.loads(serialized)
    if tree["error"]:
        raise UserError(f"{suite.source}: derived column `{column}` is no SQL: {tree['error_message']}; mend it")
    return set(_tables_in(tree)) - {suite.table}


def _tables_in(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict) and tree.get("type") == "BASE_TABLE":
        yield tree["table_name"]
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for child in children:
        yield from _tables_in(child)


def rows_frame(connection: duckdb.DuckDBPyConnection, suite: Suite) -> pd.DataFrame:
    """The rows of the suite's table, ordered by key: its key and every column that an expectation looks at.

    A derived boolean that is null counts as false: SQL's `x IN (…)` is null where anything in it is.
    Raises UserError where the file's pages cannot be read or a derived column is no SQL over the tables.
    """
    looked_at = dict.fromkeys([*suite.key, *(column for check in suite.checks for column in check.columns)])
    selected = [f'({suite.derive[c]}) AS "{c}"' if c in suite.derive else f'"{suite.table}"."{c}"' for c in looked_at]
    order = ", ".join(f'"{suite.table}"."{column}"' for column in suite.key)
    # S608: the suites are code of this repository, and SQL is what they may say.
    query = f'SELECT {", ".join(selected)} FROM "{suite.table}" ORDER BY {order}'  # noqa: S608
    try:
        table = connection.execute(query).to_arrow_table()
    except (duckdb.InternalError, duckdb.OutOfMemoryException):
        raise
    except duckdb.Error as error:  # bad SQL has classes of its own, an unreadable page has none
        raise _bad_sql(suite, error) from None
    for index, field in enumerate(table.schema):
        if field.name in suite.derive and pa.types.is_boolean(field.type):
            table = table.set_column(index, field.name, pc.fill_null(table.column(index), False))
    return table.to_pandas()


def _bad_sql(suite: Suite, error: duckdb.Error) -> UserError:
    return UserError(
        f"{suite.source}: DuckDB cannot derive the columns of `{suite.table}`: {str(error).splitlines()[0]};"
        " mend `derive` there, or remake the table with `dvc repro`"
    )
