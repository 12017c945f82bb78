"""The real sample videos from their trees to predictions, by the commands that a user gives."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from ssat.commands.evaluate import evaluate
from ssat.commands.predict.command import predict
from ssat.commands.prepare import prepare
from ssat.data.video.manifest import read_manifest
from ssat.runs.detection import read_predictions_csv
from tests.helpers import ROOT, only_run, record_of

SHARED = Path(os.environ.get("SSAT_SHARED", Path(__file__).resolve().parents[3] / "shared"))
SAMPLES = SHARED / "data" / "deepfake_samples"
SMALL = ["max_frames=16", "stride=1", "every=15", "size=64", "workers=0"]
LEARN = [
    *("encoder=videomae_micro", "data=ffpp", "data.img_size=64", "data.frame_step=1", "mode=ssat", "epochs=2"),
    *("recipe.batch_size=3", "trainer=cpu", "trainer.threads=1", "footprint.energy=false"),
]


@pytest.mark.slow
@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"needs {SAMPLES} (set SSAT_SHARED to the folder that holds data/)")
def test_from_the_trees_of_both_sets_to_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, dfdc = tmp_path / "ffpp", tmp_path / "dfdc"
    assert prepare(["data=ffpp", f"data.raw={SAMPLES / 'ffpp'}", f"data.root={home}", *SMALL]) == 0
    rows = read_manifest(home)
    assert len(rows) == 7 and all(row.status == "ok" and row.det_rate == 1 and row.n_faces for row in rows)
    assert sorted(row.method for row in rows if row.label) == ["Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures"]
    # One video of the list is not there: it is counted, and the exit code says so.
    assert prepare(["data=dfdc", f"data.raw={SAMPLES / 'dfdc'}", f"data.root={dfdc}", *SMALL]) == 3
    assert sorted(row.status for row in read_manifest(dfdc)) == ["missing", "ok", "ok", "ok"]
    assert "1 more is missing" in " ".join(capsys.readouterr().out.split())

    words = [*LEARN, f"data.root={home}", f"runs_dir={tmp_path / 'runs'}"]
    ended = subprocess.run([sys.executable, "-m", "src.train", *words], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    run, console = only_run(tmp_path / "runs"), Console(width=200)
    assert record_of(run)["data_fingerprint"]["passport"]["level"] == "c23"
    found = evaluate([f"run={run}"], console)["detection"]
    assert (found["n_total"], found["n_scored"]) == (2, 2) and set(found["methods"]) == {"FaceSwap"}
    scores = read_predictions_csv(run / "evaluations" / "last-test-clean.csv")
    assert [(score.method, score.n_clips) for score in scores] == [("FaceSwap", 1), ("original", 1)]
    # Another set, of which there are only tests: no training video is asked for.
    words = [f"run={run}", "data=dfdc", f"data.root={dfdc}", "data.test_parts=[0,10]"]
    found = evaluate(words, console)["detection"]
    assert (found["n_total"], found["n_scored"], found["auc"]) == (4, 3, None)

    words = [f"run={run}", f"input={SAMPLES / 'dfdc'}", f"out={tmp_path / 'out'}", "max_seconds=1", "workers=0"]
    assert predict(words, console) == 0
    with open(tmp_path / "out" / "predictions.csv", newline="", encoding="utf-8") as file:
        predicted = list(csv.DictReader(file))
    assert len(predicted) == 3 and all(0 < float(row["prob_fake"]) < 1 and row["picture"] for row in predicted)
