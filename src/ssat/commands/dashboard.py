"""Build the Weights & Biases dashboard of all runs: python -m src.dashboard [project=ssat entity=...] [apply=FILE]"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from ssat.config.command_line import run_words
from ssat.config.words import command_line
from ssat.core.errors import UserError
from ssat.core.files import write_text
from ssat.core.read import read_json, read_yaml
from ssat.core.terminal import tell
from ssat.core.words import nearest
from ssat.tracking.dashboard import digest, sealed, specification, to_report, validate
from ssat.tracking.service import end_service

USAGE = """\
python -m src.dashboard [project=<project>] [entity=<user or team>] [out=<file.json>] [force=true]
python -m src.dashboard apply=<file.json> [project=...] [entity=...]
python -m src.dashboard sweep=<file.yaml>

Writes the specification of a W&B report (modes, footprint, lambda, decoder, few labels, losses, reconstructions) to a
file and creates the report from it, or updates the one that the file names; without a key or a network it says how to
do that later. The second form creates or updates the report from a file, which may have been edited. The third form
prints the command that runs the grid of a W&B sweep file with Hydra, without W&B's service.

  project=ssat              the project of logger.project
  entity=                   your user or team; default: the account's
  out=runs/dashboard.json   the specification; one that was edited is not overwritten ...
  force=false               ... unless this is true
  apply=<file.json>         use this specification instead of writing one
  sweep=<file.yaml>         a W&B sweep file such as experiments/wandb_sweep.yaml
  --help                    this text
"""
SECONDS = 20  # to wait for the service


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    project: str | None = None
    entity: str | None = None
    out: Path | None = None
    force: bool = False
    apply: Path | None = None
    sweep: Path | None = None


VALUES = {
    "project": "project",
    "entity": "entity",
    "out": "file.json",
    "force": "true or false",
    "apply": "file.json",
    "sweep": "file.yaml",
}


class Unreachable(Exception):
    """W&B cannot be used now: no key, no network, or the package is missing."""


def parse(words: list[str]) -> Options:
    """The command line's key=value words.

    Raises:
        UserError: an unknown word, a key without a value, or keys that exclude each other.
    """
    given: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in VALUES:
            raise UserError(f"there is no option {word!r}{nearest(key, [*VALUES, '--help'])}")
        if not value:
            raise UserError(f"{key} needs a value: {key}=<{VALUES[key]}>")
        given[key] = value
    for key in ("out", "force"):
        if "apply" in given and key in given:
            raise UserError(
                f"{key}= and apply= exclude each other: apply=<file.json> reads what out=<file.json> writes"
            )
    force = given.get("force", "false")
    if force not in ("true", "false"):
        raise UserError(f"force={force} is not one of true, false")
    paths = {key: Path(given[key]) for key in ("out", "apply", "sweep") if key in given}
    return Options(given.get("project"), given.get("entity"), force=force == "true", **paths)


def read(path: Path) -> dict[str, Any]:
    """The specification in `path`.

    Raises:
        UserError: it cannot be read or is none.
    """
    try:
        spec = read_json(path)
    except OSError as error:
        raise UserError(
            f"apply={path} cannot be read ({error.strerror}): python -m src.dashboard out=<file.json> writes one"
        ) from error
    except ValueError as error:
        raise UserError(
            f"apply={path} is not JSON ({error}): python -m src.dashboard out=<file.json> writes one"
        ) from error
    return validate(spec, str(path))


def built(options: Options, path: Path) -> dict[str, Any]:
    """A new specification for `path`, with entity and address of the report that the old one there has.

    Raises:
        UserError: the old one was edited or is of another project, or the file is none of ours; force=true replaces it.
    """
    new = specification(options.project or "ssat", options.entity)
    if not os.path.lexists(path):
        return new
    try:
        old = read(path)
    except UserError as error:
        if options.force and path.is_file():
            return new
        raise UserError(
            f"out={path} is there and is no dashboard of this version: name another file, or force=true to overwrite it"
        ) from error
    if old.get("url") and old["project"] == new["project"] and options.entity in (None, old.get("entity")):
        new = sealed(new | {"entity": old.get("entity"), "url": old["url"]})
    elif old.get("url") and not options.force:
        raise UserError(
            f"out={path} has the report of project={old['project']} entity={old.get('entity')}: name another file with"
            " out=<file.json>, or force=true forgets that report"
        )
    if digest(old) not in (old.get("built"), digest(new)) and not options.force:
        raise UserError(
            f"out={path} was edited since it was written: apply={path} uses it as it is, out=<file.json> writes another"
            " file, force=true overwrites it"
        )
    return new


def write(path: Path, spec: dict[str, Any]) -> None:
    """Write the specification to `path`.

    Raises:
        UserError: the file cannot be written.
    """
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
        sweep: Any = read_yaml(path)
        words = [word for word in sweep["command"] if "=" in word]
        grid = {key: entry.get("values", [entry.get("value")]) for key, entry in sweep["parameters"].items()}
    except OSError as error:
        raise UserError(f"sweep={path} cannot be read ({error.strerror}): name a W&B sweep file") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"sweep={path} is no sweep file: it needs command and parameters, as W&B defines them"
        ) from error
    if sweep.get("method", "grid") != "grid":
        raise UserError(
            f"sweep={path} has method: {sweep['method']}, and a local sweep runs every combination: set method: grid"
        )
    for key, values in grid.items():
        if not isinstance(values, list) or not values or not all(is_plain(value) for value in values):
            raise UserError(
                f"sweep={path}: parameter {key} needs value or values, plain ones: no distribution and no ${{...}}"
            )
        words.append(f"{key}={','.join(hydra_value(key, str(value)) for value in values)}")
    return command_line("train", ["-m", *words])


def is_plain(value: Any) -> bool:
    """Whether a value is the same wherever it is read: no list, and no interpolation of Hydra's."""
    return isinstance(value, (str, int, float)) and "${" not in str(value)


def hydra_value(key: str, text: str) -> str:
    """`text` as one value of Hydra's, in quotes where Hydra would read several or none."""
    try:
        several = OverridesParser.create().parse_override(f"{key}={text}").is_sweep_override()
    except HydraException:
        several = True
    return QuotedString(text, Quote.single).with_quotes() if several else text


def connect() -> Any:
    """The W&B interface of the account.

    Raises:
        Unreachable: says why.
    """
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
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_HTTP_TIMEOUT", str(SECONDS))
    try:
        import wandb_workspaces.reports.v2 as wr
    except ImportError as error:
        raise Unreachable("the package wandb-workspaces is not installed (pip install wandb-workspaces)") from error
    to_report(spec, entity=spec.get("entity") or "")  # a mistake in it is named without a network too
    try:
        api = connect()
        with answered():
            entity = spec.get("entity") or api.default_entity
            existing = wr.Report.from_url(spec["url"]) if spec.get("url") else None
        report = to_report(spec, entity=entity, report=existing)
        with answered():
            report.save()
            return report.url
    finally:
        end_service()  # at its exit Python would wait for it, for ever where it waits for an answer


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
    if options.sweep:
        tell(hydra_command(options.sweep))
        return
    path = options.apply or options.out or Path("runs/dashboard.json")
    if options.apply:
        spec = given_to(read(path), options)
    else:
        spec = built(options, path)
        write(path, spec)
        tell(f"wrote {path}")
    try:
        spec["url"] = apply(spec)
    except Unreachable as error:
        if options.apply:
            raise UserError(f"{error}: {path} is unchanged, repeat this command once that is mended") from error
        tell(f"no report yet, {error}: create it later with {command_line('dashboard', [f'apply={path}'])}")
        return
    write(path, spec)
    tell(f"report: {spec['url']}")


def given_to(old: dict[str, Any], options: Options) -> dict[str, Any]:
    """The specification `old` with project and entity of the command line, which are no edit of the user's."""
    chosen = {"project": options.project, "entity": options.entity}
    spec = old | {key: value for key, value in chosen.items() if value}
    return sealed(spec) if old.get("built") == digest(old) else spec


def main() -> None:
    """`python -m src.dashboard`."""
    run_words(dashboard, USAGE, interrupted="repeat the command")
