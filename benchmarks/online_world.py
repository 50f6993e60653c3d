"""Something to serve: random feature rows in an online store, filled through Feast, and models of the real shape.

A world is a folder laid out as the repository is: a copy of the feature repo with an online store of its own, feature
tables, the catalogue, params.yaml, and a model file of each variant, whose weights are drawn at random and whose
encodings are fitted on the world's own rows. What is measured is time; nothing in it means anything.
"""

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import yaml
from filling import fill_counts
from naming import POINT_IN_TIME, service_name

from models.columns import Columns
from models.recommender import TrainedRecommender, build
from models.trainer import Member
from models.variants import VARIANTS
from pipelines.core.errors import UserError
from pipelines.core.params import Params, load_params
from pipelines.core.tables import (
    BUSINESSES,
    INSTANT,
    REVIEWS,
    VIEWS_OF_STAGE,
    feature_tables,
    read_table,
    vector_column,
    write_table,
)
from pipelines.core.training_rows import columns, model_schema, vector_names, vector_width
from pipelines.core.vocabulary import MOST_SUBTYPES, PRICE_TAGS, restaurant_types
from pipelines.learning import encoding_for, fit_encodings

ROOT = Path(__file__).parents[1]
STORES = ("sqlite", "redis")
WIDTHS = {"embedding": 384, "caption_embedding": 384, "image_embedding": 2048}
START, SPAN, HOUR = 1_500_000_000, 150_000_000, 3600  # seconds
FROM, UNTIL = datetime.fromtimestamp(START - HOUR, UTC), datetime.fromtimestamp(START + 10 * SPAN, UTC)  # all rows
UNKNOWN = 0.05  # of each view's entities: a ranker meets those, too
FITTED_ON = 2000  # pairs
# Of what is started: Feast reports to nobody, and the app wants no token.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "MMREC_TOKEN"} | {"FEAST_USAGE": "False"}


@dataclass(frozen=True)
class World:
    folder: Path
    users: tuple[str, ...]
    businesses: tuple[str, ...]
    seed: int

    @property
    def repo(self) -> Path:
        return self.folder / "feature_repo"

    @property
    def params(self) -> Params:
        return load_params(self.folder / "params.yaml")

    def model(self, variant: str) -> Path:
        return self.folder / "data" / "model" / f"{variant}.safetensors"

    def ids(self, view: str) -> tuple[str, ...]:
        return self.users if entity_of(view) == "user" else self.businesses

    def requests(self, count: int, candidates: int, seed: int) -> list[tuple[str, list[str]]]:
        """Users with `candidates` different businesses each, both at random."""
        rng = np.random.default_rng(seed)
        return [
            (str(rng.choice(self.users)), [str(one) for one in rng.choice(self.businesses, candidates, replace=False)])
            for _ in range(count)
        ]

    def draw(self, number: int) -> None:
        """Write every feature table anew: other values than other `number`s have, and instants hours later."""
        rng = np.random.default_rng([self.seed, number])
        for stage, views in VIEWS_OF_STAGE.items():
            for view in views:
                ids = np.array(self.ids(view))
                kept = rng.random(len(ids)) >= UNKNOWN
                instants = START + rng.integers(0, SPAN, len(ids)) + number * HOUR
                schema = feature_tables(stage)[view]
                made = random_features(rng, schema, instants) | {f"{entity_of(view)}_id": pa.array(ids)}
                rows = pa.table([made[name] for name in schema.names], schema.names).filter(pa.array(kept))
                write_table(rows, self.folder / "data" / "features" / stage / f"{view}.parquet", schema)

    def materialize(self) -> None:
        """`feast materialize` of everything. UserError where it fails."""
        ended = subprocess.run(self.materialize_command(), env=ENVIRONMENT, capture_output=True, text=True)
        if ended.returncode:
            raise UserError(f"{self.repo}: `feast materialize` failed:\n{ended.stderr}")

    def materialize_command(self) -> list[str]:
        start, end = (instant.strftime("%Y-%m-%dT%H:%M:%S") for instant in (FROM, UNTIL))
        return [str(Path(sys.executable).with_name("feast")), "-c", str(self.repo), "materialize", start, end]


def entity_of(view: str) -> str:
    return view.split("_")[0]


# --- tables ----------------------------------------------------------------------------------------------------------


def random_features(rng: np.random.Generator, schema: pa.Schema, instants: np.ndarray) -> dict[str, Any]:
    """The columns of a feature table but for its key; a column's name says what it is."""
    rows = len(instants)
    when = pa.array(instants * 1_000_000, INSTANT)
    types = np.array(restaurant_types())
    made: dict[str, Any] = {}
    for name in schema.names[1:]:
        if name in WIDTHS:
            vectors = rng.normal(0, WIDTHS[name] ** -0.5, (rows, WIDTHS[name])).astype(np.float32)
            made[name] = vector_column(vectors, np.ones(rows, dtype=np.bool_))
        elif name in ("event_timestamp", "newest_review_at"):
            made[name] = when
        elif name == "review_count":
            made[name] = pa.array(rng.integers(1, 200, rows))
        elif name == "rating_mean":
            made[name] = pa.array(rng.uniform(1, 5, rows))
        elif name == "price_tag":
            made[name] = pa.array(rng.choice(PRICE_TAGS, rows))
        elif name == "subtypes":
            made[name] = pa.array(
                [rng.choice(types, n, replace=False).tolist() for n in rng.integers(1, MOST_SUBTYPES + 1, rows)]
            )
        elif name == "snapshot_id":
            made[name] = pa.array([rng.bytes(16).hex() for _ in range(rows)])
        else:  # rating_std, rating_trend
            made[name] = pa.array(rng.uniform(0, 1, rows))
    return made


def write_catalogue(world: World) -> None:
    """What the app knows of businesses and users beside their features."""
    rng = np.random.default_rng([world.seed, 1_000_000])
    count = len(world.businesses)
    categories = [[str(name)] for name in rng.choice(restaurant_types(), count)]
    prices = pa.array(rng.integers(1, 5, count).astype(np.float64))
    businesses = {
        "business_id": pa.array(world.businesses),
        "name": pa.array([f"Business {i}" for i in range(count)]),
        "categories": pa.array(categories, pa.list_(pa.string())),
        "price": prices,
    }
    tables = world.folder / "data" / "tables"
    write_table(pa.table(businesses), tables / "businesses.parquet", BUSINESSES)
    ratings = rng.integers(1, 6, len(world.users))
    reviews = {
        "review_id": pa.array([f"review-{i}" for i in range(len(world.users))]),
        "user_id": pa.array(world.users),
        "business_id": pa.array(rng.choice(world.businesses, len(world.users))),
        "rating": pa.array(ratings.astype(np.float32)),
        "text": pa.array(["Good food."] * len(world.users)),
        "event_timestamp": pa.array(np.full(len(world.users), START * 1_000_000), INSTANT),
        "label": pa.array((ratings >= 4).astype(np.int8)),
    }
    write_table(pa.table(reviews), tables / "reviews.parquet", REVIEWS)


# --- models ----------------------------------------------------------------------------------------------------------


def random_pairs(world: World, variant: str, count: int) -> Columns:
    """What `variant` reads of random (user, business) pairs of the world, after every row's instant."""
    rng = np.random.default_rng([world.seed, 2_000_000])
    drawn = {"user": rng.choice(world.users, count), "business": rng.choice(world.businesses, count)}
    features = {}
    for field in model_schema(variant):
        if "__" in field.name:
            view, name = field.name.split("__")
            (stage,) = (stage for stage, views in VIEWS_OF_STAGE.items() if view in views)
            path = world.folder / "data" / "features" / stage / f"{view}.parquet"
            table = read_table(path, feature_tables(stage)[view])
            rows = pc.index_in(pa.array(drawn[entity_of(view)]), table[f"{entity_of(view)}_id"].combine_chunks())
            features[field.name] = table[name].take(rows)
    table = fill_counts(pa.table(features | {"event_timestamp": pa.array([after()] * count, INSTANT)}))
    widths = {name: vector_width(table[name]) for name in vector_names(table.schema)}
    return columns(table, widths, str(world.folder))


def after() -> datetime:
    return datetime.fromtimestamp(START + 2 * SPAN, UTC)


def write_model(world: World, variant: str) -> None:
    """A model file whose network was drawn and never trained."""
    params = world.params.model_copy(update={"model": variant})
    rows = random_pairs(world, variant, FITTED_ON)
    encoding = encoding_for(rows, VARIANTS[variant], fit_encodings(rows, VARIANTS[variant]), params)
    kept = params.model_dump(mode="json", include={"protocol", "model", "dropout", "train", "reduce", "history"})
    members = [Member(seed, params.dropout) for seed in params.seeds]
    network = build(kept, encoding, members)
    if network.dlrm.wide is not None:  # begins at zero, and would be left out of every sum
        torch.nn.init.normal_(network.dlrm.wide, 0.0, 0.1, torch.Generator().manual_seed(world.seed))
    weights = torch.full((len(members), 2), 0.5, dtype=torch.float64)
    path = world.model(variant)
    path.parent.mkdir(parents=True, exist_ok=True)
    TrainedRecommender(
        network, encoding, weights, service_name(variant, POINT_IN_TIME), f"{world.seed:064x}", kept
    ).save(path)


# --- the world -------------------------------------------------------------------------------------------------------


def make_world(
    folder: Path, online_store: Mapping[str, Any], users: int, businesses: int, seed: int, variants: Sequence[str]
) -> World:
    """A world in `folder` with `online_store` (Feast's settings), its first draw materialized."""
    from pipelines.register import apply

    world = World(
        folder,
        tuple(f"user-{i:06d}" for i in range(users)),
        tuple(f"business-{i:06d}" for i in range(businesses)),
        seed,
    )
    world.repo.mkdir(parents=True)
    for source in (ROOT / "feature_repo").glob("*.py"):
        shutil.copy(source, world.repo)
    shutil.copy(ROOT / "params.yaml", folder)
    settings = yaml.safe_load((ROOT / "feature_repo" / "feature_store.yaml").read_text(encoding="utf-8"))
    settings["online_store"] = dict(online_store)
    (world.repo / "feature_store.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    world.draw(0)
    write_catalogue(world)
    for variant in variants:
        write_model(world, variant)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # a line an object, a bar a view
        apply(world.repo).materialize(FROM, UNTIL)
    return world


@contextmanager
def online_store(kind: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Feast's settings of an empty online store: SQLite's file in the world's `data/feast`, or a Redis of its own."""
    if kind == "sqlite":
        yield {"type": "sqlite", "path": "../data/feast/online.db"}
        return
    with redis_server(folder) as address:
        yield {"type": "redis", "connection_string": address, "skip_dedup": True}


def is_there(kind: str) -> bool:
    """Whether this machine has what the store needs."""
    return kind == "sqlite" or shutil.which("redis-server") is not None


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """host:port of a redis-server that keeps nothing on disk; ended with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with running(command, folder / "redis.log") as server:
        for _ in range(100):
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if server.poll() is not None:
                raise UserError(f"redis-server ended at once; it says: {(folder / 'redis.log').read_text()}")
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"


class Materializing:
    """`feast materialize` in another process, again and again, while the block lasts."""

    def __init__(self, world: World) -> None:
        self.log, self.counted = (world.folder / name for name in ("materialize.log", "materialize.rounds"))
        self.command = world.materialize_command()

    def __enter__(self) -> "Materializing":
        self.counted.write_bytes(b"")
        loop = 'counted="$1"; shift; while "$@"; do echo >> "$counted"; done; exit 1'
        self.process = start(["sh", "-c", loop, "sh", str(self.counted), *self.command], self.log)
        return self

    def __exit__(self, *_: object) -> None:
        failed = self.process.poll() is not None
        end(self.process)
        if failed:
            raise UserError(f"`feast materialize` failed beside the requests; it says:\n{self.log.read_text()[-2000:]}")

    @property
    def rounds(self) -> int:
        """Completed so far."""
        return len(self.counted.read_bytes())


# --- processes -------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def start(command: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    """`command` in a group of its own, so that Ctrl-C reaches us alone and we end it whole; output goes to `log`."""
    with log.open("wb") as file:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=ENVIRONMENT, start_new_session=True
        )


def end(process: "subprocess.Popen[bytes]") -> None:
    """End the process and those that it started."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sent)
        except ProcessLookupError:
            break
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


@contextmanager
def running(command: Sequence[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """`start` a command, and `end` it with the block."""
    process = start(command, log)
    try:
        yield process
    finally:
        end(process)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM unwind the block, which ends what it started, and are no traceback's matter."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


# --- the machine -----------------------------------------------------------------------------------------------------


def processor() -> str:
    """The CPU's name as Linux has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return "unknown CPU"
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def machine() -> str:
    """What a figure came from: cores, CPU, and what else it was doing in the last minute."""
    return f"{len(os.sched_getaffinity(0))} cores of {processor()}, load {os.getloadavg()[0]:.1f}"
