"""Distinct texts and sentences embedded a second, beside plain `SentenceTransformer.encode`, in one run.

    python -m benchmarks.sentences --shared ../shared --texts 600

Ours gives each text the same bits whatever stands beside it, and keeps them: padded to multiples of 16 tokens, always
16 rows a batch, then written to the cache (a fresh one here). Plain pads a batch to its longest text. With `--shared`
the texts are Zomato's, else the simulated world's. Rounds alternate, so that a busy machine is busy for both.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.core.encoders import TextEncoder
from pipelines.core.extractive.sentences import split_sentences
from pipelines.core.params import load_params
from pipelines.core.vector_cache import VectorCache
from pipelines.formats.records import Review
from pipelines.formats.synthetic import read as read_synthetic
from pipelines.formats.zomato import read as read_zomato
from pipelines.simulate import write_world

ROUNDS = 3


def distinct_texts(shared: Path | None) -> list[str]:
    if shared is not None:
        records = list(read_zomato(shared / "data" / "zomato", {}))
    else:
        with tempfile.TemporaryDirectory() as folder:
            simulate = load_params(Path("params.yaml")).simulate.model_copy(update={"photos": 0})
            write_world(Path(folder), simulate)
            records = list(read_synthetic(Path(folder), {}))
    return list(dict.fromkeys(record.text for record in records if isinstance(record, Review) and record.text.strip()))


def seconds_of(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(what: str, items: list[str], encoder: TextEncoder, plain: Any, cache: Path) -> None:
    """Medians over the rounds, each with an empty cache."""
    rates = []
    for number in range(ROUNDS):
        encoder.cache = VectorCache(cache / f"{what}-{number}", encoder.fingerprint)
        ours = seconds_of(lambda: encoder.encode(items))
        rates.append((len(items) / ours, len(items) / seconds_of(lambda: plain.encode(items))))
    ours, theirs = np.median(rates, axis=0)
    ratio = np.median([mine / other for mine, other in rates])
    print(f"{len(items)} distinct {what}: ours {ours:.0f}/s, plain encode {theirs:.0f}/s, ours / plain {ratio:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--texts", type=int, default=600)
    args = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    texts = distinct_texts(args.shared)
    sentences = list(dict.fromkeys(sentence for text in texts for sentence in split_sentences(text)))
    rng = np.random.default_rng(7)

    from sentence_transformers import SentenceTransformer

    with tempfile.TemporaryDirectory() as cache:
        encoder = TextEncoder("minilm", 16, Path(cache))
        plain = SentenceTransformer(str(encoder.folder), device="cpu")
        encoder.encode(["warm"] * 2 + [f"up {number}" for number in range(40)])
        plain.encode([f"up {number}" for number in range(40)])
        for what, items in (("texts", texts), ("sentences", sentences)):
            some = rng.choice(len(items), size=min(args.texts, len(items)), replace=False)
            compare(what, [items[place] for place in some.tolist()], encoder, plain, Path(cache))


if __name__ == "__main__":
    main()
