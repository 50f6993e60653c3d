"""Run the ingest stage in process on a folder of a test's own."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines import ingest
from pipelines.core.params import ColumnNames, Ingest, load_params

REPO = Path(__file__).parents[2]
PARAMS = load_params(REPO / "params.yaml")


@dataclass(frozen=True)
class Ingested:
    reviews: list[dict[str, Any]]
    businesses: list[dict[str, Any]]
    photos: list[dict[str, Any]]
    rejects: list[dict[str, Any]]
    report: dict[str, Any]

    def reasons(self) -> dict[int, str]:
        return {reject["source_row"]: reject["reason"] for reject in self.rejects}


def run(work: Path, source: str, path: Path, *, columns: dict[str, str] | None = None, photos: Path | None = None):
    """Ingest `path` into `work`/tables; without `photos` an empty folder stands in."""
    if photos is None:
        photos = work / "no-photos"
        photos.mkdir(exist_ok=True)
    settings = Ingest(source=source, path=str(path), photos=str(photos), columns=ColumnNames(**columns or {}))
    args = argparse.Namespace(source=path, photos=photos, tables=work / "tables", report=work / "ingest.json")
    ingest.main(args, PARAMS.model_copy(update={"ingest": settings}))
    return tables_of(work)


def tables_of(work: Path) -> Ingested:
    names = ("reviews", "businesses", "photos", "rejects")
    found = {name: pq.read_table(work / "tables" / f"{name}.parquet").to_pylist() for name in names}
    report = json.loads((work / "ingest.json").read_text())
    assert report["records"] == report["reviews"] + report["rejects"]
    assert report["reviews"] == len(found["reviews"])
    assert report["rejects"] == len(found["rejects"]) == sum(report["rejects_by_reason"].values())
    return Ingested(**found, report=report)


def lines(path: Path, *records: Any) -> Path:
    """JSON Lines; a `str` is written as it stands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = (record if isinstance(record, str) else json.dumps(record) for record in records)
    path.write_text("".join(line + "\n" for line in written), encoding="utf-8")
    return path
