"""The README's five-minute walk, run word by word in a fresh copy; and the refusals that its table shows."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tests.params import ROOT, write_params
from tests.workspace import copy_repository, run_in

README = (ROOT / "README.md").read_text(encoding="utf-8")


def walk_commands() -> list[str]:
    walk = re.search(r"<!-- walk.*?-->(.*?)<!-- /walk -->", README, re.DOTALL)
    assert walk
    return [
        re.sub(r"^ +", "", block, flags=re.MULTILINE) for block in re.findall(r"```bash\n(.*?)```", walk[1], re.DOTALL)
    ]


def my_reviews(rows: int = 1500) -> pd.DataFrame:
    """Reviews with columns of one's own: users differ in strictness, places in quality; a few rows are unusable."""
    random = np.random.default_rng(0)
    who, where = random.integers(0, 200, rows), random.integers(0, 40, rows)
    liking = random.normal(0, 1, 200)[who] + random.normal(0, 1, 40)[where] + random.normal(0, 0.7, rows)
    stars = np.clip(np.round(3.8 + liking), 1, 5).astype(int)
    words = np.array(["awful, never again", "cold food", "it was fine", "good place", "wonderful, my favourite"])
    day = pd.Timestamp("2019-01-01") + pd.to_timedelta(random.integers(0, 900, rows), unit="D")
    frame = pd.DataFrame({"who": who, "where": where, "stars": stars, "words": words[stars - 1], "day": day})
    frame["words"] += ", dish " + random.integers(0, 60, rows).astype(str)
    frame["day"] = frame["day"].dt.strftime("%Y-%m-%d")
    frame["stars"] = frame["stars"].astype(str)
    frame.loc[:4, "stars"] = "six"
    return frame


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_walk_from_a_csv_to_a_ranking(tmp_path):
    work = copy_repository(tmp_path / "copy")
    my_reviews().to_csv(work / "my_reviews.csv", index=False)
    commands = walk_commands()
    assert len(commands) == 4
    said = [run_in(work, command).stdout for command in commands]
    report = json.loads((work / "results" / "ingest.json").read_text())
    assert (report["records"], report["reviews"], report["rejects"]) == (1500, 1495, 5)
    assert report["rejects_by_reason"] == {"rating is not a number": 5}
    assert json.loads((work / "results" / "leaks.json").read_text())["leaks"] == 0
    metrics = json.loads((work / "results" / "metrics.json").read_text())
    assert metrics["test"]["auc"] > 0.7  # its world is half noise; a model that learnt nothing says 0.5
    assert "six" in said[1]
    assert "0.5" in said[2]
    ranking, tests = said[3].split("review_id", 1)
    assert ranking.startswith("user 7 (known), at ") and len(ranking.strip().splitlines()) == 12
    assert len(tests.strip().splitlines()) == 11
    learned = {"train", "evaluate"}
    online = {"materialize", "parity"}
    assert stages_run(run_in(work, "dvc exp run -S dropout=0.3").stdout) == learned | online
    # Back again, DVC has the model in its cache. It has not what is online: that is written, and proven, anew.
    said = run_in(work, "dvc exp run -S dropout=0.1").stdout
    assert stages_run(said) == online
    assert set(re.findall(r"Stage '(\w+)' is cached", said)) == learned


def stages_run(said: str) -> set[str]:
    return set(re.findall(r"Running stage '(\w+)'", said))


def refusals() -> list[tuple[str, str]]:
    """(what is wrong, the line) of the README's table."""
    table = re.search(r"\| What is wrong \| What you read \|\n\|---\|---\|\n((?:\|.*\n)+)", README)
    assert table
    rows = (row.strip("|\n").split(" | ", 1) for row in table[1].splitlines())
    return [(wrong.strip(), line.strip().removeprefix("`` ").removesuffix(" ``")) for wrong, line in rows]


CSV = "who,where,stars,words,day\n1,2,5,good,2019-01-01\n"
COLUMNS = {"user_id": "who", "business_id": "where", "rating": "stars", "text": "words", "timestamp": "day"}
# What is wrong -> the file's bytes (None: no file), and the params.
WRONG = {
    "the file is not there": (None, {}),
    "the file is empty": (b"", {}),
    "a column is named that the file lacks": (CSV.encode(), {"ingest__columns": {**COLUMNS, "rating": "rate"}}),
    "a quote is never closed": (CSV.encode() + b'1,2,5,"cut off', {}),
    "a parameter is misspelt": (CSV.encode(), {"ingest__colums": {}}),
    "a value is impossible": (CSV.encode(), {"dropout": 1.5}),
    "no record is a review": (CSV.replace("5", "six").encode(), {}),
}


def test_the_readmes_table_of_refusals_is_this_one():
    assert [wrong for wrong, _ in refusals()] == list(WRONG)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_refusal_reads_as_the_readme_says(tmp_path, wrong):
    content, changes = WRONG[wrong]
    if content is not None:
        (tmp_path / "my_reviews.csv").write_bytes(content)
    settings = {"ingest__source": "table", "ingest__columns": COLUMNS, **changes}
    write_params(tmp_path / "params.yaml", **settings)
    (tmp_path / "photos").mkdir()
    flags = ["--source", "my_reviews.csv", "--photos", "photos", "--tables", "tables", "--report", "ingest.json"]
    ended = subprocess.run(
        [sys.executable, "-m", "pipelines.ingest", *flags],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr == f"{dict(refusals())[wrong]}\n"
    assert not (tmp_path / "tables").exists()
    assert not (tmp_path / "ingest.json").exists()
