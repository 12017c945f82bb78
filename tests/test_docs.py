"""Every training command of the documentation composes to a configuration that passes the checks."""

import re

import pytest
from hydra import compose, initialize_config_dir

from src.cli import CONF, expand_tasks
from src.config import check, resolve

PAGES = [CONF.parent / "README.md", *sorted((CONF.parent / "docs").glob("*.md"))]
FILES = [*sorted(CONF.glob("*/*.yaml")), *sorted((CONF.parent / "experiments").glob("*.yaml"))]


def commands() -> list[str]:
    found = []
    for path in [*PAGES, *FILES]:
        text = path.read_text().replace("\\\n", " ")
        if path.suffix == ".yaml":
            text = "\n".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
        found += [line.split("#")[0].strip() for line in text.splitlines() if line.startswith("python -m src.train ")]
    return list(dict.fromkeys(found))


def first_choice(word: str) -> str:
    """Of a sweep's a=1,2 the first; a placeholder such as <its run> becomes a name."""
    key, equals, value = re.sub(r"<[^>]*>", "given", word).partition("=")
    return key + equals + (value if value.startswith(("[", "{")) else value.split(",")[0])


@pytest.mark.parametrize("command", commands())
def test_command_composes(command):
    words = re.sub(r"<[^>]*>", "given", command.removeprefix("python -m src.train ")).split()
    words = [first_choice(word) for word in expand_tasks([word for word in words if word != "-m"])]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        check(resolve(compose("train", overrides=words)))


def test_there_are_commands():
    assert len(commands()) > 20
