"""A run folder is data: whatever it says, nothing is imported or called by a path, and one sentence says so."""

from __future__ import annotations

import copy
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

import ssat
from ssat.commands.analyze import analyze
from ssat.commands.embed.command import embed
from ssat.commands.evaluate import evaluate
from ssat.commands.export import export
from ssat.commands.predict.command import predict
from ssat.core import read
from ssat.core.errors import UserError
from ssat.core.read import DEEPEST, read_json
from ssat.runs.record import read_records
from ssat.runs.saved import saved_configuration, stored_configuration
from ssat.training.build import build_encoder
from tests.helpers import TINY, config, train

CANARY = "stranger_canary"  # a module on the path whose import, and whose every call, leaves a file
TARGETS = (
    *("numpy.testing.measure", "torch.load", "joblib.load", "shutil.copyfile", "pathlib.Path.write_text", "os.system"),
    *("subprocess.Popen", "subprocess.check_output", "builtins.eval", "builtins.exec", "builtins.open", "os.popen"),
    *("os.execv", "os.remove", "os.rename", "os.putenv", "shutil.rmtree", "shutil.move", "pathlib.Path.unlink"),
    *("pickle.loads", "pickle.load", "marshal.loads", "importlib.import_module", "runpy.run_path", "code.interact"),
    *("ctypes.CDLL", "ctypes.cdll.LoadLibrary", "webbrowser.open", "urllib.request.urlretrieve", "socket.socket"),
    *("tempfile.mkstemp", "tarfile.open", "zipfile.ZipFile", "numpy.load", "numpy.save", "numpy.fromfile"),
    *("torch.hub.load", "torch.save", "torch.utils.cpp_extension.load", "pandas.read_pickle", "yaml.unsafe_load"),
    *("hydra.utils.instantiate", "hydra.utils.call", "functools.partial", "operator.attrgetter", "atexit.register"),
    *("threading.Timer", "multiprocessing.Process", "pty.spawn", "timeit.timeit", "cProfile.run", "pdb.run"),
    *(f"{CANARY}.run", f"{CANARY}:Run"),
)
CALL = {"_args_": ["touch called"], "cmd": "touch called", "args": ["touch", "called"]}
PLACES: dict[str, Callable[[dict[str, Any], str], Any]] = {
    "root": lambda c, t: c.update(_target_=t, **CALL),
    "encoder": lambda c, t: c["encoder"].update(_target_=t, **CALL),
    "encoder.depth": lambda c, t: c["encoder"].update(depth={"_target_": t, **CALL}),
    "encoder.pretrained": lambda c, t: c["encoder"].update(pretrained={"_target_": t, **CALL}),
    "encoder.kind": lambda c, t: c["encoder"].update(kind=t.replace(".", ":", 1)),
    "data": lambda c, t: c["data"].update(_target_=t, **CALL),
    "data.source": lambda c, t: c["data"]["source"].update(_target_=t),
    "data.source.kind": lambda c, t: c["data"]["source"].update(kind=":".join(t.rsplit(".", 1))),
    "data.root": lambda c, t: c["data"].update(root={"_target_": t, **CALL}),
    "ssl": lambda c, t: c["ssl"].update(_target_=t, **CALL),
    "ssl.kind": lambda c, t: c["ssl"].update(kind=":".join(t.rsplit(".", 1))),
    "mode": lambda c, t: c["mode"].update(_target_=t),
    "phase": lambda c, t: c["mode"]["phases"][0].update(_target_=t),
    "phase.epochs": lambda c, t: c["mode"]["phases"][0].update(epochs={"_target_": t, **CALL}),
    "recipe": lambda c, t: c["recipe"].update(_target_=t),
    "recipe.augment": lambda c, t: c["recipe"].update(augment={"_target_": t, **CALL}),
    "trainer": lambda c, t: c["trainer"].update(strategy={"_target_": t, **CALL}),
    "monitor": lambda c, t: c["monitor"].update(_target_=t),
    "callbacks": lambda c, t: c.update(callbacks=[{"_target_": t, **CALL}]),
    "callbacks.kind": lambda c, t: c.update(callbacks=[{"kind": ":".join(t.rsplit(".", 1))}]),
    "logger": lambda c, t: c.update(logger={"_target_": t, **CALL}),
    "launcher": lambda c, t: c.update(launcher={"_target_": t, **CALL}),
}
TAGS = (
    *("!!python/object/apply:os.system ['touch called']", "!!python/object/new:os.system ['touch called']"),
    *("!!python/name:os.system", f"!!python/module:{CANARY}", f"!!python/object:{CANARY}.Run {{}}"),
    *("!!python/object/apply:subprocess.Popen [['touch', 'called']]", "!!python/tuple [1]", "!run x", "!!binary aGk="),
)
Command = Callable[[Path], object]


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


COMMANDS: dict[str, Command] = {
    "evaluate": lambda run: evaluate([f"run={run}"], console()),
    "predict": lambda run: predict([f"run={run}", f"input={run / 'a.png'}", f"out={run / 'o'}"], console()),
    "export": lambda run: export([f"run={run}", f"out={run / 'e'}"], console()),
    "embed": lambda run: embed([f"run={run}"], console()),
    "analyze": lambda run: analyze([f"runs=[{run}]"], console()),
    "load": ssat.load,  # and the demo
    "resume": lambda run: train(f"run_dir={run}", runs=run.parent),
    "init_from": lambda run: train("mode=finetune", f"mode.init_from={run}", f"run_dir={run.parent / 'n'}", runs=run),
}


@pytest.fixture(scope="module")
def text() -> str:
    return yaml.safe_dump(values())


def values() -> dict[str, Any]:
    """The configuration that a run writes."""
    return copy.deepcopy(dict(config(*TINY, "mode=ssl_ft").values))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Of a run, in a place that is searched for modules and that every call would write to."""
    (tmp_path / f"{CANARY}.py").write_text(
        "from pathlib import Path\nPath('called').touch()\ndef run(*a, **k): pass\nclass Run: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    (tmp_path / "run/finetune/checkpoints").mkdir(parents=True)
    yield tmp_path / "run"
    assert not (tmp_path / "called").exists() and CANARY not in sys.modules
    assert not (set(sys.modules) - before) & {target.partition(".")[0] for target in TARGETS}


def refusal(command: Callable[..., object], *words: object) -> str:
    with pytest.raises(UserError) as caught:
        command(*words)
    said = str(caught.value)
    assert said and "\n" not in said
    return said


@pytest.mark.sampled
@pytest.mark.parametrize("place", PLACES)
def test_no_path_in_a_configuration_is_imported_or_called(folder: Path, place: str) -> None:
    sound = values()
    for target in TARGETS[[*PLACES].index(place) % 6 :: 6] + TARGETS[-2:]:
        changed = copy.deepcopy(sound)
        PLACES[place](changed, target)
        if place.startswith("callbacks"):  # who only reads a run makes none
            stored_configuration(changed, "config.yaml")
        elif place == "encoder.depth":  # an argument is looked at by its class
            run = stored_configuration(changed, "config.yaml")
            refusal(build_encoder, run, run.mode.phases[-1])
        else:
            refusal(stored_configuration, changed, "config.yaml")


@pytest.mark.sampled
@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_imports_or_calls_what_a_run_folder_names(folder: Path, text: str, name: str) -> None:
    named = yaml.safe_load(text)
    named["encoder"]["kind"] = f"{CANARY}:Run"
    for content in (yaml.safe_dump(named), f"{text}canary: !!python/name:{CANARY}.run\n"):
        (folder / "config.yaml").write_text(content)
        refusal(COMMANDS[name], folder)


def test_a_training_does_not_make_the_callbacks_of_a_folder(folder: Path, text: str) -> None:
    (folder / "config.yaml").write_text(text.replace("callbacks: []", f"callbacks: [{{kind: '{CANARY}:Run'}}]"))
    assert CANARY in (folder / "config.yaml").read_text()
    refusal(COMMANDS["resume"], folder)


@pytest.mark.parametrize("tag", TAGS)
def test_tags_are_not_read(folder: Path, text: str, tag: str) -> None:
    (folder / "config.yaml").write_text(f"{text}extra: {tag}\n")
    assert "is missing or damaged" in refusal(saved_configuration, folder, [])


SIZES = {
    "many values": lambda text: text + "extra: [" + "1," * 60_000 + "]\n",
    "long": lambda text: text + f"extra: {'x' * 300_000}\n",
    "deep": lambda text: text + f"extra: {'[' * 990}{']' * 990}\n",
    "list as a key": lambda text: text + "? [a]\n: b\n",
    "bytes": lambda text: "\udcff",
}


@pytest.mark.parametrize("name", SIZES)
def test_a_configuration_beyond_all_bounds_is_not_read(folder: Path, text: str, name: str) -> None:
    (folder / "config.yaml").write_bytes(SIZES[name](text).encode(errors="surrogateescape"))
    assert "is missing or damaged" in refusal(saved_configuration, folder, [])


GROUPS = ("encoder", "data", "ssl", "mode", "recipe", "trainer", "monitor", "logger", "launcher", "footprint")
ODD: tuple[Any, ...] = (None, 3, "x", [], [1], {"a": None}, True)


@pytest.mark.sampled
@pytest.mark.parametrize("key", [*GROUPS, "data.source", "mode.phases", "seed", "callbacks", "epochs"])
def test_a_group_that_is_missing_or_of_another_type_is_named(key: str) -> None:
    sound = values()
    for value in (..., *ODD):
        changed = copy.deepcopy(sound)
        holder = changed[key.partition(".")[0]] if "." in key else changed
        if value is ...:
            del holder[key.rpartition(".")[2]]
        else:
            holder[key.rpartition(".")[2]] = value
        with suppress(UserError):  # some have a default, or take the value
            stored_configuration(changed, "config.yaml")


# --- JSON and NumPy files


def test_json_is_read_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    for levels, reads in ((DEEPEST, True), (DEEPEST + 2, False), (990, False), (100_000, False)):
        path.write_text("[" * levels + "]" * levels)
        if reads:
            read_json(path)
            continue
        with pytest.raises(ValueError, match="nested too deep"):
            read_json(path)
    monkeypatch.setattr(read, "MOST_VALUES", 100)
    path.write_text(f"[{','.join(['[]'] * 100)}]")
    with pytest.raises(ValueError, match="more than 100 lists"):
        read_json(path)
    with pytest.raises(ValueError, match="more than 99 bytes"):
        read.read_text(path, 99)


def test_a_record_that_is_nested_deep_is_named(tmp_path: Path) -> None:
    path = tmp_path / "g/run/result.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"a":' * 990 + "1" + "}" * 990)
    assert read_records(tmp_path) == ([], [f"{path}: damaged, nested too deep"])


def test_arrays_are_unpacked_within_a_bound(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(10_000_000, np.uint8), b=np.arange(3))
    assert read.read_arrays(tmp_path / "a.npz", ["b"])["b"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="unpacks to 10,000,"):
        read.read_arrays(tmp_path / "a.npz", most=1_000_000)
    with pytest.raises(ValueError, match="c is not"):
        read.read_arrays(tmp_path / "a.npz", ["c"])


def test_a_file_of_the_users_own_that_grows_is_refused(tmp_path: Path) -> None:
    layers = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    layers += [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in pairwise("abcdefghij")]
    for text in ("\n".join(layers), "a: &a [*a]"):
        (tmp_path / "a.yaml").write_text(text)
        with pytest.raises(read.Endless, match="refers to itself, or is too large"):
            read.read_yaml(tmp_path / "a.yaml")
