"""The ranker: serve it, ask it, ask it why."""

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pipelines.core.errors import UserError, exit_code_of

if TYPE_CHECKING:
    from pipelines.core.params import Params
    from serving.choice import Asked, Chosen
    from serving.ranker import Ranker

# What is heavy is imported by the command that needs it, so that --help comes at once.

EXAMPLES = """examples:
  python -m serving serve --port 8080
  MMREC_TOKEN=secret python -m serving serve --host 0.0.0.0
  python -m serving rank --user 102
  python -m serving rank --user 102 --category thai_restaurant --price-tag cheap --max-price 2 --top 5
  python -m serving rank --user 102 --candidates b1,b2,b3 --at 2021-06-01T12:00:00Z --json
  python -m serving why --user 102 --business b1

Unknown users and businesses are ranked as newcomers. Errors are one line on stderr, with exit code 2.
"""
TOKEN = "MMREC_TOKEN"  # noqa: S105 (the variable's name)
WIDTH = 110  # of text on a page


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line, as all of ours."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see `{self.prog} --help`\n")


# --- commands --------------------------------------------------------------------------------------------------------


def serve_command(args: argparse.Namespace, params: "Params") -> None:
    from serving.app import serve
    from serving.live import Live

    live = Live(args.model, args.repo, params)
    serve(live, params, args.data, host=args.host, port=args.port, token=os.environ.get(TOKEN, "").strip() or None)


def rank_command(args: argparse.Namespace, params: "Params") -> None:
    check_model(args.model)
    from serving.catalogue import Catalogue
    from serving.choice import answer_of, choose
    from serving.ranker import open_ranker

    asked = asked_by(args)
    ranker = open_ranker(args.model, args.repo, params)
    chosen = choose(ranker, Catalogue(args.data).businesses(), asked, params.serve.most_candidates)
    if args.json:
        print_json(answer_of(ranker, asked, chosen).model_dump(mode="json"))
    else:
        print("\n".join(table(ranker, asked, chosen)))


def why_command(args: argparse.Namespace, params: "Params") -> None:
    check_model(args.model)
    from serving.ranker import open_ranker
    from serving.why import why

    found = why(open_ranker(args.model, args.repo, params), args.user, args.business, args.at, args.data, params)
    if args.json:
        print_json(found)
    else:
        print("\n".join(page(found)))


def check_model(path: Path) -> None:
    """UserError where there is no file, told before the seconds that the imports take."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; run `dvc repro train` to make it")


def asked_by(args: argparse.Namespace) -> "Asked":
    """What the flags of `rank` ask for. UserError where the file of candidates cannot be read."""
    from serving.choice import Asked

    candidates = args.candidates if args.candidates_file is None else ids_in(args.candidates_file)
    return Asked(
        user_id=args.user,
        candidates=candidates,
        category=args.category,
        price_tag=args.price_tag,
        max_price=args.max_price,
        exclude=args.exclude or (),
        top=args.top,
        at=args.at,
    )


def ids_in(path: Path) -> list[str]:
    """An id a line; empty lines are none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"--candidates-file {path}: {error.strerror}; give a file with an id a line") from None
    except UnicodeDecodeError as error:
        raise UserError(f"--candidates-file {path}: not UTF-8 (byte {error.start}); give an id a line") from None
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise UserError(f"--candidates-file {path}: names nobody; give an id a line")
    return ids


# --- what is printed -------------------------------------------------------------------------------------------------


def print_json(found: Any) -> None:
    print(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False))


def table(ranker: "Ranker", asked: "Asked", chosen: "Chosen") -> Iterator[str]:
    from serving.why import iso

    known = "known" if chosen.known else "unknown: ranked as a newcomer"
    of = f"{len(chosen.best)} of {chosen.candidates} candidates"
    model = f"model {ranker.digest[:12]} by {ranker.service}"
    yield f"user {shown(asked.user_id)} ({known}), at {iso(chosen.at)}: {of}; {model}"
    rows = [
        (
            str(place),
            f"{one.probability:.4f}",
            str(one.reviews),
            shown(one.business_id),
            shown(one.business.name or "-"),
        )
        for place, one in enumerate(chosen.best, start=1)
    ]
    yield from aligned([("rank", "probability", "reviews", "business_id", "name"), *rows], right=(0, 1, 2))


def page(found: dict[str, Any]) -> Iterator[str]:
    """`serving.why` as a text to read."""
    name = f" ({shown(found['name'])})" if found["name"] else ""
    yield f"user {shown(found['user_id'])}, business {shown(found['business_id'])}{name}, at {found['at']}"
    yield f"probability {found['probability']:.4f}, by model {found['model'][:12]} through {found['feature_service']}"
    for view in found["views"]:
        yield ""
        yield from section(view)
    yield ""
    yield "what moved it: the probability if the model did not know this, and the change; changes do not add up"
    # + 0.0: no -0.0000
    known = [one for one in found["moved"] if one["known"]]
    rows = [(f"{one['without']:.4f}", f"{round(one['change'], 4) + 0.0:+.4f}", one["what"]) for one in known]
    yield from aligned([("without", "change", ""), *rows], right=(0, 1))
    unknown = [one["what"].removesuffix(" (unknown)") for one in found["moved"] if not one["known"]]
    if unknown:
        yield from textwrap.wrap(f"unknown: {', '.join(unknown)}", WIDTH, initial_indent="  ", subsequent_indent="  ")


def section(view: dict[str, Any]) -> Iterator[str]:
    """One view: its row, its features, and what was made of its snapshot."""
    if view["instant"] is None:
        yield f"{view['view']}: no row"
        return
    count = view["reviews"]
    reviews = "" if count is None else f", of {count} review{'' if count == 1 else 's'}"
    yield f"{view['view']}{reviews}, row of {view['instant']}, {age(view['age_seconds'])} old"
    rows = [(one["name"].split("__")[1], value(one["value"])) for one in view["features"]]
    yield from aligned(rows)
    reading = view["reading"]
    if reading is None:
        return
    if reading["text"] is not None:
        yield from textwrap.wrap(shown(reading["text"]), WIDTH, initial_indent="  | ", subsequent_indent="  | ")
    for line in (reading["note"], *map(call, reading["calls"])):
        if line is not None:
            yield f"  {shown(line)}"


def call(made: dict[str, Any]) -> str:
    """A record of the ledger; `status` alone where there is none."""
    if made["provider"] is None:
        return f"call {made['key'][:12]}: {made['status']}"
    tokens = "" if made["input_tokens"] is None else f", {made['input_tokens']} tokens in, {made['output_tokens']} out"
    cost = f", ${made['dollars']:.6f}" if made["dollars"] else ""
    who = f"{made['provider']} {made['model']} on {made['prompt']}"
    return f"call {made['key'][:12]}: {who}, {made['status']}, {made['time']}{tokens}{cost}"


def value(of: Any) -> str:
    if of is None:
        return "unknown"
    if isinstance(of, dict):
        return f"{of['length']} numbers, norm {of['norm']:.4f}"
    if isinstance(of, list):
        return shown(", ".join(of)) or "none"
    return f"{of:.4f}" if isinstance(of, float) else shown(str(of))


def age(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return "1 second" if round(seconds) == 1 else f"{seconds:.0f} seconds"


def shown(text: str) -> str:
    """A stranger's text on one line of a terminal: no escapes, no other direction."""
    from pipelines.core.questions import printable_line

    return printable_line(text)


def aligned(rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> Iterator[str]:
    """Cells under each other, two spaces apart; numbers to the right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield ("  " + "  ".join(cells)).rstrip()


# --- flags -----------------------------------------------------------------------------------------------------------


def instant(text: str) -> datetime:
    try:
        parsed = datetime.fromisoformat(text)
        if parsed.tzinfo is not None:
            return parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # said below, as for an instant without a zone
    raise argparse.ArgumentTypeError(f"{text!r} is no instant with its zone, such as 2021-06-01T12:00:00Z")


def ids(text: str) -> list[str]:
    found = [some_id(one.strip()) for one in text.split(",") if one.strip()]
    if not found:
        raise argparse.ArgumentTypeError("names nobody; give ids with commas between them")
    return found


def some_id(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("is empty; give an id")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8; give an id as the tables have it") from None
    return text


def at_least(least: float, of: type[int] | type[float]) -> Any:
    """The type of a flag whose number is at least `least`."""

    def number(text: str) -> float:
        try:
            parsed = of(text)
        except ValueError:
            parsed = of(least) - 1
        if not least <= parsed < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is no number of at least {least:g}")
        return parsed

    return number


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="python -m serving",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = made.add_subparsers(dest="command", required=True, metavar="serve | rank | why")
    serve = command(commands, "serve", "answer over HTTP, with one page at /", serve_command)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    serve.add_argument("--port", type=port, default=8080, help="0: any that is free (default: %(default)s)")
    rank = command(commands, "rank", "the best businesses for a user", rank_command)
    rank.add_argument("--user", type=some_id, required=True, metavar="ID", help="whom to rank for")
    among = rank.add_mutually_exclusive_group()
    among.add_argument("--candidates", type=ids, metavar="ID,ID", help="businesses to rank (default: all there are)")
    among.add_argument("--candidates-file", type=Path, metavar="PATH", help="the same, an id a line")
    rank.add_argument("--category", metavar="NAME", help="only of this category of the source, or tagged type")
    rank.add_argument("--price-tag", metavar="TAG", help="only what reviews call overpriced, fair, cheap or none")
    rank.add_argument("--max-price", type=at_least(0, float), metavar="PRICE", help="only up to this known price")
    rank.add_argument("--exclude", type=ids, metavar="ID,ID", help="businesses to leave out")
    rank.add_argument("--top", type=at_least(1, int), default=10, metavar="N", help="how many (default: %(default)s)")
    why = command(commands, "why", "what the model knew of both, where it is from, what moved the score", why_command)
    why.add_argument("--user", type=some_id, required=True, metavar="ID", help="who was ranked for")
    why.add_argument("--business", type=some_id, required=True, metavar="ID", help="what was ranked")
    for asking in (rank, why):
        asking.add_argument(
            "--at", type=instant, metavar="INSTANT", help="the instant it is about (default: what serve.as_of says)"
        )
        asking.add_argument("--json", action="store_true", help="JSON, as the HTTP app answers")
    return made


def command(commands: Any, name: str, text: str, run: Any) -> argparse.ArgumentParser:
    """A subcommand with the flags that all have."""
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.set_defaults(run=run)
    for flag, default, what in (
        ("--model", "data/model/model.safetensors", "the trained model"),
        ("--repo", "feature_repo", "the Feast feature repo"),
        ("--data", "data", "the pipeline's data folder: names, summaries, tags"),
        ("--params", "params.yaml", "its section `serve`, and where the ledger is"),
    ):
        made.add_argument(flag, type=Path, default=Path(default), metavar="PATH", help=f"{what} (default: %(default)s)")
    return made


def port(text: str) -> int:
    if not (text.isdecimal() and int(text) < 2**16):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 to 65535")
    return int(text)


def run(args: argparse.Namespace) -> None:
    """UserError, the earlier the less has to be imported to know of it."""
    from pipelines.core.command import quiet
    from pipelines.core.params import load_params

    quiet()
    args.run(args, load_params(args.params))


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 2 after one line on stderr."""
    args = parser().parse_args(argv)
    return exit_code_of(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
