"""The README does not lie: its tree is the repository's, its links lead somewhere, its commands exist."""

import re

from tests.params import ROOT
from tests.readme_tree import MARKS, tree

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tree_is_the_repositorys():
    shown = MARKS.search(README)
    assert shown
    assert shown[0] == tree(), "run `python -m tests.readme_tree`"


def test_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) <= targets


def test_modules_exist():
    modules = set(re.findall(r"python -m ([a-z_.]+)", README))
    assert modules
    paths = {module: ROOT / module.replace(".", "/") for module in modules}
    assert [m for m, p in paths.items() if not (p.with_suffix(".py").is_file() or (p / "__main__.py").is_file())] == []
