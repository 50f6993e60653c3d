"""The label backwards: what an average that leaves a review out still says of it, to whoever knows whose average it is.

An entity's mean *without* r is lower when r is high. To whom the entity is a stranger that says nothing; who recognises
it (by its count, by its text) knows its mean *with* r, and the difference is the label. It is in train rows alone, as a
test row's own rating is in no average: what is learned so is worth nothing later.

Three sets of rows tell it from other things. `train` rows may just be learned by heart; `held` rows are train rows
whose labels no learner is told, though their ratings are in the averages: who predicts them better than `test` rows has
read them backwards. And three sets of labels:

- `true`;
- `permuted`: ratings dealt anew among all reviews *before* the features are made. Nothing honest can be learned, so
  test AUC must be 0.5 under every rule, and held AUC too where nothing leaks: what it has above that is the label
  backwards. Train AUC shows that and what is known by heart, together;
- `permuted after`: labels dealt anew *after* the features are made, among train and held rows and among test rows. No
  feature knows them, so held and test AUC must be 0.5, and what train AUC has above that is known by heart. (Against
  true test labels noise is not at 0.5: it ranks rows by how many are like them, which does say something of labels.)

No row that is judged chooses an epoch: of the network's epochs the one of least log loss on its own train rows is kept,
which is the last or near it; trees learn to the end.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from models.columns import Floats
from models.floors import raw_numbers
from models.trainer import Member
from models.variants import VARIANTS, Variant
from models.vectors import has_vector
from pipelines.core.params import Leak, Params
from pipelines.core.training_rows import TrainingRows
from pipelines.learning import learn
from pipelines.paper.experiment import LABELS, LEARNERS, READS, SPLITS, Experiment, Judged, Labelled, Learner, Reads
from pipelines.paper.left_out import KINDS, LIKED, NUMBERS, Histories, Kind

LEAST = 10  # reviews of either label: of fewer, dealt anew, none might be a train row's
Splits = Mapping[str, TrainingRows]

TEXTS = VARIANTS["baseline"].texts
VARIANT_OF: Mapping[Reads, Variant] = {
    "numbers": Variant(texts={}, price_tag=None, lists={}, vectors={}),
    # Without images: a mean text nearly names its entity already, and it is made anew under each rule.
    "numbers and entity text": Variant(
        texts=TEXTS, price_tag=None, lists={}, vectors={"text": (tuple(TEXTS.values()),)}
    ),
}
EPOCHS = 60  # with texts the network knows its train rows by heart by then
COMPONENTS = 8  # of an entity's mean text, for trees: enough to tell 150 businesses apart


def count_of(kinds: Sequence[Kind], leak: Leak) -> int:
    """How often `experiments` learns, and so calls `done`."""
    dealt = (len(LABELS) - 1) * (leak.networks + leak.permutations)
    return len(kinds) * len(READS) * (len(LEARNERS) + dealt)


def experiments(histories: Histories, params: Params, done: Callable[[], object]) -> Iterator[Experiment]:
    """Every learner on every rule, set of labels and of columns. `done` is called whenever one has learned."""
    for features in histories.kinds:
        true = histories.rows(features)
        texts, pairs = text_components(true), {split: pairs_of(rows) for split, rows in true.items()}
        for labels in LABELS:
            judged: dict[tuple[Reads, Learner], list[Judged]] = {}
            for seeds, splits in worlds(histories, true, features, labels, params.leak):
                networks = [seed for seed in seeds if seed < params.leak.seed + params.leak.networks]
                for reads in READS:
                    if networks:
                        answers = answers_of_dlrm(splits, reads, params, networks)
                        judged.setdefault((reads, "DLRM"), []).extend(answers)
                        done()
                    # Trees that see all rows and columns are the same from every seed.
                    tree = answers_of_trees(splits, texts if reads == "numbers and entity text" else {}, seeds[0])
                    judged.setdefault((reads, "gradient_boosting"), []).append(tree)
                    done()
            for reads in READS:
                for learner in LEARNERS:
                    yield Experiment(learner, features, labels, reads, judged[reads, learner], pairs)


def pairs_of(rows: TrainingRows) -> NDArray[np.int64]:
    """(N,) which pair of user and business each row is of, from 0 on."""
    frame = rows.table.select(["user_id", "business_id"]).to_pandas()
    return frame.groupby(["user_id", "business_id"]).ngroup().to_numpy(np.int64)


def worlds(
    histories: Histories, true: Splits, features: Kind, labels: Labelled, leak: Leak
) -> Iterator[tuple[Sequence[int], Splits]]:
    """What there is to learn from, and the seeds that learn it: of true labels all, else a permutation each."""
    seeds = range(leak.seed, leak.seed + leak.permutations)
    if labels == "true":
        yield seeds, true
    for seed in seeds if labels != "true" else ():
        yield [seed], dealt_before(histories, true, features, seed) if labels == "permuted" else dealt_after(true, seed)


def dealt_before(histories: Histories, true: Splits, features: Kind, seed: int) -> Splits:
    """Ratings dealt anew, and the numbers made of them; the texts are as they were."""
    dealt = histories.dealt(seed).rows(features, NUMBERS)
    return {name: replace(rows, columns={**true[name].columns, **rows.columns}) for name, rows in dealt.items()}


def dealt_after(splits: Splits, seed: int) -> Splits:
    """The labels of train and held rows dealt anew among them, those of test rows among themselves."""
    random = np.random.default_rng(seed)
    train = random.permutation(np.concatenate([splits["train"].labels, splits["held"].labels]))
    new = dict(zip(("train", "held"), np.split(train, [len(splits["train"].labels)]), strict=True))
    new["test"] = random.permutation(splits["test"].labels)
    return {name: replace(rows, columns={**rows.columns, "label": new[name]}) for name, rows in splits.items()}


def paper_like(params: Params) -> Params:
    """The sweep's network and pace, its reducers trained with it: a reducer fitted on train rows first is a leak of its
    own. With train rows in validation's place, the epoch that is kept is the one that knows them best."""
    pace = params.paper.model_dump(include={"learning_rate", "weight_decay", "batch_size"})
    rest = {"epochs": EPOCHS, "patience": EPOCHS, "wide": params.sweep.wide}
    return params.model_copy(
        update={
            "protocol": "leave_one_out",
            "selection": "validation",
            "train": params.train.model_copy(update=pace | rest),
            "reduce": params.reduce.model_copy(update={"mode": "joint", "dropout": 0.1}),
            "history": params.history.model_copy(update={"numbers": params.sweep.numbers}),
        }
    )


def answers_of_dlrm(splits: Splits, reads: Reads, params: Params, seeds: Sequence[int]) -> list[Judged]:
    """The network of the paper's best row of Table 1: basic weights, dropout 0.1; one a seed."""
    members = [Member(seed, 0.1, "basic") for seed in seeds]
    known = {**splits, "validation": splits["train"]}
    answered = learn(known, VARIANT_OF[reads], paper_like(params), members, label=None)
    labels = {name: rows.labels for name, rows in splits.items()}
    return [Judged(labels, {name: answered[name][i] for name in splits}) for i in range(len(seeds))]


def answers_of_trees(splits: Splits, texts: Mapping[str, Floats], seed: int) -> Judged:
    """Small boosted trees, which tell an entity by its count. They read `raw_numbers`, and `texts` by split, if any."""
    read = {name: raw_numbers(rows.columns) for name, rows in splits.items()}
    read = {name: np.concatenate([rows, texts[name]], axis=1) if texts else rows for name, rows in read.items()}
    train, labels = read["train"], {name: rows.labels for name, rows in splits.items()}
    # scikit-learn cannot bin a constant
    varies = np.nanmax(train, axis=0, initial=-np.inf) > np.nanmin(train, axis=0, initial=np.inf)
    if not varies.any():
        share = float(labels["train"].mean())
        return Judged(labels, {name: np.full(len(rows), share) for name, rows in read.items()})
    trees = HistGradientBoostingClassifier(max_leaf_nodes=8, early_stopping=False, random_state=seed)
    with threadpool_limits(1, "openmp"):  # threads wait for each other longer than these few rows take
        trees.fit(train[:, varies], labels["train"])
        return Judged(labels, {name: trees.predict_proba(rows[:, varies])[:, 1] for name, rows in read.items()})


def text_components(splits: Splits) -> dict[str, Floats]:
    """Split -> (N, K): principal components of train's mean texts; a text that is null stands at their mean."""
    made: dict[str, list[Floats]] = {name: [np.zeros((len(rows.labels), 0))] for name, rows in splits.items()}
    for name in TEXTS.values():
        train = splits["train"].columns[name]
        known = train[has_vector(train)]
        if len(known) > 1:
            components = PCA(min(COMPONENTS, *known.shape), random_state=0).fit(known)
            for split, rows in splits.items():
                text = rows.columns[name]
                there = np.where(has_vector(text)[:, None], text, components.mean_.astype(np.float32))
                made[split].append(components.transform(there).astype(np.float64))
    return {split: np.concatenate(parts, axis=1) for split, parts in made.items()}


def too_few(histories: Histories) -> str | None:
    """Why nobody could learn or be judged here; None where they can."""
    empty = [name for name, rows in histories.parts().items() if not len(rows)]
    if empty:
        return f"among {len(histories.members)} reviews there are no {' and no '.join(empty)} rows"
    disliked = int((histories.members["rating"].to_numpy() < LIKED).sum())
    liked = len(histories.members) - disliked
    if min(disliked, liked) < LEAST:
        return f"disliked reviews: {disliked}, liked ones: {liked}; of either there must be {LEAST}"
    return None


def missing_lines(present: Sequence[Kind], why: str) -> list[dict[str, Any]]:
    """Lines of null for the rules that are not `present`, and why they are not."""
    figures = [f"{split}_{kind}" for split in SPLITS for kind in ("auc", "std")]
    return [
        {"model": learner, "features": features, "labels": labels, "reads": reads, "seeds": 0}
        | dict.fromkeys(figures)
        | {"counts": dict.fromkeys(SPLITS), "why": why}
        for features in KINDS
        if features not in present
        for labels in LABELS
        for reads in READS
        for learner in LEARNERS
    ]
