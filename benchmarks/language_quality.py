"""How good summaries and tags are: ROUGE, rank correlation, precision and recall, seeded intervals. Pure functions."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

KINDS = ("rouge1", "rouge2", "rougeL")
DRAWS = 2000
SEED = 7


def rouge(summaries: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
    """F x 100 of ROUGE-1, -2 and -L (N, 3): the mean over a summary's references, words stemmed (rouge-score)."""
    from rouge_score import rouge_scorer  # of the benchmark alone

    scorer = rouge_scorer.RougeScorer(KINDS, use_stemmer=True)
    rows = []
    for summary, people in zip(summaries, references, strict=True):
        scores = [scorer.score(reference, summary) for reference in people]
        rows.append([100 * np.mean([score[kind].fmeasure for score in scores]) for kind in KINDS])
    return np.array(rows, np.float64).reshape(-1, len(KINDS))


def rank_correlation(first: Floats, second: Floats) -> float:
    """Spearman's: Pearson's of the ranks, ties sharing their mean rank; nan where one of them does not vary."""
    a, b = _ranks(first), _ranks(second)
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / scale) if scale > 0 else float("nan")


def permutation_p(first: Floats, second: Floats) -> float:
    """Two-sided: how often shuffled ranks correlate as much as these; never 0, as the data is one of the shuffles."""
    rng = np.random.default_rng(SEED)
    found = abs(rank_correlation(first, second))
    shuffled = [abs(rank_correlation(rng.permutation(first), second)) for _ in range(DRAWS)]
    return (1 + sum(value >= found - 1e-12 for value in shuffled)) / (1 + DRAWS)


def precision_recall(named: Sequence[Sequence[str]], truth: Sequence[Sequence[str]], most: int) -> Floats:
    """(N, 2) of the first `most` types named against the true ones, never none. Nothing named: both are 0."""
    rows = []
    for types, true in zip(named, truth, strict=True):
        first = list(types[:most])
        right = len(set(first) & set(true))
        rows.append([right / len(first) if first else 0.0, right / len(set(true))])
    return np.array(rows, np.float64).reshape(-1, 2)


def majority_guess(truth: Sequence[Sequence[str]], most: int) -> list[str]:
    """The most frequent true types: what one may guess of a place without having read a word about it."""
    counts = Counter(kind for types in truth for kind in types)
    return sorted(counts, key=lambda kind: (-counts[kind], kind))[:most]


def interval(rows: Floats, statistic: Callable[[Floats], float] = lambda rows: float(rows.mean())) -> list[float]:
    """95 % bootstrap interval of `statistic` over `rows` (N, ...), drawn with a fixed seed."""
    rng = np.random.default_rng(SEED)
    values = [statistic(rows[rng.integers(len(rows), size=len(rows))]) for _ in range(DRAWS)]
    return [round(float(bound), 3) for bound in np.nanquantile(values, [0.025, 0.975])]


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]
