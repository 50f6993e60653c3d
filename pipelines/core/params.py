"""params.yaml, checked: every key known, every value possible, or one line that says which is not."""

import os
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

import yaml
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator

from pipelines.core.errors import UserError

Seed = Annotated[int, Field(ge=0, lt=2**31)]
Share = Annotated[float, Field(gt=0, lt=1)]
AnyShare = Annotated[float, Field(ge=0, le=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
ClassWeights = Literal["basic", "sqrt", "none"]
Protocol = Literal["point_in_time", "leave_one_out"]
Source = Literal["synthetic", "google_restaurants", "google_local", "yelp", "zomato", "table"]
Column = Literal["review_id", "user_id", "business_id", "rating", "text", "timestamp"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Cache(Section):
    dir: str | None  # null: $MMREC_CACHE, else mmrec in the user's cache directory

    def folder(self) -> Path:
        """Where embeddings and other costly things are kept by content, outside the stages' outputs."""
        if self.dir is not None:
            return Path(self.dir).expanduser()
        if "MMREC_CACHE" in os.environ:
            return Path(os.environ["MMREC_CACHE"]).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "mmrec"


class Simulate(Section):
    seed: Seed
    reviews: Annotated[int, Field(ge=50)]
    users: Annotated[int, Field(ge=5)]
    businesses: Annotated[int, Field(ge=5)]
    photos: Annotated[int, Field(ge=0)]
    negative_share: Share


class ColumnNames(Section):
    """For `table`: our name -> the file's; null: the file's is ours."""

    review_id: str | None = None
    user_id: str | None = None
    business_id: str | None = None
    rating: str | None = None
    text: str | None = None
    timestamp: str | None = None

    def given(self) -> dict[Column, str]:
        return {ours: theirs for ours in get_args(Column) if (theirs := getattr(self, ours)) is not None}


class Ingest(Section):
    source: Source
    path: str
    photos: str
    columns: ColumnNames


class WarmShare(Section):
    user: AnyShare  # at least, of validation and test rows whose user is in train
    business: AnyShare


class Validate(Section):
    min_reviews: Annotated[int, Field(ge=1)]
    positive_share: tuple[Share, Share] = Field(strict=False)
    earliest: AwareDatetime = Field(strict=False)
    latest: AwareDatetime = Field(strict=False)
    reject_share: AnyShare  # at most, of the records read
    warm_share: WarmShare
    none_share: AnyShare  # at most, of businesses whose newest price tag is `none`

    @model_validator(mode="after")
    def from_low_to_high(self) -> Self:
        if self.positive_share[0] > self.positive_share[1]:
            raise ValueError("positive_share goes from low to high")
        if self.earliest >= self.latest:
            raise ValueError("earliest is not before latest")
        return self


class Split(Section):
    seed: Seed
    test_share: Share
    validation_share: Share  # of what is not test
    folds: Annotated[int, Field(ge=2, le=127)]


class EmbedReviews(Section):
    encoder: Annotated[
        str, Field(min_length=1)
    ]  # `minilm` (from the installed package), or a sentence-transformers name or folder
    batch_size: Annotated[int, Field(ge=1)]


class Limits(Section):
    """How a provider is called; none of it decides an answer, so no stage runs again for it."""

    concurrency: Annotated[int, Field(ge=1, le=256)]
    requests_per_minute: Annotated[int, Field(ge=1)] | None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None
    timeout_s: Annotated[float, Field(gt=0)]
    retries: Annotated[int, Field(ge=0)]  # of one request, after 408, 409, 429, 5xx, time-outs and broken connections


class Price(Section):
    """Dollars a million tokens."""

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]


class Budget(Section):
    """What one run of one stage may spend at most; null: no bound."""

    calls: Annotated[int, Field(ge=0)] | None
    tokens: Annotated[int, Field(ge=0)] | None
    dollars: Annotated[float, Field(ge=0)] | None


class Llm(Section):
    """The endpoint of the provider `openai`. Its key is OPENAI_API_KEY, from the environment alone."""

    base_url: Annotated[str, Field(pattern=r"^https?://")]
    model: Annotated[str, Field(min_length=1)]
    temperature: Annotated[float, Field(ge=0, le=2)] | None  # null: the request does not name it
    seed: Seed | None
    context_tokens: Annotated[int, Field(ge=512)]  # of one request with its answer; longer histories go in steps
    structured: bool  # ask for the answer's JSON schema by `response_format`; answers are checked here either way
    attempts: Annotated[int, Field(ge=1)]  # times a question is asked until its answer is usable
    failed_share: AnyShare  # at most, of a stage's snapshots: above it the stage stops, below it they are null
    batch: bool  # by the Batch API: cheaper, within a day
    limits: Limits
    price: Price
    budget: Budget


Provider = Literal["extractive", "openai"]
Growth = Annotated[float, Field(gt=1)]  # a snapshot when the history has grown by this factor


class Summarize(Section):
    provider: Provider
    growth: Growth
    words: Annotated[int, Field(ge=5)]  # of a summary, about
    own_words: Annotated[int, Field(ge=0)]  # one review of at most so many words is its own summary


class Tag(Section):
    provider: Provider
    growth: Growth
    similarity: Share  # extractive: how near a text must be to a type's name to count as naming it


class DescribePhotos(Section):
    captions: Literal["dataset", "blip2", "openai"]
    checkpoint: Annotated[str, Field(min_length=1)]  # of blip2: a folder, or a name on the model hub
    caption_batch: Annotated[int, Field(ge=1)]
    image_weights: Annotated[str, Field(min_length=1)]  # of ResNet50: `imagenet`, `random`, or a safetensors file
    image_batch: Annotated[int, Field(ge=1)]
    seed: Seed  # of `random` weights
    max_bytes: Annotated[int, Field(ge=1)]  # a larger file is a reject
    max_pixels: Annotated[int, Field(ge=1)]  # so is a larger picture


class History(Section):
    numbers: Literal["full", "paper"]
    leave_out: Literal["pair", "fold"]
    as_of: AwareDatetime = Field(strict=False)  # the one instant of leave-one-out rows and of sources without instants


class Prove(Section):
    seed: Seed
    rows: Annotated[int, Field(ge=1)]
    perturbed: Annotated[int, Field(ge=1)]


class Reduce(Section):
    mode: Literal["paper", "split", "joint"]
    hidden: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]  # its last layer is the projection
    dropout: Dropout
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    epochs: Annotated[int, Field(ge=1)]
    patience: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]


class Train(Section):
    bottom: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]  # ends in as many as `reduce.hidden`
    top: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
    wide: bool  # a linear path from the dense numbers to the logit
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    epochs: Annotated[int, Field(ge=1)]
    patience: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]


class Paper(Section):
    """How long and how fast the paper trains (section 5.1), where `selection` is paper."""

    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    least_epochs: Annotated[int, Field(ge=0)]  # patience is counted from there
    patience: Annotated[int, Field(ge=1)]
    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]


class Sweep(Section):
    """The paper's grid."""

    class_weights: Annotated[list[ClassWeights], Field(min_length=1)]
    dropout: Annotated[list[Dropout], Field(min_length=1)]
    repeats: Annotated[int, Field(ge=2)]
    mode: Literal["paper", "split", "joint"]  # of the reducers
    numbers: Literal["full", "paper"]
    wide: bool


class Compare(Section):
    """How the models are judged beside each other."""

    seed: Seed  # of the users drawn
    seeds: Annotated[int, Field(ge=1)]  # networks a model and a group of features: each is judged, and their mean
    replicates: Annotated[int, Field(ge=200)]  # of the bootstrap
    ranked_users: Annotated[int, Field(ge=1)]  # at most
    alpha: Share  # promised FPR
    delta: Share  # chance that the promise is broken


class Leak(Section):
    """What a leak is worth. Seeds count up from `seed`."""

    seed: Seed
    seeds: Annotated[int, Field(ge=2)]  # networks on honest and on leaky features
    networks: Annotated[int, Field(ge=2)]  # of each line of the label backwards, a permutation each
    permutations: Annotated[int, Field(ge=2)]  # that trees learn there

    @model_validator(mode="after")
    def networks_have_permutations(self) -> Self:
        if self.networks > self.permutations:
            raise ValueError("networks is not above permutations: each learns one of them")
        return self


class Serve(Section):
    """How the ranker answers; no stage reads it."""

    as_of: Literal["now", "newest"] | Annotated[AwareDatetime, Strict(False)]  # where a request names none
    stale_after_hours: Annotated[float, Field(gt=0)] | None  # age of a view's newest row past which it is not ready
    most_candidates: Annotated[int, Field(ge=1)]  # of one request
    most_bytes: Annotated[int, Field(ge=1)]  # of its body
    cached_businesses: Annotated[int, Field(ge=0)]  # whose encoded rows are kept, checked against the store each time
    freshness_every_s: Annotated[float, Field(gt=0)]  # the newest rows are looked for


class Parity(Section):
    """Online beside offline."""

    seed: Seed  # of the entities drawn
    entities: Annotated[int, Field(ge=1)]  # users, and businesses, at most


class Params(Section):
    protocol: Protocol
    model: Literal["proposed", "baseline"]
    selection: Literal["validation", "paper"]
    dropout: Dropout
    class_weights: ClassWeights
    seed: Seed
    networks: Annotated[int, Field(ge=1)]
    cache: Cache
    simulate: Simulate
    ingest: Ingest
    validate_: Validate = Field(alias="validate")
    split: Split
    embed_reviews: EmbedReviews
    llm: Llm
    describe_photos: DescribePhotos
    history: History
    summarize: Summarize
    tag: Tag
    prove: Prove
    reduce: Reduce
    train: Train
    paper: Paper
    sweep: Sweep
    compare: Compare
    leak: Leak
    serve: Serve
    parity: Parity

    @property
    def seeds(self) -> list[int]:
        """One a network."""
        return [self.seed + i for i in range(self.networks)]


def load_params(path: Path) -> Params:
    """Read and check params.yaml; UserError names the first wrong key, its value and what is allowed."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run from the repository's root or pass --params") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected `key: value` lines, found {type(raw).__name__}")
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UserError(f"{path}: unknown key `{key}`; remove it or mend its spelling") from None
        if first["type"] == "missing":
            raise UserError(f"{path}: `{key}` is missing") from None
        raise UserError(f"{path}: `{key}` is {first['input']!r}: {first['msg']}") from None
