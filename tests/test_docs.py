"""The documentation says what is so: its links, commands, options and numbers, and the code of docs/extend.md."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

import ssat
from ssat.analysis import figures
from ssat.commands import analyze
from ssat.commands.__main__ import COMMANDS
from ssat.commands.train import train as train_config
from ssat.config.components import check_components
from ssat.config.groups import groups, options, take_folders
from ssat.config.overrides import composed
from ssat.config.resolve import resolve
from ssat.config.schema import Run
from ssat.config.words import CONF, EXPERIMENTS, FOLDERS, expand_tasks
from ssat.core.words import flatten
from ssat.encoders.base import Encoder
from ssat.tasks.base import Task
from ssat.training.module import JointModule
from tests.encoders.cases import CASES as ENCODER_CASES
from tests.encoders.cases import by_name
from tests.helpers import ROOT, train

DOCS = ROOT / "docs"
README, EXTEND = ROOT / "README.md", DOCS / "extend.md"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
FILES = [*sorted(CONF.glob("*/*.yaml")), *sorted(EXPERIMENTS.glob("*.yaml"))]
RECORDS = DOCS / "evidence" / "gpu_cifar10"

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:python -m src\.|ssat )(\w+)\b")


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page that are written in `language`."""
    return [code for found, code in FENCE.findall(page.read_text()) if found == language]


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", page.read_text())


HOMES = {"encoder": "encoders", "ssl": "tasks", "data": "data/sets"}  # group and folder of its modules
QUICK = [
    *("trainer=cpu", "trainer.threads=1", "trainer.max_steps=2", "epochs=1", "recipe.batch_size=8"),
    *("footprint.energy=false", "reconstruct_every=1"),
]


def example_files() -> dict[str, str]:
    """The files of the page, by the name that stands before each block."""
    return dict(re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```$", EXTEND.read_text(), re.MULTILINE | re.DOTALL))


# ---- links and paths ----


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(path), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_of_the_repository_that_a_page_names_exists(page: Path) -> None:
    made = {name.replace("my_ssat/", f"src/ssat/{group}/") for name in example_files() for group in HOMES.values()}
    made |= {name.replace("my_conf/", "conf/") for name in example_files()}
    found = re.findall(r"`((?:src|conf|tests|experiments|docs|benchmarks)/[\w/.]+)`", prose(page))
    missing = {path for path in found if not (ROOT / path).exists()} - made - set(example_files())
    assert not missing


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {README.parent / target for target in re.findall(r"\]\((docs/[^)#]+\.md)", README.read_text())}
    assert linked == set(DOCS.glob("*.md"))


# ---- commands ----


def text_of_commands(path: Path) -> list[str]:
    """The lines of a page's code blocks and its inline code, or the trainings in a configuration file's comments."""
    if path.suffix == ".yaml":
        return re.findall(r"^# *(python -m src\.train .*)$", path.read_text(), re.MULTILINE)
    lines = "\n".join(code for _, code in FENCE.findall(path.read_text())).replace("\\\n", " ").splitlines()
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(path))]
    return [line.strip() for line in [*lines, *inline]]


def documented(*names: str) -> list[str]:
    """Every command line of the documentation that runs one of `names`; docs/extend.md has tests of its own."""
    lines = [line for path in [*PAGES, *FILES] if path != EXTEND for line in text_of_commands(path)]
    starts = [(line, COMMAND.match(line)) for line in lines]
    found = [line for line, start in starts if start and start[1] in names and "=" in line and "..." not in line]
    # One line for each run: a comment or an estimate does not make another.
    unique = {tuple(word for word in words_of(line) if word != "estimate=true"): line for line in reversed(found)}
    return list(reversed(unique.values()))


def words_of(line: str) -> list[str]:
    """The words after the command's name; a placeholder such as <its run> becomes one word."""
    filled = re.sub(r"<([^>]*)>", lambda found: re.sub(r"\W+", "_", found[1]), line)
    words = shlex.split(filled, comments=True)
    return words[3:] if words[0] == "python" else words[2:]


def parsed(words: list[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides([word for word in words if word != "-m"])


def choices(override: Override) -> list[Any]:
    """The values of a sweep, or the only one."""
    return list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]


def first_run(words: list[str]) -> list[str]:
    """The words of a sweep's first run."""
    keys = [word.partition("=")[0] for word in words if word != "-m"]
    return [
        f"{key}={next(iter(override.sweep_string_iterator()))}" if override.is_sweep_override() else override.input_line
        for key, override in zip(keys, parsed(words), strict=True)
    ]


def value_in(run: Run, key: str) -> Any:
    """What `run` has for a key of the command line."""
    values: Any = run.values
    for part in key.split("."):
        values = values[part]
    return values["name"] if key in groups() else values


UNNAMED = ("input", "trainer", "mode", "launcher")  # their files may be called otherwise than the value that they set


@pytest.mark.sampled
@pytest.mark.parametrize("line", documented("train"))
def test_a_documented_training_command_makes_the_run_that_it_says(line: str) -> None:
    words = words_of(line)
    if "--help" in words:
        assert words[1].partition("=")[0] in [*groups(), *flatten(dict(resolve(composed([])).values))]
        return
    words = [word for word in words if not word.startswith("hydra")]  # of a search, which needs -m
    run = resolve(composed(first_run(words)))
    check_components(run)
    for override in parsed(expand_tasks(first_run(words))):
        if override.is_add() or override.key_or_group in UNNAMED:
            continue
        expected = override.value()
        if override.key_or_group == "logger" and isinstance(expected, list):  # the others are logger.also
            expected = expected[0]
        assert value_in(run, override.key_or_group) == expected, override.input_line


@pytest.mark.parametrize("line", documented("train"))
def test_every_choice_of_a_documented_sweep_is_an_option(line: str) -> None:
    for override in parsed([word for word in words_of(line) if word != "--help" and not word.startswith("ssl=[")]):
        if override.key_or_group in (*groups(), "experiments"):
            chosen = choices(override)
            if override.key_or_group == "logger" and isinstance(override.value(), list):  # several at once
                chosen = [each for each in override.value() if isinstance(each, str)]
            assert {str(choice) for choice in chosen} <= set(options(override.key_or_group))


@pytest.mark.parametrize("line", documented(*[name for name in COMMANDS if name != "train"]))
def test_a_documented_command_is_understood(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    match, words = COMMAND.match(line), words_of(line)
    assert match
    if match[1] == "advise":
        composed(importlib.import_module(COMMANDS["advise"][0]).parse(words).words)
    elif "--show" in words or "data=image_folder" in words:  # takes what train takes
        words = [word for word in words if word not in ("--show", "--check", "--json")]
        composed([word.replace("=name", "=digits") for word in words])
    else:
        importlib.import_module(COMMANDS[match[1]][0]).parse(words)


def test_every_command_has_a_row_in_the_page_of_commands() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (DOCS / "commands.md").read_text(), re.MULTILINE)
    assert set(COMMANDS) <= set(rows)


@pytest.mark.parametrize("group", [name for name in groups() if name != "hydra"])
def test_every_option_of_a_group_is_in_its_row(group: str) -> None:
    (row,) = re.findall(rf"^\| `{group}` \|(.*)$", (DOCS / "commands.md").read_text(), re.MULTILINE)
    assert set(options(group)) <= set(re.findall(r"`(\w+)`", row))


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for page in PAGES for line in text_of_commands(page) for name in re.findall(r"^make ([a-z]+)", line)}
    assert named <= targets
    assert {"run", "test", "check"} <= named


def test_every_flag_of_a_documented_benchmark_exists() -> None:
    for page in PAGES:
        for line in text_of_commands(page):
            for name, rest in re.findall(r"python -m benchmarks\.(\w+)(.*)", line):
                source = (ROOT / "benchmarks" / f"{name}.py").read_text()
                assert all(f'"{flag}"' in source for flag in re.findall(r"(--[\w-]+)", rest)), line


# ---- the first screen, numbers, architecture, versions ----


def test_the_first_screen_shows_a_picture_two_commands_and_the_first_training() -> None:
    first = "\n".join(README.read_text().splitlines()[:45])
    trainings = [line for line in text_of_commands(README) if line.startswith("python -m src.train")]
    assert "](docs/cifar10_gpu.svg)" in first
    assert "\nmake run " in first
    assert "\nmake test " in first
    assert trainings[0] == "python -m src.train encoder=vit_t data=flowers mode=ssat"
    assert trainings[0] in first


def accuracies(mode: str) -> list[float]:
    """The test accuracies of a record, in percent with one digit."""
    phases = json.loads((RECORDS / f"{mode}.json").read_text())["phases"]
    return [round(row["test/acc1"], 1) for phase in phases for row in phase["history"] if "test/acc1" in row]


def test_the_picture_of_the_readme_is_drawn_from_the_records() -> None:
    drawn = runpy.run_path(str(RECORDS / "draw.py"))["draw"]()
    assert (DOCS / "cifar10_gpu.svg").read_text() == drawn
    assert all(f"{accuracies(mode)[-1]:.1f} %" in drawn for mode in ("scratch", "ssl_ft", "ssat"))


@pytest.mark.parametrize(("mode", "row"), [("scratch", "scratch"), ("ssl_ft", "SSL+FT"), ("ssat", "SSAT")])
def test_the_accuracies_in_the_text_are_those_of_the_records(mode: str, row: str) -> None:
    cells = re.findall(
        rf"^\| {re.escape(row)}[^|]*\|([^|]*\*\*[^|]*)\|", (DOCS / "benchmarks.md").read_text(), re.MULTILINE
    )
    assert [float(number) for number in re.findall(r"\d+\.\d", cells[0])] == accuracies(mode)
    assert f"{row} {accuracies(mode)[-1]} %" in README.read_text()


def test_the_picture_of_the_architecture_has_the_layers_in_their_order() -> None:
    layers = re.search(r"^layers = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert layers
    names = re.findall(r"\w+", layers[1])
    assert re.findall(r'class="layer"[^>]*>(\w+)<', (DOCS / "architecture.svg").read_text()) == names
    assert re.findall(r"^\| `(\w+)` \|", (DOCS / "architecture.md").read_text(), re.MULTILINE) == names


def test_the_step_of_the_architecture_page_is_the_code() -> None:
    (step,) = blocks(DOCS / "architecture.md", "python")
    assert step in textwrap.dedent(inspect.getsource(JointModule.losses)).replace("\n    ", "\n")


def test_the_newest_entry_of_the_changelog_is_this_version() -> None:
    versions = re.findall(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == ssat.__version__


# ---- docs/extend.md ----


def write(files: dict[str, str], root: Path) -> None:
    for name, code in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)


def example_commands() -> list[list[str]]:
    """The words of the page's training commands."""
    lines = "\n".join(blocks(EXTEND, "bash")).splitlines()
    return [shlex.split(line)[2:] for line in lines if line.startswith("ssat train ")]


def runs_in(folder: Path, module: str, *words: str, path: str = ".") -> dict[str, Any]:
    """Run a training command as a user would, in `folder`; returns its record."""
    result = subprocess.run(
        [sys.executable, "-m", module, *words, *QUICK, "runs_dir=runs", "experiment=x"],
        cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return only_record(folder / "runs")


def only_record(runs: Path) -> dict[str, Any]:
    (record,) = runs.glob("*/*/result.json")
    return json.loads(record.read_text())


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the user's with the files of the page, in which the test stands."""
    write(example_files(), tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    del FOLDERS[1:]
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_ssat"]:
        del sys.modules[name]


def test_there_is_a_file_for_each_part_and_a_command_for_each_file() -> None:
    configurations = [name for name in example_files() if name.endswith(".yaml")]
    assert sorted(name.split("/")[1] for name in configurations) == ["data", "encoder", "ssl"]
    words = [word for command in example_commands() for word in command]
    for name in configurations:
        _, group, option = name.removesuffix(".yaml").split("/")
        assert f"{group}={option}" in words


@pytest.mark.sampled
@pytest.mark.parametrize("command", example_commands(), ids=" ".join)
def test_a_command_of_the_page_trains_with_its_files(command: list[str], own_folder: Path) -> None:
    run = resolve(composed([*take_folders(command), *QUICK, "data.samples_per_class=4", "runs_dir=runs"]))
    train_config(run)
    record = only_record(own_folder / "runs")
    assert record["status"] == "finished"
    for override in parsed(expand_tasks(command[2:])):
        assert override.is_add() or value_in(run, override.key_or_group) == override.value()


@pytest.mark.slow
def test_the_files_of_the_page_train_in_a_folder_of_ones_own(tmp_path: Path) -> None:
    write(example_files(), tmp_path)
    words = ("--config-dir", "my_conf", "encoder=tiny_conv", "ssl=mirror", "data=quadrants", "mode=ssat")
    record = runs_in(tmp_path, "ssat.commands", "train", *words)
    assert record["config"]["encoder"]["kind"] == "my_ssat.tiny_conv:TinyConv"
    assert record["phases"][0]["history"][-1]["train/mirror_right"] >= 0


@pytest.mark.slow
def test_the_files_of_the_page_train_inside_the_repository(tmp_path: Path) -> None:
    for name in ("src", "conf", "experiments"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    files = example_files()
    for group, home in HOMES.items():
        (option,) = [name for name in files if name.startswith(f"my_conf/{group}/")]
        module = Path(option).stem
        kind = f"ssat.{home.replace('/', '.')}.{module}:"
        write({f"src/ssat/{home}/{module}.py": files[f"my_ssat/{module}.py"]}, tmp_path)
        write({option.replace("my_conf", "conf"): files[option].replace(f"my_ssat.{module}:", kind)}, tmp_path)
    words = ("encoder=tiny_conv", "ssl=mirror", "data=quadrants", "mode=ssat")
    record = runs_in(tmp_path, "src.train", *words, path=str(tmp_path / "src"))
    assert record["status"] == "finished"
    assert record["config"]["encoder"]["kind"] == "ssat.encoders.tiny_conv:TinyConv"
    assert record["config"]["ssl"]["kind"] == "ssat.tasks.mirror:Mirror"
    assert record["config"]["data"]["source"]["kind"] == "ssat.data.sets.quadrants:quadrants"


def test_the_lines_of_test_of_the_page_build_its_classes(own_folder: Path) -> None:
    lines = re.findall(r'`("[\w-]+": [^`]*by_name[^`]*),`', EXTEND.read_text())
    assert len(lines) == 2
    found = {}
    for line in lines:
        line = re.sub(r"ssat\.(encoders|tasks)\.(tiny_conv|mirror):", r"my_ssat.\2:", line)
        found |= eval(f"{{{line}}}", {"by_name": by_name, "partial": partial})
    encoder = found["tiny-conv"]()
    case, task = found["mirror"]
    assert isinstance(encoder, Encoder)
    assert case in ENCODER_CASES
    assert isinstance(task(encoder), Task)


def test_the_analysis_of_the_page_measures_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measures = example_files()["src/ssat/analysis/feature_norm.py"]
    (entry,) = [code for code in blocks(EXTEND, "python") if code.startswith("def _feature_norm")]
    scope = dict(vars(figures))
    exec(measures + entry, scope)
    monkeypatch.setitem(figures.ANALYSES, "feature_norm", scope["_feature_norm"])
    monkeypatch.setattr(analyze, "NAMES", (*analyze.NAMES, "feature_norm"))
    run = train("mode=scratch", "epochs=1", runs=tmp_path / "runs")
    console = analyze.Console(quiet=True)
    (record,) = analyze.analyze([f"runs=[{run}]", "analysis=feature_norm", "images=20", f"out={tmp_path}"], console)
    lengths = record["models"][0]["series"]["length"]["y"]
    assert len(lengths) == 20
    assert lengths == sorted(lengths)
    assert (tmp_path / "feature_norm.png").is_file()


def test_the_program_of_the_page_trains_without_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(example_files(), tmp_path)
    trained = runpy.run_path("my_training.py")
    assert trained["trainer"].global_step > 0
    assert 0 <= trained["result"]["test/acc1"] <= 100


@pytest.mark.parametrize("contract", [Encoder, Task])
def test_the_page_names_every_attribute_of_a_contract(contract: type) -> None:
    attributes = [name for name in contract.__annotations__ if not name.startswith("_")]
    assert attributes
    assert [name for name in attributes if name not in EXTEND.read_text()] == []
