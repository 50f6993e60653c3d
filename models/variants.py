"""What the paper's two models read beside the history numbers: Feast's full names, by what becomes of them."""

from collections.abc import Mapping
from dataclasses import dataclass

Spaces = tuple[tuple[str, ...], ...]
"""Embeddings by the encoder they come from: those of one encoder are comparable, and scaled alike."""


@dataclass(frozen=True)
class Variant:
    """Fields stand in the order in which they meet, behind the dense one: first lists, then vectors."""

    texts: Mapping[str, str]  # entity -> what stands for its words; whether there is any is a dense number
    price_tag: str | None  # among the dense numbers, one-hot
    lists: Mapping[str, str]  # field -> names, pooled
    vectors: Mapping[str, Spaces]  # field -> what its reducer reads


VARIANTS: Mapping[str, Variant] = {
    "baseline": Variant(
        texts={"user": "user_text__embedding", "business": "business_text__embedding"},
        price_tag=None,
        lists={},
        vectors={
            "text": (("user_text__embedding", "business_text__embedding"), ("business_photos__image_embedding",)),
        },
    ),
    "proposed": Variant(
        texts={"user": "user_summary__embedding", "business": "business_summary__embedding"},
        price_tag="business_tags__price_tag",
        lists={"category": "business_tags__subtypes"},
        vectors={
            "text": (("user_summary__embedding", "business_summary__embedding"),),
            "caption": (("business_photos__caption_embedding",),),
        },
    ),
}
