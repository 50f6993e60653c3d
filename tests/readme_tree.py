"""The README's file tree, from each file's own first line; `python -m tests.readme_tree` writes it anew."""

import ast
import re
import subprocess

from tests.params import ROOT

# What says nothing of itself.
TOLD = {
    "dvc.yaml": "the story: every stage, what it reads and what it makes",
    "params.yaml": "every parameter, with its values",
    "pipelines/paper/dvc.yaml": "the paper's experiment and its judgement, stages of their own",
    "expectations/": "the suites of data checks, one JSON a table (docs/expectations.md)",
    "pipelines/prompts/": "what language models are asked, a versioned file a question",
    "pipelines/vocabularies/": "restaurant types, dishes, synonyms, words of price: each names its source",
    "docs/": "decisions, expectations, formats, glossary",
    "tests/": "specifications as text tables, obvious twins, planted leaks and faults, the walk above",
}
ROOMS = (
    "feature_repo",
    "pipelines",
    "pipelines/paper",
    "pipelines/core",
    "pipelines/core/extractive",
    "pipelines/core/openai_api",
    "pipelines/core/photos",
    "pipelines/formats",
    "models",
    "serving",
    "benchmarks",
)
MARKS = re.compile(r"(?<=<!-- tree -->\n```\n).*?(?=```\n<!-- /tree -->)", re.DOTALL)


def tree() -> str:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = set(subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())
    lines = [f"{name:<26}{text}" for name, text in TOLD.items()]
    for room in ROOMS:
        lines.append(f"{room}/")
        for name in sorted(f.removeprefix(f"{room}/") for f in files if f.startswith(f"{room}/")):
            if "/" not in name and name.endswith(".py") and name != "__init__.py":
                text = ast.get_docstring(ast.parse((ROOT / room / name).read_text()))
                assert text, f"{room}/{name} says nothing of itself"
                lines.append(f"  {name:<24}{text.splitlines()[0]}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(MARKS.sub(lambda _: tree(), readme.read_text()))
