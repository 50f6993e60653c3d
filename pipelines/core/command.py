"""The command line of a stage: paths by flag, hyperparameters from params.yaml."""

import argparse
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
    # ibis 12 calls a method that duckdb 1.5 has renamed; nothing that a user could mend
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="ibis")
    sys.exit(exit_code_of(lambda: main(args, load_params(args.params))))
