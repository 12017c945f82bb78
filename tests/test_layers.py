"""Dependencies flow one way: what a package needs to be imported, found by following its imports."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"


def imported(module: str) -> set[str]:
    """What the module's file imports when it is imported itself, not what its functions import later."""
    path = SOURCE / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = {f"{node.module}.{name.name}" for name in node.names}
            found |= {node.module} | {part for part in parts if is_ours(part)}
    return found


def is_ours(module: str) -> bool:
    path = SOURCE / module.replace(".", "/")
    return module.startswith("ssat.") and (path.is_dir() or path.with_suffix(".py").is_file())


def needed(package: str) -> dict[str, str]:
    """Every module that importing the package's modules imports in turn, with one that imports it."""
    folder = SOURCE / package.replace(".", "/")
    waiting = [".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in folder.rglob("*.py")]
    waiting = [module.removesuffix(".__init__") for module in waiting]
    seen = dict.fromkeys(waiting, package)
    while waiting:
        module = waiting.pop()
        for name in imported(module):
            if name in seen:
                continue
            seen[name] = module
            if is_ours(name):
                waiting.append(name)
    return seen


@pytest.mark.parametrize("package", ["ssat.encoders", "ssat.tasks"])
def test_encoders_and_tasks_need_no_framework_configuration_training_or_data(package):
    forbidden = ("hydra", "omegaconf", "lightning", "wandb", "ssat.config", "ssat.training", "ssat.data")
    found = needed(package)
    assert "torch" in found
    assert {name: by for name, by in found.items() if name.startswith(forbidden)} == {}


def test_data_need_no_encoders_and_no_tasks():
    found = needed("ssat.data")
    assert {name: by for name, by in found.items() if name.startswith(("ssat.encoders", "ssat.tasks"))} == {}
