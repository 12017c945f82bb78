"""Build the Weights & Biases dashboard of all runs: python -m src.dashboard [project=ssat entity=...] [apply=FILE]"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from src.cli import fail
from src.config import nearest
from src.errors import UserError
from src.results.dashboard import specification, to_report, validate
from src.results.record import write_text

USAGE = """\
python -m src.dashboard [project=<project>] [entity=<user or team>] [out=<file.json>]
python -m src.dashboard apply=<file.json> [project=...] [entity=...]
python -m src.dashboard sweep=<file.yaml>

Writes the specification of a W&B report (modes, footprint, lambda, decoder, few labels, losses, reconstructions) to a
file and creates the report from it; without a key or a network it says how to do that later. The second form creates
the report from a file, which may have been edited; a file whose report exists updates that one. The third form prints
the command that runs the grid of a W&B sweep file with Hydra, without W&B's service.

  project=ssat              the project of logger.project
  entity=                   your user or team; default: the account's
  out=runs/dashboard.json   the specification
  apply=<file.json>         use this specification instead of writing one
  sweep=<file.yaml>         a W&B sweep file such as experiments/wandb_sweep.yaml
  --help                    this text
"""
KEYS = ("project", "entity", "out", "apply", "sweep")
VALUES = {"out": "file.json", "apply": "file.json", "sweep": "file.yaml"}
SECONDS = 20  # to wait for the service


class Unreachable(Exception):
    """W&B cannot be used now: no key, no network, or the package is missing."""


def parse(words: list[str]) -> dict[str, str]:
    """The command line as {'project': ..., '--help': ''}.

    Raises:
        UserError: an unknown word, or a key without a value.
    """
    options: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key in ("--help", "-h") and not equals:
            options["--help"] = ""
        elif key not in KEYS:
            raise UserError(f"there is no option {word!r}{nearest(key, [*KEYS, '--help'])}")
        elif not value:
            raise UserError(f"{key} needs a value: {key}=<{VALUES.get(key, key)}>")
        else:
            options[key] = value
    if "apply" in options and "out" in options:
        raise UserError("out= and apply= exclude each other: apply=<file.json> reads a specification, out= writes one")
    return options


def read(path: Path) -> dict[str, Any]:
    """The specification in `path`.

    Raises:
        UserError: it cannot be read or is none.
    """
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"apply={path} cannot be read ({error.strerror}): python -m src.dashboard writes one"
        ) from error
    except ValueError as error:
        raise UserError(f"apply={path} is not JSON ({error})") from error
    return validate(spec, str(path))


def write(path: Path, spec: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(spec, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; name another file with out=<file.json>") from error


def hydra_command(path: Path) -> str:
    """The command that runs the grid of the W&B sweep file `path` as a Hydra sweep.

    Raises:
        UserError: no sweep file, or one whose parameters are not lists of plain values.
    """
    try:
        sweep: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        words = [word for word in sweep["command"] if "=" in word]
        grid = {key: entry.get("values", [entry.get("value")]) for key, entry in sweep["parameters"].items()}
    except OSError as error:
        raise UserError(f"sweep={path} cannot be read ({error.strerror})") from error
    except (KeyError, TypeError, AttributeError, YAMLError) as error:
        raise UserError(
            f"sweep={path} is no sweep file: it needs command and parameters, as W&B defines them"
        ) from error
    for key, values in grid.items():
        if not values or any(not isinstance(value, (str, int, float)) for value in values):
            raise UserError(
                f"sweep={path}: parameter {key} needs value or values, plain ones: a distribution is no grid"
            )
    words += [f"{key}={','.join(str(value) for value in values)}" for key, values in grid.items()]
    return shlex.join(["python", "-m", "src.train", "-m", *words])


def connect() -> Any:
    """The W&B interface of the account.

    Raises:
        Unreachable: says why.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_HTTP_TIMEOUT", str(SECONDS))
    try:
        import wandb_workspaces.reports.v2  # noqa: F401
    except ImportError as error:
        raise Unreachable("the package wandb-workspaces is not installed (pip install wandb-workspaces)") from error
    import wandb

    if os.environ.get("WANDB_MODE") in ("offline", "dryrun", "disabled"):
        raise Unreachable(f"WANDB_MODE={os.environ['WANDB_MODE']}")
    wandb.setup(wandb.Settings(silent=True))
    try:
        if not wandb.login(prompt=False, verify=True):
            raise Unreachable("no W&B key found (wandb login)")
        return wandb.Api(timeout=SECONDS)
    except (wandb.Error, OSError) as error:
        raise Unreachable(f"W&B refuses the key or cannot be reached ({' '.join(str(error).split())[:200]})") from error


def apply(spec: dict[str, Any]) -> str:
    """Create the report on W&B, or update the one at `spec['url']`; returns its address.

    Raises:
        Unreachable: no key or no network.
        UserError: W&B does not understand the specification.
    """
    api = connect()
    import wandb_workspaces.reports.v2 as wr

    with answered():
        entity = spec["entity"] or api.default_entity
        existing = wr.Report.from_url(spec["url"]) if spec.get("url") else None
    report = to_report(spec, entity=entity, report=existing)
    with answered():
        report.save()
        return report.url


@contextmanager
def answered() -> Iterator[None]:
    """Around calls of the service, which fail with exceptions of several libraries.

    Raises:
        Unreachable: with the reason that W&B gives.
    """
    try:
        yield
    except Exception as error:
        raise Unreachable(f"W&B did not take the report ({' '.join(str(error).split())[:200]})") from error


def dashboard(words: list[str]) -> None:
    """Write or read the specification, then create the report from it if that is possible."""
    options = parse(words)
    if "--help" in options:
        print(USAGE, end="")
        return
    if "sweep" in options:
        print(hydra_command(Path(options["sweep"])))
        return
    chosen = {key: options[key] for key in ("project", "entity") if key in options}
    path = Path(options.get("apply", options.get("out", "runs/dashboard.json")))
    if "apply" in options:
        spec = read(path) | chosen
    else:
        spec = specification(options.get("project", "ssat"), options.get("entity"))
        write(path, spec)
        print(f"wrote {path}")
    try:
        spec["url"] = apply(spec)
    except Unreachable as error:
        if "apply" in options:
            raise UserError(f"{error}: {path} is unchanged, repeat this command once that is mended") from error
        print(f"no report yet, {error}: create it later with python -m src.dashboard apply={path}")
        return
    write(path, spec)
    print(f"report: {spec['url']}")


def main() -> None:
    try:
        dashboard(sys.argv[1:])
    except UserError as error:
        fail(str(error))


if __name__ == "__main__":
    main()
