"""Small recommenders of both variants over the synthetic training sets, as the stages would put them together."""

from typing import Any

import torch

from models.columns import Columns
from models.encoding import DenseEncoding, Encoding
from models.history_numbers import Numbers, used_numbers
from models.recommender import TrainedRecommender, build
from models.tags import ListEncoding, OneHotEncoding
from models.trainer import Member
from models.variants import VARIANTS
from models.vectors import VectorEncoding
from pipelines.core.vocabulary import MOST_SUBTYPES, PRICE_TAGS, restaurant_types
from tests.models.training_sets import rows_of, table


def small_params(model: str) -> dict[str, Any]:
    return {
        "model": model,
        "dropout": 0.1,
        "train": {"bottom": [8, 4], "top": [8], "wide": True},
        "reduce": {"hidden": [6, 4], "dropout": 0.3, "mode": "joint"},
    }


def encoding_of(model: str, train: Columns, numbers: Numbers = "full") -> Encoding:
    variant = VARIANTS[model]
    return Encoding(
        DenseEncoding.fit(train, used_numbers(numbers, variant.texts), variant.texts),
        OneHotEncoding(variant.price_tag, PRICE_TAGS) if variant.price_tag else None,
        {field: ListEncoding(name, restaurant_types(), MOST_SUBTYPES) for field, name in variant.lists.items()},
        {field: VectorEncoding.fit(train, spaces) for field, spaces in variant.vectors.items()},
    )


def recommender(
    model: str, weights: tuple[float, float] = (0.7, 0.3), rows: int = 120, seeds: tuple[int, ...] = (1,)
) -> TrainedRecommender:
    """As drawn by `seeds`, over encodings of `rows` train rows."""
    params = small_params(model)
    encoding = encoding_of(model, rows_of(table(rows, 1, model)).columns)
    network = build(params, encoding, [Member(seed, params["dropout"]) for seed in seeds])
    stacked = torch.tensor([weights] * len(seeds), dtype=torch.float64)
    return TrainedRecommender(network, encoding, stacked, f"{model}_point_in_time", "f" * 64, params)
