"""What the paper printed in its Tables 1 and 2, and the operating points that its figures imply."""

import json
from pathlib import Path
from typing import Any

from scipy.stats import norm

Row = dict[str, Any]
Key = tuple[str, str, float]
"""A row of the paper's tables: model, class weights, dropout."""

FILE = Path(__file__).with_name("published.json")


def published() -> dict[str, Any]:
    """Rows by class, and the two tables: shares and losses as printed."""
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def key_of(row: Row) -> Key:
    return row["model"], row["class_weights"], float(row["dropout"])


def implied_tpr(accuracy: float, fpr: float, negative_share: float) -> float:
    """TPR of a point of which accuracy and FPR are known.

    accuracy = (1 - n) TPR + n (1 - FPR), n the share of negatives; solved for TPR.
    """
    return (accuracy - negative_share * (1 - fpr)) / (1 - negative_share)


def implied_auc(fpr: float, tpr: float) -> float:
    """AUC of the one curve through (FPR, TPR) on which both classes' scores are normal and spread alike.

    Phi((z(TPR) - z(FPR)) / sqrt 2). Two points of one AUC differ by their threshold alone.
    """
    return float(norm.cdf((norm.ppf(tpr) - norm.ppf(fpr)) / 2**0.5))


def operating_points(split: str) -> list[Row]:
    """The twelve rows of the paper's table of `split`, each with `tpr` and `auc` as implied."""
    content = published()
    rows = content["rows"][split]
    negative_share = rows["negative"] / (rows["negative"] + rows["positive"])
    points = []
    for row in content["tables"][split]:
        tpr = implied_tpr(row["accuracy"], row["fpr"], negative_share)
        points.append({**row, "tpr": tpr, "auc": implied_auc(row["fpr"], tpr)})
    return points
