"""faults.txt, read: one fault per expectation, and what the failure must say."""

from dataclasses import dataclass
from pathlib import Path

PROTOCOLS = {"time": "point_in_time", "loo": "leave_one_out"}
ENTITIES = ("user", "business")


@dataclass(frozen=True)
class Fault:
    table: str
    protocol: str
    expectation: str  # its label
    sql: str
    named: str


def read_faults() -> list[Fault]:
    lines = Path(__file__).with_name("faults.txt").read_text(encoding="utf-8").splitlines()
    found = []
    for line in (line for line in lines if line and not line.startswith("#")):
        for entity in ENTITIES if "{entity}" in line else ("",):
            table, protocol, expectation, sql, named = line.replace("{entity}", entity).split(" | ", 4)
            found.append(Fault(table, PROTOCOLS[protocol], f"expect_{expectation}", sql, named))
    return found
