"""The whole pipeline with a language model behind a real endpoint, whose answers mean nothing.

All of them are survived, none is asked for twice, and the key is written nowhere.
"""

import base64
import json
import secrets
import sqlite3
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.core.vocabulary import MOST_SUBTYPES, PRICE_TAGS, restaurant_types
from tests import workspace
from tests.llm.tiny_llama import served_tiny_llama
from tests.params import write_params
from tests.photos.tiny_blip2 import save_tiny_blip2
from tests.workspace import copy_repository, run_in

CANARY = f"sk-canary-{secrets.token_hex(12)}"  # drawn: this file too is among those that are searched
SMALL = {
    "model": "proposed",
    "simulate__reviews": 400,
    "simulate__users": 80,
    "simulate__businesses": 15,
    "simulate__photos": 20,
    "validate__min_reviews": 100,
    "validate__none_share": 1.0,
    "summarize__provider": "openai",
    "summarize__growth": 5.0,
    "summarize__words": 20,
    "tag__provider": "openai",
    "tag__growth": 8.0,
    "describe_photos__captions": "blip2",
    "llm__context_tokens": 2000,
    "llm__temperature": 0.7,  # or the random model repeats itself until its room is full
    "llm__failed_share": 1.0,
    "llm__limits__concurrency": 2,
    "llm__limits__requests_per_minute": None,
    "llm__limits__tokens_per_minute": None,
    "prove__rows": 200,
    "prove__perturbed": 20,
    "reduce__epochs": 3,
    "train__epochs": 3,
}


def forms_of(secret: str) -> list[bytes]:
    """The secret as it is, escaped for a URL, in hex, and in base64 wherever in a longer text it may begin."""
    plain = secret.encode()
    forms = [plain, plain.hex().encode(), secret.replace("-", "%2D").encode()]
    for before in range(3):
        whole = base64.b64encode(b"?" * before + plain)
        # letters that also hold bits of a neighbour are cut off
        forms.append(whole[-(-8 * before // 6) : (before + len(plain)) * 8 // 6])
    return forms


def contents(file: Path) -> Iterator[bytes]:
    """A file's bytes, and what they hold compressed: git's objects, the values of Parquet columns."""
    raw = file.read_bytes()
    yield raw
    if raw.startswith(b"PAR1"):
        table = pq.read_table(pa.BufferReader(raw))
        yield str(table.schema.metadata).encode()
        for column in table.columns:
            yield from (bytes(part) for chunk in column.chunks for part in chunk.buffers() if part is not None)
    elif raw[:1] == b"\x78":
        try:
            yield zlib.decompress(raw)
        except zlib.error:
            return  # something else that begins with an x


def files_with(secret: str, *folders: Path) -> list[str]:
    """Names of files that hold a form of the secret."""
    forms = forms_of(secret)
    files = [file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]
    assert len(files) > len(folders)
    return [str(file) for file in files if any(form in part for part in contents(file) for form in forms)]


@pytest.mark.parametrize("before", range(4))
def test_the_search_finds_the_key_in_all_its_forms(tmp_path: Path, before: int) -> None:
    (tmp_path / "deep").mkdir()
    text = "?" * before + CANARY + " and more"
    other = pa.table({"text": ["nothing"] * 1000 + ["x" * 500 + text]})
    pq.write_table(other, tmp_path / "deep" / "table", compression="zstd")
    (tmp_path / "plain.log").write_text(text)
    (tmp_path / "header").write_bytes(base64.b64encode(text.encode()))
    (tmp_path / "object").write_bytes(zlib.compress(text.encode()))
    (tmp_path / "other.txt").write_text(CANARY[:-1] + " is not the key")
    found = {Path(name).name for name in files_with(CANARY, tmp_path)}
    assert found == {"table", "plain.log", "header", "object"}


@dataclass(frozen=True)
class Call:
    """A row of the ledger."""

    asked: str  # what was sent, whichever attempt it was
    status: str


def calls_of(cache: Path) -> list[Call]:
    """All that was asked of the endpoint so far, in the order in which it was answered."""
    with sqlite3.connect(cache / "llm" / "ledger.sqlite") as ledger:
        rows = ledger.execute("SELECT request, status FROM answers WHERE provider = 'openai' ORDER BY rowid").fetchall()
    return [Call(json.dumps(json.loads(request)["body"]["messages"]), status) for request, status in rows]


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_whole_pipeline_with_a_random_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, cache = copy_repository(tmp_path / "copy"), tmp_path / "cache"
    monkeypatch.setitem(workspace.ENVIRONMENT, "OPENAI_API_KEY", CANARY)
    monkeypatch.setitem(workspace.ENVIRONMENT, "MMREC_CACHE", str(cache))
    checkpoint = save_tiny_blip2(tmp_path / "tiny-blip2")
    with served_tiny_llama(tmp_path / "served") as served:
        write_params(
            work / "params.yaml",
            **SMALL,
            llm__base_url=served.base_url,
            llm__model=served.model,
            describe_photos__checkpoint=str(checkpoint),
        )
        start = time.monotonic()
        first = run_in(work, "dvc repro")
        calls = calls_of(cache)
        print(f"{time.monotonic() - start:.0f} s, {len(calls)} calls:", Counter(call.status for call in calls))
        again = run_in(work, "dvc repro --force --single-item summarize && dvc repro --force --single-item tag")
        new = calls_of(cache)[len(calls) :]
    all_came_through(work)
    answered = {call.asked for call in calls if call.status == "ok"}
    assert answered
    assert not answered & {call.asked for call in new}
    assert {call.asked for call in new} <= {call.asked for call in calls}  # only what had failed is asked again
    assert CANARY not in "".join((first.stdout, first.stderr, again.stdout, again.stderr))
    assert files_with(CANARY, work, cache) == []


def all_came_through(work: Path) -> None:
    """Answers with their source, failures with their reasons, words of the vocabulary, no leak, a judged model."""
    summaries = pq.read_table(work / "data" / "features" / "summarize" / "summaries.parquet").to_pylist()
    tags = pq.read_table(work / "data" / "features" / "tag" / "tags.parquet").to_pylist()
    of_model = [row for row in summaries if row["source"] == "openai" and row["summary"] is not None]
    assert len(of_model) > 20
    assert all(row["model"] and row["prompt"] and row["calls"] and row["embedding"] for row in of_model)
    for row in summaries:
        assert (row["summary"] is None) == (row["failure"] is not None)
    for row in tags:
        assert row["source"] == "openai"
        assert (row["price_tag"] is None) == (row["subtypes"] is None) == (row["failure"] is not None)
        assert row["price_tag"] in (None, *PRICE_TAGS)
        assert set(row["subtypes"] or ()) <= set(restaurant_types()) and len(row["subtypes"] or ()) <= MOST_SUBTYPES
    failures = Counter(row["failure"] for row in (*summaries, *tags) if row["failure"] is not None)
    print("failures:", failures)
    assert failures  # a model that says nothing but noise
    assert all("\n" not in reason and reason for reason in failures)
    photos = pq.read_table(work / "data" / "photos" / "descriptions.parquet", columns=["caption", "call"]).to_pylist()
    assert sum(row["caption"] is not None and row["call"] is not None for row in photos) > 10
    assert json.loads((work / "results" / "leaks.json").read_text())["leaks"] == 0
    assert 0 <= json.loads((work / "results" / "metrics.json").read_text())["test"]["auc"] <= 1
