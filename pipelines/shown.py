"""What language models were shown: the ledger's calls, held against the words that a row may see.

A snapshot's question is put together anew from the reviews that the twin says it holds. Its key is made of every word,
so that the ledger's answer under this key was given to just these words; the tables must hold that answer, and its
embedding.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines import summarize, tag
from pipelines.core.encoders import TextEncoder
from pipelines.core.params import Params
from pipelines.core.providers import door_of
from pipelines.core.readings import OWN_WORDS
from pipelines.core.snapshots import Snapshot
from pipelines.core.tables import SUMMARIES, TAGS, read_table
from pipelines.perturbed import plain_rows

Row = dict[str, Any]
Readings = Mapping[str, Row]  # `<view> <snapshot_id>` -> what stands beside the snapshot


@dataclass
class Shown:
    """What was asked of the ledger. `unknown`: readings whose calls are in another machine's ledger."""

    checked: int = 0
    unknown: int = 0
    wrong: tuple[str, ...] = ()


def read_readings(summaries: Path, tags: Path, snapshots: Mapping[str, Snapshot]) -> Readings:
    """What stands beside those `snapshots` (by `<view> <snapshot_id>`), of the tables that summarize and tag made."""
    wanted = pa.array({snapshot.snapshot_id for snapshot in snapshots.values()}, pa.string())
    found: dict[str, Row] = {}
    for path, schema, suffix in ((summaries, SUMMARIES, "summary"), (tags, TAGS, "tags")):
        table = read_table(path, schema)
        for row in plain_rows(table.filter(pc.is_in(table["snapshot_id"], wanted))):
            found[f"{row['entity']}_{suffix} {row['snapshot_id']}"] = row
    return found


def check_shown(snapshots: Mapping[str, Snapshot], readings: Readings, params: Params) -> Shown:
    """Ask the ledger for the calls about `snapshots`, and compare what it holds with the tables."""
    shown = Shown()
    if not snapshots:  # nobody wrote a word
        return shown
    encoder = TextEncoder(params.embed_reviews.encoder, params.embed_reviews.batch_size, params.cache.folder())
    asked = {name: snapshot for name, snapshot in snapshots.items() if name in readings}
    for stage, suffix in (("summarize", "_summary"), ("tag", "_tags")):
        some = {name: snapshot for name, snapshot in asked.items() if name.split(" ")[0].endswith(suffix)}
        questions = {
            name: summarize.question_of(snapshot, params.summarize)
            if stage == "summarize"
            else tag.question_of(snapshot)
            for name, snapshot in some.items()
        }
        door = door_of(getattr(params, stage).provider, params, encoder)
        put = {name: question for name, question in questions.items() if question is not None}
        recalled = dict(zip(put, door.recall(list(put.values())), strict=True))
        for name, snapshot in some.items():
            reading = readings[name]
            if reading["failure"] is not None:
                continue
            if questions[name] is None:
                agrees = (reading["source"], reading["summary"]) == (OWN_WORDS, snapshot.texts[0])
            elif (answer := recalled[name]) is None:
                shown.unknown += 1
                continue
            else:
                agrees = said(reading) == as_said(answer.text, stage) and list(answer.calls) == reading["calls"]
            shown.checked += 1
            if not agrees:
                shown.wrong += (f"{name}: what stands beside it is not the ledger's answer about its reviews",)
    shown.wrong += tuple(wrongly_embedded(asked, readings, encoder))
    return shown


def said(reading: Row) -> Any:
    return reading["summary"] if "summary" in reading else (reading["price_tag"], reading["subtypes"])


def as_said(answer: str, stage: str) -> Any:
    if stage == "summarize":
        return answer
    tags = json.loads(answer)
    return tags["price"], tags["types"]


def wrongly_embedded(snapshots: Mapping[str, Snapshot], readings: Readings, encoder: TextEncoder) -> Iterator[str]:
    names: Sequence[str] = [name for name in snapshots if readings[name].get("summary") is not None]
    vectors = encoder.encode([readings[name]["summary"] for name in names], "embedding what was said")
    for name, vector in zip(names, vectors, strict=True):
        if not np.array_equal(vector, readings[name]["embedding"]):
            yield f"{name}: its embedding is not that of its summary"
