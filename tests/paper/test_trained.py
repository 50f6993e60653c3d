"""Stacks of networks that are kept: the same as if trained just now, and by all that decides them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.trainer import Member
from models.variants import VARIANTS
from pipelines.core.errors import UserError
from pipelines.core.params import Params, load_params
from pipelines.core.training_rows import TrainingRows, read_splits
from pipelines.learning import recommender
from pipelines.paper.ablation import GROUPS
from pipelines.paper.trained import key, train_groups
from tests.models.training_sets import write_splits

MEMBERS = [Member(3, 0.2, "none"), Member(4, 0.2, "none")]
PROPOSED = VARIANTS["proposed"]
TAGS, CAPTIONS = (GROUPS[name].variant for name in ("numbers+tags", "numbers+captions"))
ROOT = Path(__file__).parents[2]


def changed(params: Params, **sections: dict[str, Any]) -> Params:
    update = {name: getattr(params, name).model_copy(update=changes) for name, changes in sections.items()}
    return params.model_copy(update=update)


@pytest.fixture
def params(tmp_path: Path) -> Params:
    short = {"epochs": 3, "batch_size": 128}
    return changed(load_params(ROOT / "params.yaml"), train=short, reduce=short, cache={"dir": str(tmp_path / "cache")})


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainingRows]:
    return read_splits(write_splits(tmp_path_factory.mktemp("set"), 2, "proposed"), None)


def said(made: dict[str, Any], splits: dict[str, TrainingRows]) -> dict[str, bytes]:
    return {name: stack.member_probabilities(splits["test"].columns).tobytes() for name, stack in made.items()}


@pytest.mark.parametrize("mode", ["joint", "split"])
def test_kept_says_what_was_learned(params: Params, splits: dict[str, TrainingRows], mode: str) -> None:
    params = changed(params, reduce={"mode": mode})
    groups = {"tags": TAGS, "captions": CAPTIONS}
    fresh = train_groups(splits, groups, params, MEMBERS, "it")
    kept = train_groups(splits, groups, params, MEMBERS, "it")
    learned = {name: recommender(splits, group, params, MEMBERS, None) for name, group in groups.items()}
    assert said(fresh, splits) == said(kept, splits) == said(learned, splits)


def test_goes_on_where_it_was(
    params: Params, splits: dict[str, TrainingRows], capsys: pytest.CaptureFixture[str]
) -> None:
    train_groups(splits, {"tags": TAGS}, params, MEMBERS, "it")
    (first,) = (params.cache.folder() / "compare").iterdir()
    before = first.stat().st_mtime_ns
    train_groups(splits, {"tags": TAGS, "captions": CAPTIONS}, params, MEMBERS, "it")
    assert "compare: 1 of 2 stacks of networks are done already" in capsys.readouterr().out
    assert first.stat().st_mtime_ns == before and len(list(first.parent.iterdir())) == 2


def test_what_is_done_is_kept_when_the_next_fails(params: Params, splits: dict[str, TrainingRows]) -> None:
    nowhere = replace(CAPTIONS, vectors={"caption": (("nowhere",),)})
    with pytest.raises(KeyError, match="nowhere"):
        train_groups(splits, {"tags": TAGS, "captions": nowhere}, params, MEMBERS, "it")
    assert len(list((params.cache.folder() / "compare").iterdir())) == 1


def test_which_group_cannot_be_trained_is_said(params: Params, splits: dict[str, TrainingRows]) -> None:
    with pytest.raises(UserError, match=r"^compare, tags: .*learning_rate"):
        train_groups(splits, {"tags": TAGS}, changed(params, train={"learning_rate": 1e30}), MEMBERS, "it")


def test_a_broken_file_is_made_anew(params: Params, splits: dict[str, TrainingRows]) -> None:
    made = train_groups(splits, {"tags": TAGS}, params, MEMBERS, "it")
    (path,) = (params.cache.folder() / "compare").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert said(train_groups(splits, {"tags": TAGS}, params, MEMBERS, "it"), splits) == said(made, splits)
    assert path.read_bytes() == whole


def test_the_key_is_of_what_decides(params: Params) -> None:
    first = key(CAPTIONS, params, MEMBERS, "it")
    one, other = PROPOSED.vectors.items()
    reordered = replace(PROPOSED, vectors=dict([other, one]))
    others = [
        key(TAGS, params, MEMBERS, "it"),
        key(CAPTIONS, params, MEMBERS[::-1], "it"),
        key(CAPTIONS, params, [Member(3, 0.3, "none"), MEMBERS[1]], "it"),
        key(CAPTIONS, params, [Member(3, 0.2, "sqrt"), MEMBERS[1]], "it"),
        key(CAPTIONS, params, MEMBERS, "another"),
        key(PROPOSED, params, MEMBERS, "it"),
        key(reordered, params, MEMBERS, "it"),
        key(CAPTIONS, params.model_copy(update={"protocol": "leave_one_out"}), MEMBERS, "it"),
        key(CAPTIONS, params.model_copy(update={"selection": "paper"}), MEMBERS, "it"),
        *(
            key(CAPTIONS, changed(params, **{section: change}), MEMBERS, "it")
            for section, change in (
                ("train", {"top": [16]}),
                ("train", {"patience": 2}),
                ("reduce", {"dropout": 0.1}),
                ("history", {"numbers": "paper"}),
            )
        ),
    ]
    assert len({first, *others}) == len(others) + 1
    assert key(CAPTIONS, changed(params, compare={"replicates": 999}, paper={"epochs": 1}), MEMBERS, "it") == first
    assert key(CAPTIONS, params.model_copy(update={"seed": 99, "dropout": 0.9}), MEMBERS, "it") == first  # of members
