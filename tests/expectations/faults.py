"""faults.txt, read: one fault per expectation, and what the failure must say."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What a world is called in faults.txt -> its params.yaml. Between them every condition (`when`) is met once.
WORLDS: dict[str, dict[str, Any]] = {
    "time": {"protocol": "point_in_time"},
    "loo": {
        "protocol": "leave_one_out",
        "describe_photos__captions": "blip2",
        "llm__failed_share": 0.05,
    },
    "loo-fold": {"protocol": "leave_one_out", "history__leave_out": "fold"},
}
ENTITIES = ("user", "business")


@dataclass(frozen=True)
class Fault:
    table: str
    world: str
    expectation: str  # its label
    sql: str
    named: str


def read_faults() -> list[Fault]:
    lines = Path(__file__).with_name("faults.txt").read_text(encoding="utf-8").splitlines()
    found = []
    for line in (line for line in lines if line and not line.startswith("#")):
        for entity in ENTITIES if "{entity}" in line else ("",):
            table, world, expectation, sql, named = line.replace("{entity}", entity).split(" | ", 4)
            found.append(Fault(table, world, f"expect_{expectation}", sql, named))
    return found
