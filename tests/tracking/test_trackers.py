"""MLflow, trackio, several loggers at once and one of the user's own: all get the curves, none can stop a training."""

import json
import sqlite3
from importlib.util import find_spec
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ssat.config.identity import config_hash
from ssat.config.loggers import check_logger, expand_loggers, trackers
from ssat.config.overrides import composed
from ssat.config.resolve import resolve
from ssat.core.errors import UserError
from ssat.tracking.final import final_figures, log_final, numbers, texts
from ssat.tracking.guarded import Guarded
from tests.helpers import config, record_of, train

mlflow = pytest.importorskip("mlflow")
if find_spec("trackio") is None:  # not imported here: it reads its folder when it is
    pytest.skip("trackio is not installed", allow_module_level=True)
LIST = "[mlflow,trackio,tensorboard,{_target_: mine_logger.Mine, place: out.txt}]"
MINE = """\
from pathlib import Path

from lightning.pytorch.loggers.logger import Logger


class Mine(Logger):
    name = version = "mine"

    def __init__(self, place: str) -> None:
        self.place = Path(__file__).parent / place

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        if step and step > 12:
            raise ConnectionError("the service is away")
        with self.place.open("a") as file:
            file.write(f"{step} {sorted(metrics)}\\n")
"""


@pytest.fixture(scope="module")
def tracked(tmp_path_factory) -> tuple[Path, str]:
    """A run with every logger but W&B, and what it has printed on stderr."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "mine_logger.py").write_text(MINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("TRACKIO_DIR", str(folder / ".trackio"))
        words = expand_loggers([f"logger={LIST}"])
        run = train("mode=scratch", *words, runs=folder)
    return run, (folder / "out.txt").read_text()


def test_every_logger_has_the_accuracies_of_the_record(tracked):
    run, _ = tracked
    accuracies = [row["test/acc1"] for row in record_of(run)["phases"][0]["history"]]
    client = mlflow.MlflowClient((run.parents[1] / ".mlflow").absolute().as_uri())
    (found,) = client.search_runs([client.get_experiment_by_name("ssat").experiment_id])
    logged = [metric.value for metric in client.get_metric_history(found.info.run_id, "test/acc1")]
    assert logged == pytest.approx(accuracies)
    assert found.info.status == "FINISHED" and found.data.params["mode_name"] == "scratch"
    with sqlite3.connect(run.parents[1] / ".trackio" / "ssat.db") as database:
        rows = [metrics for (metrics,) in database.execute("select metrics from metrics")]
    assert sum("test/acc1" in str(row) for row in rows) == len(accuracies)
    assert list((run / "scratch" / "tensorboard").rglob("events.*"))
    assert list((run / "scratch" / "csv").rglob("metrics.csv"))


def test_every_logger_has_the_final_figures_and_the_file_of_the_configuration(tracked):
    run, _ = tracked
    wanted = final_figures(run, run / "scratch")
    record = record_of(run)
    assert wanted["result/acc1"] == record["metrics"]["test"]["acc1"]["last"] and wanted["result/seconds"] > 0
    assert wanted["result/config"] == str(run / "config.yaml") and Path(wanted["result/config"]).is_file()
    client = mlflow.MlflowClient((run.parents[1] / ".mlflow").absolute().as_uri())
    (found,) = client.search_runs([client.get_experiment_by_name("ssat").experiment_id])
    kept = {name: value for name, value in found.data.metrics.items() if name.startswith("result/")}
    assert kept == pytest.approx(numbers(wanted))
    assert texts(wanted).items() <= found.data.tags.items() and found.info.status == "FINISHED"
    with sqlite3.connect(run.parents[1] / ".trackio" / "ssat.db") as database:
        rows = [json.loads(row) for (row,) in database.execute("select metrics from metrics")]
        names = {name for (name,) in database.execute("select distinct run_name from metrics")}
    assert len(names) == 1 and [row for row in rows if "result/acc1" in row] == [wanted]
    events = EventAccumulator(str(run / "scratch" / "tensorboard" / "version_0"), size_guidance={"tensors": 0})
    events.Reload()
    points = {name: events.Scalars(name)[-1].value for name in events.Tags()["scalars"] if name.startswith("result/")}
    assert points == pytest.approx(numbers(wanted), rel=1e-6)
    text = events.Tensors("result/config/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert text == wanted["result/config"]


def test_a_logger_of_the_users_own_gets_the_final_figures_as_its_last_row_and_of_a_phase_its_own(tmp_path):
    class Mine:
        rows: list = []

        def log_metrics(self, metrics, step):
            self.rows.append((metrics, step))

        def finalize(self, status):
            self.rows.append(status)

    (tmp_path / "pretrain").mkdir()
    log_final(Guarded("mine", Mine), final_figures(tmp_path, tmp_path / "pretrain"))
    assert Mine.rows == []  # the phase did not finish
    (tmp_path / "pretrain" / "phase.json").write_text('{"steps": 7, "seconds": 1.5, "hash": "abc"}')
    log_final(Guarded("mine", Mine), final_figures(tmp_path, tmp_path / "pretrain"))
    (row, step), end = Mine.rows
    assert (row["result/seconds"], row["result/steps"], step, end) == (1.5, 7, 7, "success")


def test_a_logger_of_the_users_own_that_fails_is_dropped_and_the_training_ends(tracked):
    run, written = tracked
    steps = [int(line.split()[0]) for line in written.splitlines()]
    assert steps and max(steps) <= 12 and record_of(run)["status"] == "finished"


def test_a_failure_is_one_line(capsys):
    class Away:
        def log_metrics(self, *values):
            raise ConnectionError("no\nnetwork")

    logger = Guarded("mlflow", Away)
    for _ in range(3):
        logger.log_metrics({"a": 1.0}, 1)
    said = capsys.readouterr().err
    assert said == ("logger=mlflow: no network; training goes on without it; the CSV file has every value\n")


def test_a_list_names_each_logger_and_changes_no_hash():
    several = resolve(composed(["logger=[wandb,tensorboard,csv]"]))
    assert [each.kind for each in trackers(several.logger)] == ["wandb", "tensorboard"]
    assert config_hash(several) == config_hash(config())
    own = resolve(composed(["logger=[{_target_: a.b.C, x: 1}]"]))
    assert [(each.kind, each.options) for each in trackers(own.logger)] == [("a.b:C", {"x": 1})]
    assert [each.kind for each in trackers(resolve(composed(["logger=[trackio]"])).logger)] == ["trackio"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("logger=[]", "names no logger"),
        ("logger=[wandb,mlfow]", "did you mean mlflow?"),
        ("logger=[neptune]", "logger=neptune does not exist"),
    ],
)
def test_a_wrong_logger_is_one_sentence(word, said):
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        resolve(composed([word]))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("logger=[tensorboard,tensorboard]", "names tensorboard twice"),
        ("logger=[csv,csv]", "names csv twice"),
        ("logger=[{_target_: collections.OrderedDict}]", "a class of another kind: name a class that derives from"),
        ("logger=[{_target_: os.getcwd}]", "logger: os:getcwd is no class"),
    ],
)
def test_what_is_no_logger_or_one_twice_is_refused(word, said):
    with pytest.raises(UserError, match=said):
        check_logger(resolve(composed([word])).logger)


def test_the_users_own_logger_may_stand_before_the_csv_file():
    own = "{_target_: lightning.pytorch.loggers.CSVLogger, save_dir: notes}"
    check_logger(resolve(composed([f"logger=[{own},csv]"])).logger)


def test_without_the_library_the_sentence_names_the_extra(monkeypatch):
    monkeypatch.setattr("ssat.config.loggers.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install mlflow-skinny, or the extra `trackers`"):
        check_logger(config("logger=mlflow").logger)
