"""The W&B dashboard as data, as a report of wandb-workspaces, and as the command; the sweep file."""

import itertools
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import wandb
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from ssat.commands.dashboard import dashboard, hydra_command, main, parse, read
from ssat.config.identity import config_hash
from ssat.config.resolve import resolve
from ssat.config.schema import Run
from ssat.config.words import CONF
from ssat.core.errors import UserError
from ssat.tracking.dashboard import sealed, specification, to_report, validate
from ssat.tracking.names import figures
from tests.results.records import make_record
from tests.tracking.wandb_files import KEY, Service

ROOT = Path(__file__).resolve().parents[2]
SWEEP = ROOT / "experiments" / "wandb_sweep.yaml"


def sections(spec: dict) -> dict[str, dict]:
    return {section["title"]: section for section in spec["sections"]}


def command(*words: str, **env: str) -> subprocess.CompletedProcess:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    kept |= {"WANDB_ERROR_REPORTING": "false", "WANDB_HTTP_TIMEOUT": "3", "NETRC": "/nonexistent"}
    return subprocess.run(
        [sys.executable, "-m", "src.dashboard", *words],
        cwd=ROOT,
        env=kept | env,
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_every_comparison_has_its_section():
    titles = sections(specification("ssat", None)).keys()
    for part in ("Modes", "Lambda", "Table 10", "Table 11", "Table 12", "labels", "Footprint", "Losses", "Reconstruct"):
        assert any(part in title for title in titles), part


def test_panels_read_only_what_runs_record():
    spec = specification("ssat", None)
    recorded = figures(make_record()).keys() | {"result/acc1"}
    for section in spec["sections"]:
        for panel in section["panels"]:
            named = [panel.get("x"), panel.get("y"), *panel.get("metrics", []), *panel.get("columns", [])]
            for name in named:
                if isinstance(name, str) and name.startswith("result/"):
                    assert name in recorded, name


def test_figures_are_the_records_and_leave_out_what_is_missing():
    record = make_record(accuracy=81.5)
    found = figures(record)
    assert (found["result/acc1"], found["result/acc1_best"]) == (81.5, 82.0)
    assert found["result/hours"] == pytest.approx(record["seconds"] / 3600)
    assert found["result/params_inference"] == 449_866
    assert found["result/faithful"] is False
    assert found["result/unfaithful_reasons"] == "digits is not one of the paper's data sets"
    assert "result/acc5_last" not in found
    record["metrics"]["test"] |= {"auc": {"last": 0.9}, "balanced_acc": {"last": 61.5}}
    assert {"result/auc_last": 0.9, "result/balanced_acc_last": 61.5}.items() <= figures(record).items()


@pytest.fixture(scope="module")
def written() -> dict:
    """The report's own specification, as it would be sent, by section title."""
    pytest.importorskip("wandb_workspaces", reason="needs wandb-workspaces (extra dashboard)")
    model = to_report(validate(specification("ssat", None), "spec"), entity="me")._to_model()
    blocks = json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True))["blocks"]
    titles = [block["children"][0]["text"] for block in blocks if block["type"] == "heading"]
    grids = [block["metadata"] for block in blocks if block["type"] == "panel-grid"]
    return dict(zip(titles, grids, strict=True))


def test_wandb_understands_filters_groups_and_axes(written):
    (runs,) = written["Decoder depth (Table 10)"]["runSets"]
    filters = [(entry["key"]["name"], entry["op"], entry["value"]) for entry in runs["filters"]["filters"]]
    assert filters == [("tags", "IN", ["result"]), ("group", "=", "table10")]
    assert {"section": "config", "name": "decoder_depth.value"} in runs["grouping"]
    panels = written["Decoder depth (Table 10)"]["panelBankSectionConfig"]["panels"]
    (scatter,) = [panel["config"] for panel in panels if panel["viewType"] == "Scatter Plot"]
    assert (scatter["xAxis"], scatter["yAxis"]) == ("config:decoder_depth.value", "summary:result/acc1")


def test_experiments_are_groups(written):
    (runs,) = written["Modes: scratch, SSL+FT, SSAT"]["runSets"]
    assert runs["grouping"][0] == {"section": "run", "name": "group"}


def test_pictures_are_the_ones_that_runs_log(written):
    (panel,) = written["Reconstructions"]["panelBankSectionConfig"]["panels"]
    assert panel["config"]["mediaKeys"] == ["reconstructions"]


def test_a_filter_that_wandb_does_not_understand_is_named():
    pytest.importorskip("wandb_workspaces", reason="needs wandb-workspaces (extra dashboard)")
    spec = specification("ssat", None)
    spec["sections"][0]["runs"]["filters"] = "Config('lam' = 3"
    with pytest.raises(UserError, match="section 'Modes: scratch, SSL\\+FT, SSAT' is not understood"):
        to_report(spec, entity="me")


@pytest.mark.slow
def test_without_a_key_the_command_writes_the_file_and_says_how_to_apply_it(tmp_path):
    out = tmp_path / "deep" / "dashboard.json"
    done = command(f"out={out}", "project=mine", "entity=team")
    assert done.returncode == 0 and done.stderr == ""
    wrote, hint = done.stdout.splitlines()
    assert wrote == f"wrote {out}"
    assert hint == (
        f"no report yet, no W&B key found (wandb login): create it later with python -m src.dashboard apply={out}"
    )
    spec = read(out)
    assert (spec["project"], spec["entity"], spec["url"]) == ("mine", "team", None)


@pytest.mark.slow
def test_without_a_network_apply_is_one_sentence_and_changes_nothing(tmp_path):
    out = tmp_path / "dashboard.json"
    out.write_text(json.dumps(specification("ssat", None)))
    before = out.read_bytes()
    done = command(f"apply={out}", WANDB_BASE_URL="http://127.0.0.1:9", WANDB_API_KEY=KEY)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: W&B refuses the key or cannot be reached") and out.read_bytes() == before


@pytest.mark.slow
def test_apply_sends_every_section_to_the_service(tmp_path):
    pytest.importorskip("wandb_workspaces", reason="needs wandb-workspaces (extra dashboard)")
    service = Service()
    out = tmp_path / "dashboard.json"
    done = command(f"out={out}", "entity=me", WANDB_BASE_URL=service.url, WANDB_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    (sent, *_) = [given for name, given in service.queries if name == "upsertView"]
    assert (sent["entityName"], sent["projectName"]) == ("me", "ssat")
    blocks = json.loads(sent["spec"])["blocks"]
    assert len([block for block in blocks if block["type"] == "panel-grid"]) == len(read(out)["sections"])
    assert read(out)["url"] in done.stdout
    again = command(f"apply={out}", WANDB_BASE_URL=service.url, WANDB_API_KEY=KEY)
    assert again.returncode == 0, again.stderr
    first, second = [given for name, given in service.queries if name == "upsertView"]
    assert first.get("id") is None and second["id"] == service.view["id"]  # updated, not made anew
    assert len(json.loads(second["spec"])["blocks"]) == len(json.loads(first["spec"])["blocks"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["projct=x"], "there is no option 'projct=x' (did you mean project?)"),
        (["out="], "out needs a value: out=<file.json>"),
        (["apply=a", "out=b"], "exclude each other"),
        (["apply=a", "force=true"], "exclude each other"),
        (["force=yes"], "force=yes is not one of true, false"),
    ],
)
def test_wrong_words_are_answered(words, sentence):
    with pytest.raises(UserError) as caught:
        parse(words)
    assert sentence in str(caught.value)


def test_help_needs_nothing():
    done = command("--help")
    assert done.returncode == 0 and "apply=<file.json>" in done.stdout


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a dashboard of this version"),
        ('{"schema": 1, "project": "", "title": "x", "sections": []}', "has no project"),
        ('{"schema": 1, "project": "p", "title": "x", "sections": [{}]}', "section 1 needs title, runs and panels"),
        ('{"schema": 1, "project": "p", "title": "x", "sections": [], "url": 3}', "url=3: it must be text or null"),
        (100_000 * "[", "is not JSON"),
    ],
)
def test_a_damaged_specification_is_named(tmp_path, text, sentence):
    path = tmp_path / "spec.json"
    path.write_text(text)
    with pytest.raises(UserError, match=sentence):
        read(path)


def test_an_unknown_panel_or_key_is_named():
    spec = specification("ssat", None)
    spec["sections"][1]["panels"][0]["kind"] = "pie"
    with pytest.raises(UserError, match="section 2: a panel of kind 'pie' does not exist; there are line, bar"):
        validate(spec, "x.json")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"panels": None}, "section 1: panels is no list"),
        ({"panels": [{"kind": ["line"]}]}, r"section 1: a panel of kind \['line'\] does not exist"),
        ({"panels": [{"kind": "line", "title": "x", "x": "epoch"}]}, "section 1: a panel of kind line needs y"),
        ({"panels": [{"kind": "line", "title": "", "x": "", "y": [], "z": 1}]}, "a panel of kind line has no z"),
        ({"runs": None}, "section 1: runs needs name, filters and groupby"),
    ],
)
def test_a_section_that_cannot_be_drawn_is_named(change, sentence):
    spec = specification("ssat", None)
    spec["sections"][0] |= change
    with pytest.raises(UserError, match=sentence):
        validate(spec, "x.json")


def test_without_a_network_apply_names_what_wandb_would_refuse(tmp_path, monkeypatch):
    pytest.importorskip("wandb_workspaces", reason="needs wandb-workspaces (extra dashboard)")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")  # the command would leave them to later tests
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "3")
    spec = specification("ssat", None)
    spec["sections"][1]["panels"][0]["y"] = {"no": "metric"}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(UserError, match="section 'Footprint' is not understood by W&B"):
        dashboard([f"apply={tmp_path / 'spec.json'}"])


@pytest.fixture
def service(monkeypatch) -> list[dict]:
    """W&B's answer without W&B: the report of a specification, at its address or at a new one."""
    sent: list[dict] = []

    def apply(spec: dict) -> str:
        sent.append(spec)
        return spec["url"] or f"https://wandb.ai/report-{len(sent)}"

    monkeypatch.setattr("ssat.commands.dashboard.apply", apply)
    return sent


def test_a_second_call_updates_the_report_of_the_first(tmp_path, service):
    out = tmp_path / "dashboard.json"
    dashboard([f"out={out}", "entity=team"])
    old = read(out)
    old["sections"].pop()  # as an older version of ours built it
    out.write_text(json.dumps(sealed(old)))
    dashboard([f"out={out}"])
    assert (service[1]["url"], service[1]["entity"]) == ("https://wandb.ai/report-1", "team")
    assert len(read(out)["sections"]) == len(specification("ssat", None)["sections"])


def test_an_edited_specification_is_overwritten_only_by_force(tmp_path, service):
    out = tmp_path / "dashboard.json"
    dashboard([f"out={out}"])
    out.write_text(json.dumps(read(out) | {"title": "mine"}))
    dashboard([f"apply={out}"])
    with pytest.raises(UserError, match="was edited since it was written: apply="):
        dashboard([f"out={out}"])
    assert read(out)["title"] == "mine" and len(service) == 2
    dashboard([f"out={out}", "force=true"])
    assert read(out)["title"] == specification("ssat", None)["title"]
    assert {spec["url"] for spec in service[1:]} == {"https://wandb.ai/report-1"}


def test_an_entity_given_to_apply_is_no_edit(tmp_path, service):
    out = tmp_path / "dashboard.json"
    dashboard([f"out={out}"])
    dashboard([f"apply={out}", "entity=team"])
    dashboard([f"out={out}"])
    assert service[2]["entity"] == "team"


def test_the_report_of_another_project_is_not_forgotten(tmp_path, service):
    out = tmp_path / "dashboard.json"
    dashboard([f"out={out}", "project=one"])
    with pytest.raises(UserError, match="has the report of project=one"):
        dashboard([f"out={out}", "project=two"])
    dashboard([f"out={out}", "project=two", "force=true"])
    assert read(out)["url"] == "https://wandb.ai/report-2"


def test_a_file_that_is_no_dashboard_is_not_overwritten(tmp_path, service):
    (tmp_path / "notes.json").write_text("{}")
    for out in (tmp_path / "notes.json", tmp_path):
        with pytest.raises(UserError, match="is no dashboard of this version: name another file"):
            dashboard([f"out={out}"])
    with pytest.raises(UserError, match="name another file"):
        dashboard(["out=.", "force=true"])
    assert (tmp_path / "notes.json").read_text() == "{}" and not service


def test_ctrl_c_is_one_sentence_and_exits_130(tmp_path, monkeypatch, capsys):
    def stopped(spec: dict) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("ssat.commands.dashboard.apply", stopped)
    monkeypatch.setattr(sys, "argv", ["dashboard", f"out={tmp_path / 'dashboard.json'}"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130
    assert capsys.readouterr().err.strip() == "interrupted: repeat the command"


def agents_jobs() -> list[list[str]]:
    """The words of every job of the sweep file, made by W&B's own agent code."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    sweep = yaml.safe_load(SWEEP.read_text())
    grid = {key: entry.get("values", [entry.get("value")]) for key, entry in sweep["parameters"].items()}
    jobs = []
    for values in itertools.product(*grid.values()):
        chosen = {key: {"value": value} for key, value in zip(grid, values, strict=True)}
        words = []
        for word in sweep["command"]:
            words += create_sweep_command_args({"args": chosen})[word[2:-1]] if word == "${args_no_hyphens}" else [word]
        jobs.append(words)
    return jobs


def composed(words: list[str]) -> Run:
    return resolve(compose("train", overrides=words))


def test_the_commands_of_the_sweeps_agent_are_runs_of_ours():
    jobs = agents_jobs()
    assert len(jobs) == 9
    for words in jobs:
        assert words[:4] == ["${env}", "${interpreter}", "-m", "src.train"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for words in jobs[:: len(jobs) - 1]:
            config = composed(words[4:])
            assert config.logger.name == "wandb" and config.experiment == "wandb_sweep"


def test_the_hydra_command_runs_the_same_grid():
    words = shlex.split(hydra_command(SWEEP))
    assert words[:4] == ["python", "-m", "src.train", "-m"]
    choices = [
        [f"{key}={value}" for value in values.split(",")] for key, _, values in (w.partition("=") for w in words[4:])
    ]
    ours = [list(job) for job in itertools.product(*choices)]
    theirs = [words[4:] for words in agents_jobs()]
    assert sorted(map(sorted, ours)) == sorted(map(sorted, theirs))
    assert str(SWEEP.read_text()).count(hydra_command(SWEEP)) == 1  # the file's header says it
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert config_hash(composed(ours[0])) == config_hash(composed(theirs[0]))


def test_a_distribution_is_no_grid(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("command: [a, b=1]\nparameters: {mode.lam: {min: 0.0, max: 1.0}}\n")
    with pytest.raises(UserError, match="parameter mode.lam needs value or values"):
        hydra_command(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"command: [a\xff]", "is no sweep file"),
        (b"command: [a]\nparameters: {seed: {values: 3}}", "parameter seed needs value or values"),
        (b"command: [a]\nparameters: {name: {value: '${x'}}", "parameter name needs value or values"),
        (b"command: [a]\nmethod: bayes\nparameters: {}", "has method: bayes, and a local sweep runs every combination"),
        (b"- 1", "is no sweep file"),
        (1_000 * b"[", "is no sweep file"),
    ],
)
def test_a_file_that_is_no_grid_is_one_sentence(tmp_path, text, sentence):
    (tmp_path / "sweep.yaml").write_bytes(text)
    with pytest.raises(UserError, match=sentence):
        hydra_command(tmp_path / "sweep.yaml")


@pytest.mark.parametrize("value", ["a,b", "it's", "x=1", "range(1,3)", "a b", "[1,2]"])
def test_a_value_of_the_sweep_file_is_one_value_in_the_command(tmp_path, value):
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({"command": ["a"], "parameters": {"name": {"values": [value, "other"]}}}))
    parser = OverridesParser.create()
    words = parser.parse_overrides(shlex.split(hydra_command(path))[-1:])
    jobs = [parser.parse_override(word).value() for [word] in BasicSweeper.split_arguments(words, None)[0]]
    assert jobs == [[1, 2] if value == "[1,2]" else value, "other"]


def test_the_metric_of_the_sweep_is_one_that_runs_record():
    sweep = yaml.safe_load(SWEEP.read_text())
    assert sweep["metric"]["name"] in figures(make_record())
    assert wandb.__version__  # the agent code above is this version's
