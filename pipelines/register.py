"""`feast apply`, and a deterministic dump of what is registered.

`registry.db` changes at every `feast materialize`, so it is no stage's output; the dump is.
"""

import argparse
import io
import json
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.command import run_stage
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.repo_imports import import_from
from pipelines.core.tables import whole_file

if TYPE_CHECKING:
    from feast import FeatureStore

# What says when and where something was registered, or what a user keeps beside it.
NOT_DEFINITIONS = {"meta", "infra", "projectMetadata", "savedDatasets"}


def open_store(repo: Path) -> "FeatureStore":
    """The feature store that `repo/feature_store.yaml` describes."""
    if not (repo / "feature_store.yaml").is_file():
        raise UserError(f"{repo}: no feature_store.yaml here; pass the feature repo's folder with --repo")
    import_from(repo)
    from feast import FeatureStore

    return FeatureStore(repo_path=str(repo.resolve()))


def forget_another_workspaces(repo: Path) -> None:
    """Remove a registry that came with a copied or moved workspace, or that was made for another online store.

    It is made anew, and holds one thing that is of a place: the path of SQLite's file, which is still the other's.
    Feast would look for it where it was, or, seeing that it is not ours, empty it.
    """
    store = open_store(repo)
    registry = repo.resolve() / store.config.registry.path
    if not registry.is_file():
        return
    from feast.protos.feast.core.Registry_pb2 import Registry

    tables = Registry.FromString(registry.read_bytes()).infra.infra_objects
    files = {Path(table.sqlite_table.path).resolve() for table in tables if table.sqlite_table.path}
    if files - {(repo.resolve() / getattr(store.config.online_store, "path", "")).resolve()}:
        registry.unlink()


def apply(repo: Path) -> "FeatureStore":
    """What `feast apply` does in `repo`: register what it defines, delete what it no longer does."""
    repo = repo.resolve()
    forget_another_workspaces(repo)
    store = open_store(repo)
    from feast.repo_operations import apply_total

    # Feast makes a missing folder, but not its parents.
    (repo / store.config.registry.path).parent.mkdir(parents=True, exist_ok=True)
    # Feast names modules by their path from here, and stays where it goes; it prints a line a table
    with chdir(repo), redirect_stdout(io.StringIO()):
        apply_total(store.config, repo, skip_source_validation=True)
    return open_store(repo)


def dump_registry(store: "FeatureStore") -> str:
    """What is registered as JSON: the same definitions give the same bytes, on any machine and at any time."""
    registered = store.registry.to_dict(project=store.project)
    return json.dumps(_definitions(registered), sort_keys=True, indent=2) + "\n"


def _definitions(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _definitions(item) for key, item in value.items() if key not in NOT_DEFINITIONS}
    if isinstance(value, list):
        return [_definitions(item) for item in value]
    return value


def registered_store(repo: Path, dump: Path) -> "FeatureStore":
    """The feature store, its registry as `dump` says it is: applied anew where it is missing or differs.

    A copy of the workspace may have the dump from DVC's run cache without the registry. Raises UserError where the
    repo's definitions are not those of the dump.
    """
    try:
        expected = dump.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{dump}: no such file; run `dvc repro register` to make it") from None
    forget_another_workspaces(repo)
    store = open_store(repo)
    registry = repo.resolve() / store.config.registry.path
    if registry.exists() and dump_registry(store) == expected:
        return store
    store = apply(repo)
    if dump_registry(store) != expected:
        raise UserError(f"{dump}: not what {repo} defines; run `dvc repro register` to remake it")
    return store


def main(args: argparse.Namespace, params: Params) -> None:
    text = dump_registry(apply(args.repo))
    with whole_file(args.dump) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_stage(main, __doc__, {"repo": "the Feast feature repo", "dump": "the JSON of what is registered, to write"})
