"""Both dvc.yaml tell the truth: names, parameters, and every file of ours that a stage's code imports."""

import ast
from pathlib import Path

import pytest
import yaml

from tests.params import ROOT

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PAPER = yaml.safe_load((ROOT / "pipelines/paper/dvc.yaml").read_text())["stages"]
STAGES = PIPELINE | PAPER
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
# `validate_tables`, `validate_features` and `validate_training_set` are one module over three groups of tables.
MODULES = {name: "validate" if name.startswith("validate_") else name for name in PIPELINE}
MODULES |= {name: f"paper.{name}" for name in PAPER}


def file_of(module: str) -> Path | None:
    """The file of a module of ours; flat names are the feature repository's."""
    path = Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py", Path("feature_repo", path.with_suffix(".py"))):
        if (ROOT / candidate).is_file():
            return candidate
    return None


def imported_by(file: Path) -> set[Path]:
    found = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found |= {path for name in names if (path := file_of(name)) and path.name != "__init__.py"}
    return found


def closure(file: Path) -> set[Path]:
    seen, todo = set(), {file}
    while todo:
        seen |= todo
        todo = {path for one in todo for path in imported_by(one)} - seen
    return seen


def code_deps(stage: str) -> set[Path]:
    return {Path(dep) for dep in STAGES[stage]["deps"] if not dep.startswith(("data", "results", "$"))}


@pytest.mark.parametrize("stage", STAGES)
def test_all_the_code_that_a_stage_imports_is_among_its_deps(stage):
    deps = code_deps(stage)
    needed = closure(Path("pipelines", *MODULES[stage].split(".")).with_suffix(".py"))
    missing = sorted(str(file) for file in needed if file not in deps and not deps & set(file.parents))
    assert not missing, f"stage {stage}: add to its deps: {missing}"
    files = {dep for dep in deps if dep.suffix == ".py"}
    assert not files - needed, f"stage {stage}: no import leads to {sorted(map(str, files - needed))}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_its_module_and_says_what_it_does(stage):
    assert f"-m pipelines.{MODULES[stage]} " in STAGES[stage]["cmd"]
    assert STAGES[stage]["desc"]
    for dep in code_deps(stage):
        assert (ROOT / dep).exists(), dep


# Where things are kept, how an endpoint is called, paid and waited for, and how the ranker answers: no stage makes
# anything else by it.
DECIDE_NOTHING = {"cache.dir", "llm.batch", "llm.limits", "llm.price", "llm.budget"}
DECIDE_NOTHING |= {f"serve.{key}" for key in PARAMS["serve"]}


def test_every_parameter_is_tracked_by_a_stage():
    """A key that no stage tracks makes an experiment that runs nothing and calls it success."""
    tracked = {key for stage in STAGES.values() for key in stage.get("params", [])}
    for section, value in PARAMS.items():
        keys = [f"{section}.{key}" for key in value] if isinstance(value, dict) else [section]
        untracked = {key for key in keys if key not in tracked and section not in tracked}
        assert untracked == DECIDE_NOTHING & set(keys), section


def test_the_model_decides_from_reduce_on():
    """The training set, its checks and its proof are every model's: another `model` reruns what learns alone."""
    of_data = list(PIPELINE)[: list(PIPELINE).index("reduce")]
    assert {"training_set", "validate_training_set", "prove"} <= set(of_data)
    assert not [stage for stage in of_data if "model" in STAGES[stage].get("params", [])]


def test_a_tracked_parameter_exists():
    for stage in STAGES.values():
        for key in stage.get("params", []):
            value = PARAMS
            for part in key.split("."):
                assert part in value, key
                value = value[part]


def test_sections_are_stages():
    sections = {name for name, value in PARAMS.items() if isinstance(value, dict)}
    assert sections - {"cache", "llm", "paper", "serve"} <= {
        module.removeprefix("paper.") for module in MODULES.values()
    }


@pytest.mark.parametrize("stage", ["materialize", "parity"])
def test_what_the_online_store_holds_is_never_taken_from_the_run_cache(stage):
    """DVC would bring back the report and not the store. An output that it may not remove, it does not restore."""
    outs = [*STAGES[stage].get("outs", []), *STAGES[stage].get("metrics", [])]
    assert outs and all(list(settings.values()) == [{"persist": True}] for settings in outs)


def test_names_are_given_once():
    assert not set(PIPELINE) & set(PAPER)
    assert {stage["wdir"] for stage in PAPER.values()} == {"../.."}


@pytest.mark.parametrize("stage", PAPER)
def test_what_the_papers_templates_and_numbers_say_is_among_the_deps(stage):
    """Files beside the code that it reads by name."""
    beside = {
        path.relative_to(ROOT)
        for path in (ROOT / "pipelines/paper").iterdir()
        if path.suffix in {".j2", ".json"} and path.name != "dvc.lock"
    }
    code = "".join((ROOT / dep).read_text() for dep in code_deps(stage) if dep.suffix in {".py", ".j2"})
    assert {path for path in beside if path.name in code} == beside & code_deps(stage)
