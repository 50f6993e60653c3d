"""The suites of expectations/*.json: read, checked, and their parameters filled in.

A suite is what one table must be: its columns and types in order (`columns`), the key that names a row (`key`), SQL
expressions that stand beside the columns (`derive`), and Great Expectations by type and kwargs, each with its `why`.
`{"$param": "validate.min_reviews"}` is a value of params.yaml; `"when": {"protocol": "leave_one_out"}` is the condition
under which an expectation counts. A file with `entities` is one suite per entity, `{entity}` standing for its name.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from pipelines.core.errors import UserError
from pipelines.core.params import Params

Group = Literal["tables", "features", "training_set"]
PART = "part"  # the file's stem, beside the columns of a table that lies in several files
COLUMN_KWARGS = ("column", "column_A", "column_B", "column_list", "column_set")


class Written(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


When = dict[str, Any]  # parameter -> the value under which something counts


class WrittenExpectation(Written):
    type: str
    kwargs: dict[str, Any]
    why: Annotated[str, Field(min_length=1)]
    when: When = {}


class WrittenSuite(Written):
    table: str
    group: Group
    files: Annotated[list[str], Field(min_length=1)]  # under the data folder
    key: Annotated[list[str], Field(min_length=1)]
    entities: list[str] = []
    columns: dict[str, str]
    derive: dict[str, str | list[str]] = {}  # column -> DuckDB SQL over this and the other tables; lists are lines
    expectations: list[WrittenExpectation]


@dataclass(frozen=True)
class Check:
    """One expectation of Great Expectations, ready to be run."""

    type: str
    kwargs: dict[str, Any]
    why: str

    @property
    def columns(self) -> list[str]:
        """The columns it looks at."""
        named = [self.kwargs.get(kwarg, []) for kwarg in COLUMN_KWARGS]
        return [column for value in named for column in ([value] if isinstance(value, str) else value)]

    @property
    def label(self) -> str:
        """What it is called in reports: its type and its columns."""
        columns = self.columns
        named = ", ".join(columns) if len(columns) <= 3 else f"{len(columns)} columns"
        return f"{self.type}({named})" if columns else self.type


@dataclass(frozen=True)
class Suite:
    """What one table must be under one params.yaml."""

    source: Path
    table: str
    group: Group
    files: tuple[str, ...]
    key: tuple[str, ...]
    columns: dict[str, str]
    derive: dict[str, str]
    checks: tuple[Check, ...]


def read_suites(folder: Path, params: Params) -> dict[str, Suite]:
    """Every suite in `folder`, by table. UserError names the file and the key, parameter or column that is wrong."""
    suites: dict[str, Suite] = {}
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise UserError(f"{folder}: no suites (*.json) here; run from the repository's root or pass --suites")
    for path in paths:
        for written in _read(path):
            if written.table in suites:
                other = suites[written.table].source
                raise UserError(f"{path}: a second suite for table `{written.table}`, beside {other}; remove one")
            suites[written.table] = _resolve(path, written, params)
    return suites


def _read(path: Path) -> Iterator[WrittenSuite]:
    text = path.read_text(encoding="utf-8")
    raw = _parse(path, text)
    entities = raw.get("entities") if isinstance(raw, dict) else None
    if not entities:
        yield _written(path, raw)
        return
    for entity in entities:
        yield _written(path, _parse(path, text.replace("{entity}", str(entity))))


def _parse(path: Path, text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:  # json keeps the last of the two without a word
            raise UserError(f"{path}: key `{twice[0]}` stands twice in one object; remove one")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON at line {error.lineno}, column {error.colno} ({error.msg})") from None


def _written(path: Path, raw: Any) -> WrittenSuite:
    try:
        return WrittenSuite.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UserError(f"{path}: unknown key `{key}`; remove it or mend its spelling") from None
        if first["type"] == "missing":
            raise UserError(f"{path}: `{key}` is missing") from None
        raise UserError(f"{path}: `{key}` is {first['input']!r}: {first['msg']}") from None


def _resolve(path: Path, written: WrittenSuite, params: Params) -> Suite:
    values = params.model_dump(by_alias=True)
    derive = {name: sql if isinstance(sql, str) else " ".join(sql) for name, sql in written.derive.items()}
    for index, expectation in enumerate(written.expectations):
        if expectation in written.expectations[:index]:
            raise UserError(f"{path}: `expectations.{index}` ({expectation.type}) stands there twice; remove one")
    checks, used = [], set()
    for expectation in written.expectations:
        check = Check(expectation.type, _filled(path, expectation.kwargs, values), expectation.why)
        used |= set(check.columns)
        if _holds(path, expectation.when, values):
            checks.append(check)
    _check_columns(path, written, used)
    return Suite(
        path,
        written.table,
        written.group,
        tuple(written.files),
        tuple(written.key),
        written.columns,
        derive,
        tuple(checks),
    )


def _check_columns(path: Path, written: WrittenSuite, used: set[str]) -> None:
    columns, derive = set(written.columns), set(written.derive)
    known = {*columns, *derive, *({PART} if len(written.files) > 1 else ())}
    for column in sorted((used | set(written.key)) - known):
        raise UserError(f"{path}: no column `{column}` in `columns` or `derive`; mend its spelling")
    for column in sorted(derive - used):
        raise UserError(f"{path}: no expectation looks at the derived column `{column}`; add one or remove it")
    for column in sorted(derive & columns):
        raise UserError(f"{path}: derived column `{column}` hides a column of the table; rename it")


def _filled(path: Path, value: Any, values: dict[str, Any]) -> Any:
    """`value` with every {"$param": name} replaced by that parameter's value."""
    if isinstance(value, dict):
        if set(value) == {"$param"}:
            return _parameter(path, value["$param"], values)
        return {key: _filled(path, item, values) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(path, item, values) for item in value]
    return value


def _parameter(path: Path, name: Any, values: Any) -> Any:
    for part in str(name).split("."):
        if isinstance(values, dict) and part in values:
            values = values[part]
        elif isinstance(values, tuple | list) and part.isdigit() and int(part) < len(values):
            values = values[int(part)]
        else:
            _no_parameter(path, name)
    return values


def _no_parameter(path: Path, name: Any) -> NoReturn:
    raise UserError(f"{path}: params.yaml has no parameter `{name}`; mend its spelling")


def _holds(path: Path, when: When, values: dict[str, Any]) -> bool:
    """Whether params.yaml is as `when` says; each of its parameters is checked, whatever the others are."""
    applies = [_applies(path, name, value, values) for name, value in when.items()]
    return all(applies)


def _applies(path: Path, name: str, value: Any, values: dict[str, Any]) -> bool:
    """Whether parameter `name` has `value`; refused where it never could, as an expectation that never runs is none."""
    model: Any = Params
    for part in name.split("."):
        fields = {field.alias or key: field for key, field in getattr(model, "model_fields", {}).items()}
        if part not in fields:
            _no_parameter(path, name)
        model = fields[part].annotation
    try:
        TypeAdapter(model).validate_python(value, strict=True)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise UserError(f"{path}: `when` has {name}: {value!r}, which it can never be: {message}") from None
    return bool(_parameter(path, name, values) == value)
