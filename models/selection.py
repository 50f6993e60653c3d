"""By what the best epoch is chosen: validation (ours), or the test set (the paper's)."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

Selection = Literal["validation", "validation_fpr", "paper"]

# Selection -> the figures of each split, to scores (K,) of which the least is best.
SELECTIONS: Mapping[Selection, Callable[[Mapping[str, Any]], np.ndarray]] = {
    # least validation log loss: ranking and calibration at once, and test is not looked at
    "validation": lambda figures: figures["validation"].log_loss,
    # the paper's criterion on validation: what is left when only the set is another
    "validation_fpr": lambda figures: figures["validation"].fpr,
    # the paper, section 5.1: best false positive rate on the test set, which is thereby no test any more
    "paper": lambda figures: figures["test"].fpr,
}
BY_FPR_OF: Mapping[Selection, str] = {"validation_fpr": "validation", "paper": "test"}
