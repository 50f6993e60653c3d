"""params.yaml: what is wrong in it is refused by name, in one line."""

import pytest

from pipelines.core.errors import UserError
from pipelines.core.params import load_params
from tests.params import ROOT, params_with, write_params


def test_the_repositorys_own_params_hold():
    params = load_params(ROOT / "params.yaml")
    assert (params.protocol, params.dropout, params.ingest.source) == ("point_in_time", 0.1, "synthetic")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"protocol": "future"}, "`protocol` is 'future': Input should be 'point_in_time' or 'leave_one_out'"),
        ({"dropout": 1.0}, "`dropout` is 1.0: Input should be less than 1"),
        ({"dropout": "1e-1"}, "`dropout` is '1e-1': Input should be a valid number"),
        ({"drop_out": 0.1}, "unknown key `drop_out`; remove it or mend its spelling"),
        ({"split__tset_share": 0.1}, "unknown key `split.tset_share`; remove it or mend its spelling"),
        ({"split__test_share": 0}, "`split.test_share` is 0: Input should be greater than 0"),
        ({"ingest__columns": {"stars": "s"}}, "unknown key `ingest.columns.stars`; remove it or mend its spelling"),
        ({"validate__positive_share": [0.9, 0.3]}, "Value error, positive_share goes from low to high"),
        ({"validate__latest": "1999-01-01T00:00:00Z"}, "Value error, earliest is not before latest"),
        ({"train__learning_rate": float("inf")}, "`train.learning_rate` is inf: Input should be a finite number"),
        ({"embed_reviews__encoder": ""}, "`embed_reviews.encoder` is '': String should have at least 1 character"),
        ({"seed": -1}, "`seed` is -1: Input should be greater than or equal to 0"),
        ({"history__as_of": "2020-01-01"}, "`history.as_of` is '2020-01-01': Input should have timezone info"),
    ],
)
def test_wrong_values_are_refused_by_name(tmp_path, changes, line):
    with pytest.raises(UserError) as refused:
        params_with(tmp_path, **changes)
    said = str(refused.value)
    assert line in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "line"),
    [("seed: [", "not YAML"), ("- a", "expected `key: value` lines, found list"), ("seed: 1", "is missing")],
)
def test_files_that_are_no_params(tmp_path, text, line):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=line):
        load_params(path)
    with pytest.raises(UserError, match="no such file"):
        load_params(tmp_path / "other.yaml")


def test_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.delenv("MMREC_CACHE", raising=False)
    cache = load_params(ROOT / "params.yaml").cache
    assert str(cache.folder()) == "/xdg/mmrec"
    monkeypatch.setenv("MMREC_CACHE", "/elsewhere")
    assert str(cache.folder()) == "/elsewhere"
    told = load_params(write_params(tmp_path / "p.yaml", cache__dir="/told"))
    assert str(told.cache.folder()) == "/told"
