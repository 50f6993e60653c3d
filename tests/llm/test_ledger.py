"""The ledger: real SQLite files, several processes, full disks."""

import multiprocessing
import sqlite3
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import UserError
from pipelines.core.ledger import Batch, Entry, Ledger, Usable

ENTRY = Entry("k1", "ok", "openai", "m", "p/1", {"body": {"model": "m"}}, {"a": [1]}, "text", 10, 5, 0.25)


def test_an_entry_comes_back_whole(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "a" / "ledger.sqlite")
    kept = ledger.put(ENTRY)
    assert kept.time.endswith("+00:00") and replace(kept, time="") == ENTRY
    assert Ledger(ledger.path).entry("k1") == kept
    assert ledger.get(["k1", "k2"]) == {"k1": Usable("k1", "text", "m")}
    assert ledger.entry("k2") is None


def test_the_first_usable_answer_stays(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.put(replace(ENTRY, status="truncated", text="te"))
    assert ledger.get(["k1"]) == {}
    assert ledger.entry("k1").status == "truncated"
    ledger.put(ENTRY)
    assert ledger.put(replace(ENTRY, text="later")).text == "text"
    ledger.put(replace(ENTRY, status="refused", text="no"))
    assert ledger.get(["k1"])["k1"].text == "text" == ledger.entry("k1").text
    with sqlite3.connect(ledger.path) as connection:
        assert [row[0] for row in connection.execute("SELECT status FROM answers ORDER BY rowid")] == [
            "truncated",
            "ok",
            "refused",
        ]


def statuses(ledger: Ledger) -> list[tuple[str, str]]:
    with sqlite3.connect(ledger.path) as connection:
        return connection.execute("SELECT status, text FROM answers ORDER BY rowid").fetchall()


def test_a_refused_answer_becomes_a_record_when_a_usable_one_comes(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.put(ENTRY)
    refused = {"k1": (Usable("k1", "text", "m"), "no JSON")}
    ledger.put_all([replace(ENTRY, status="truncated", text="te")], refused)
    assert ledger.get(["k1"])["k1"].text == "text"
    assert ledger.put_all([replace(ENTRY, text="new")], refused)[0].text == "new"
    assert statuses(ledger) == [("no JSON", "text"), ("truncated", "te"), ("ok", "new")]
    # by now it is another answer that stands, which nobody has refused
    assert ledger.put_all([replace(ENTRY, text="newer")], refused)[0].text == "new"


def test_many_entries_are_kept_together_or_not_at_all(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    entries = [replace(ENTRY, key=f"k{number}", text=str(number)) for number in range(100)]
    assert [kept.text for kept in ledger.put_all([*entries, replace(ENTRY, key="k7", text="late")])][98:] == [
        "98",
        "99",
        "7",
    ]
    with pytest.raises(ValueError, match="JSON"):
        ledger.put_all([replace(ENTRY, key="new"), replace(ENTRY, key="bad", response=float("nan"))])
    assert ledger.entry("new") is None and ledger.put_all([]) == []


def test_many_keys_at_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for number in range(600):
        ledger.put(replace(ENTRY, key=f"k{number}"))
    assert len(ledger.get([f"k{number}" for number in range(3000)])) == 600


def test_tokens_a_byte(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")

    def size(request: Mapping[str, Any]) -> int:
        return 40 if request["body"]["model"] == "m" else 0

    assert ledger.tokens_a_byte("openai", size) is None
    ledger.put(ENTRY)
    ledger.put(replace(ENTRY, key="k2", request={"body": {"model": "other"}}, input_tokens=9000))
    ledger.put(replace(ENTRY, key="k3", input_tokens=None))
    assert ledger.tokens_a_byte("openai", size) == 10 / 40
    assert ledger.tokens_a_byte("extractive", size) is None


def test_batches(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    batch = Batch("f1", None, "http://a", ("k1", "k2"))
    ledger.remember_batch(batch)
    ledger.remember_batch(replace(batch, batch="b1", keys=("k2",)))
    assert ledger.batches("http://a") == [Batch("f1", "b1", "http://a", ("k2",))] and ledger.batches("http://b") == []
    ledger.forget_batch(batch)
    assert ledger.batches("http://a") == []


def _write(path: Path, worker: int) -> None:
    ledger = Ledger(path)
    for number in range(100):
        ledger.put(replace(ENTRY, key=f"k{number}", text=f"by {worker}"))


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write, args=(path, worker)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert len(Ledger(path).get([f"k{number}" for number in range(100)])) == 100
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*) FROM answers").fetchone() == (100,)


def test_a_full_file_is_one_line_and_keeps_what_is_in_it(tmp_path: Path) -> None:
    """SQLite's own limit on pages stands in for a full disk; test_faults has a real one where it may."""
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.put(ENTRY)
    ledger._connection.execute("PRAGMA max_page_count = 8")
    with pytest.raises(UserError, match=r"make room there or set `cache.dir` or MMREC_CACHE") as raised:
        for number in range(100):
            ledger.put(replace(ENTRY, key=f"big {number}", text="x" * 5000))
    assert str(tmp_path) in str(raised.value) and "full" in str(raised.value)
    assert Ledger(ledger.path).get(["k1"])["k1"].text == "text"


def test_no_folder_and_no_database_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a database, but long enough to be looked at" * 50)
    with pytest.raises(UserError, match="cannot be made"):
        Ledger(tmp_path / "file" / "ledger.sqlite")
    with pytest.raises(UserError, match="file is not a database"):
        Ledger(tmp_path / "file")
    assert stat.S_ISREG((tmp_path / "file").stat().st_mode)
