"""The command line of a stage: paths by flag, hyperparameters from params.yaml."""

import argparse
import logging
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from pipelines.core.errors import exit_code_of
from pipelines.core.params import Params, load_params


def run_stage(
    main: Callable[[argparse.Namespace, Params], None],
    description: str | None,
    flags: Mapping[str, str],
) -> None:
    """Parse one required path flag per entry of `flags` (name -> help), call `main`, exit.

    A flag `reviews-out` is read as `args.reviews_out`, a `Path`. `--params` names another params.yaml.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, text in flags.items():
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="PATH", help=text)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="PATH")
    args = parser.parse_args()
    quiet()
    sys.exit(exit_code_of(lambda: main(args, load_params(args.params))))


def quiet() -> None:
    """No warnings about what no user of ours could mend."""
    # ibis 12 calls a method that duckdb 1.5 has renamed
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="ibis")
    # Feast takes `serve_features_while_materializing` for useless beside a registry in a file; it is not (decisions.md)
    logging.getLogger("feast.repo_config").setLevel(logging.ERROR)
