"""What a language model may be shown: specified by small tables. The obvious twin is compared in test_visibility.py."""

from itertools import pairwise

import pytest

from pipelines.core.snapshots import snapshot_id, snapshots_of
from pipelines.core.visibility import Entity
from tests.histories import history_params, shuffled, world_of

# review user business hour split fold text?, then the snapshot of its business that it reads, in the order of reading.
BY_TIME = {
    "the first instant is a snapshot, the next when the history has doubled": """
        r1 ann cafe 0 train 0 y | -
        r2 bob cafe 1 train 0 y | r1
        r3 cat cafe 2 train 0 y | r1 r2
        r4 dan cafe 3 train 0 y | r1 r2
        r5 eve cafe 4 test  0 y | r1 r2 r3 r4
        r6 fay cafe 5 test  0 y | r1 r2 r3 r4
    """,
    "a tie is whole: what stands at one instant is cut together and unseen by each other": """
        r1 ann cafe 0 train 0 y | -
        r2 bob cafe 1 train 0 y | r1
        r3 cat cafe 1 train 0 y | r1
        r4 dan cafe 2 train 0 y | r1 r2 r3
    """,
    "a tie larger than the factor is still one snapshot": """
        r1 ann cafe 0 train 0 y | -
        r2 bob cafe 0 train 0 y | -
        r3 cat cafe 0 train 0 y | -
        r4 dan cafe 1 train 0 y | r1 r2 r3
    """,
    "within an instant reviews are read in the order of their ids, whatever the file's": """
        r9 ann cafe 0 train 0 y | -
        r2 bob cafe 0 train 0 y | -
        r3 cat cafe 1 train 0 y | r2 r9
    """,
    "a review without words is in no snapshot, and reads one": """
        r1 ann cafe 0 train 0 n | -
        r2 bob cafe 1 train 0 y | -
        r3 cat cafe 2 train 0 n | r2
        r4 dan cafe 3 train 0 y | r2
        r5 eve cafe 4 train 0 y | r2 r4
    """,
    "two reviews of one pair: the later reads the earlier": """
        r1 ann cafe 0 train 0 y | -
        r2 ann cafe 1 train 0 y | r1
    """,
}
LEFT_OUT = {
    "a training review reads its business without its own fold": """
        r1 ann cafe 0 train 0 y | r2 r3
        r2 bob cafe 1 train 1 y | r1 r3
        r3 cat cafe 2 train 2 y | r1 r2
    """,
    "its whole fold is left out, not the pair alone": """
        r1 ann cafe 0 train 0 y | r3
        r2 bob cafe 1 train 0 y | r3
        r3 cat cafe 2 train 1 y | r1 r2
    """,
    "validation and test read all of train, their own fold too, and nothing else": """
        r1 ann cafe 0 train      0 y | r2
        r2 bob cafe 1 train      1 y | r1
        r3 cat cafe 2 validation 0 y | r1 r2
        r4 dan cafe 3 test       1 y | r1 r2
    """,
    "where only the own fold says anything there is nothing to read": """
        r1 ann cafe 0 train 0 y | -
        r2 bob cafe 1 train 0 y | -
        r3 cat cafe 2 train 1 n | r1 r2
        r4 dan cafe 3 test  0 y | r1 r2
    """,
    "a review without words in a fold that says nothing else reads the whole": """
        r1 ann cafe 0 train 0 y | r2
        r2 bob cafe 1 train 1 y | r1
        r3 cat cafe 2 train 2 n | r1 r2
    """,
}
CASES = [("point_in_time", title) for title in BY_TIME] + [("leave_one_out", title) for title in LEFT_OUT]


def parse(table: str):
    rows, reads = [], {}
    for line in table.strip().splitlines():
        review, seen = (part.split() for part in line.split("|"))
        name, user, business, hour, split, fold, told = review
        rows.append((name, user, business, 4.0, int(hour), split, int(fold), told == "y"))
        reads[name] = [i for i in seen if i != "-"]
    return world_of(rows), reads


def read_by(world, protocol: str, entity: Entity, growth: float = 2.0) -> dict[str, list[str]]:
    """Review -> the ids in the snapshot it reads, by the rule that Feast applies to the rows."""
    made = snapshots_of(world.members, entity, protocol, growth, history_params())
    found = {}
    for r in world.members.to_dict("records"):
        at = int(r["event_timestamp"].timestamp() * 1_000_000)
        if protocol == "leave_one_out":
            number = made.readers.get(r["review_id"])
            snapshot = None if number is None else made.made[number]
        else:
            seen = [s for s in made.made if s.entity_id == r[f"{entity}_id"] and s.instant < at]
            snapshot = max(seen, key=lambda s: s.instant, default=None)
        found[r["review_id"]] = [] if snapshot is None else list(snapshot.review_ids)
    return found


@pytest.mark.parametrize(("protocol", "title"), CASES)
def test_specification(protocol, title):
    world, reads = parse((BY_TIME if protocol == "point_in_time" else LEFT_OUT)[title])
    assert read_by(world, protocol, "business") == reads
    assert read_by(shuffled(world, seed=3), protocol, "business") == reads


@pytest.mark.parametrize("growth", [1.2, 2.0, 3.0])
def test_an_entity_costs_about_log_n_snapshots_and_holds_what_its_texts_say(growth):
    world = world_of([(f"r{i:03}", f"u{i}", "cafe", 4.0, i, "train", 0, True) for i in range(200)])
    made = snapshots_of(world.members, "business", "point_in_time", growth, history_params()).made
    sizes = [len(s.review_ids) for s in made]
    assert sizes[0] == 1
    assert all(later >= growth * earlier for earlier, later in pairwise(sizes))
    assert sizes[-1] * growth > 200  # the present is not further behind than the factor
    assert all(s.texts == tuple(f"words of {i}" for i in s.review_ids) for s in made)


def test_a_changed_review_renames_the_snapshots_that_hold_it_and_no_others():
    world = world_of([(f"r{i}", f"u{i % 3}", "cafe", 4.0, i, "train", i % 3, True) for i in range(9)])
    other = world.members.assign(text=world.members["text"].where(world.members["review_id"] != "r3", "something else"))
    for protocol in ("point_in_time", "leave_one_out"):
        for entity in ("user", "business"):
            before, after = (
                {s.snapshot_id: s for s in snapshots_of(some, entity, protocol, 2.0, history_params()).made}
                for some in (world.members, other)
            )
            gone = [before[i] for i in set(before) - set(after)]
            assert gone
            assert all("r3" in s.review_ids for s in gone)
            assert all("r3" not in before[i].review_ids for i in set(before) & set(after))


def test_a_name_says_whose_history_which_reviews_and_every_word():
    of = ("user", "ann", ["r1", "r2"], ["good", "bad"])
    others = [
        ("business", "ann", ["r1", "r2"], ["good", "bad"]),
        ("user", "bob", ["r1", "r2"], ["good", "bad"]),
        ("user", "ann", ["r2", "r1"], ["good", "bad"]),
        ("user", "ann", ["r1", "r2"], ["good", "bad "]),
        ("user", "ann", ["r1"], ["good"]),
    ]
    assert len({snapshot_id(*of), *(snapshot_id(*other) for other in others)}) == 6
