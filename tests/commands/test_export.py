"""The exports of a tiny real run on the embedded digits, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

import ssat
from ssat.commands.export import NAMES, export, parse
from ssat.config.create import create
from ssat.core.errors import UserError
from ssat.data.single import ImageTransform
from ssat.encoders import ENCODERS
from ssat.export.card import model_card
from ssat.export.facts import caveats, measured, preprocessing
from ssat.export.folder import _publish
from ssat.export.formats import FORMATS
from ssat.export.prepare import code
from ssat.runs.saved import saved_configuration
from ssat.training.classification import linear_head
from ssat.training.data import build_data
from ssat.training.evaluation import Evaluator
from tests.export.test_formats import onnx_shapes
from tests.helpers import ROOT, config, fail_of, train

PORTABLE = ("onnx", "torch_export")  # need neither this package nor timm


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = ["mode=ssat", "recipe.base_lr=0.005", "recipe.lr_rule=absolute"]
    return train(*settings, runs=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def exports(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run in every format, and what the command printed."""
    home, console = tmp_path_factory.mktemp("exports"), quiet()
    folders = {name: export([f"run={run}", f"format={name}", f"out={home / name}"], console) for name in NAMES}
    (home / "said.txt").write_text(console.export_text())
    return folders


def quiet() -> Console:
    return Console(width=200, record=True, force_terminal=False, soft_wrap=True)


def refusal(words: list[str]) -> str:
    with pytest.raises(UserError) as refused:
        export(words, quiet())
    assert "\n" not in str(refused.value)
    return str(refused.value)


def facts_of(folder: Path) -> dict:
    return json.loads((folder / "model.json").read_text())


def images_and_logits(run: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Ten test images as the run's evaluation sees them, and what its best checkpoint says of them."""
    evaluator = Evaluator(saved_configuration(run, []), run, "", "best", "test", 0)
    images = evaluator.data.fixed_batch(10).images
    with torch.no_grad():
        return images, evaluator.module.eval()(images)


# ---- what is written ----


def test_a_folder_has_the_file_its_facts_and_a_card(run: Path, exports: dict[str, Path]) -> None:
    record = json.loads((run / "result.json").read_text())
    for name, folder in exports.items():
        facts, file = facts_of(folder), folder / FORMATS[name].file
        assert sorted(path.name for path in folder.iterdir()) == sorted([file.name, "model.json", "README.md"])
        assert (facts["schema"], facts["kind"], facts["format"], facts["file"]) == (1, "ssat-model", name, file.name)
        assert facts["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert facts["classes"] == [str(digit) for digit in range(10)] and facts["num_classes"] == 10
        assert (facts["hash"], facts["phase"], facts["temperature"]) == (record["hash"], "joint", None)
        assert facts["config"] == yaml.safe_load((run / "config.yaml").read_text())
        assert facts["statistics"] == record["phases"][0]["statistics"]
        assert facts["metrics"]["test/acc1"] == record["metrics"]["test"]["acc1"]["best"]
        assert facts["input"] == {"name": "images", "shape": ["batch", 3, 16, 16], "dtype": "float32"}
        assert facts["parity"]["random"]["images"] == 8 and facts["parity"]["test"]["images"] == 256
        assert facts["parity"]["test"]["same_top1"] == 256 and facts["parity"]["test"]["relative"] < 1e-5
    said = (exports["onnx"].parent / "said.txt").read_text()
    assert said.count("parity on 256 test images") == len(NAMES) == said.count("written to ")


def test_every_test_image_is_compared_on_demand(run: Path, tmp_path: Path) -> None:
    words = [f"run={run}", "format=safetensors"]
    export([*words, f"out={tmp_path}/all", "images=all"], quiet())
    export([*words, f"out={tmp_path}/20", "images=20"], quiet())
    counts = [facts_of(tmp_path / name)["parity"]["test"]["images"] for name in ("all", "20")]
    assert counts == [360, 20]
    for wrong in ("0", "-1", "some", "1.5"):
        assert f"images={wrong} is neither a number" in refusal([*words, f"images={wrong}"])


def test_the_tensors_are_those_of_the_checkpoint_without_the_decoder(run: Path, exports: dict[str, Path]) -> None:
    checkpoint = torch.load(run / "joint" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    kept = {name: value for name, value in checkpoint.items() if name.startswith(("encoder.", "head."))}
    written = load_file(exports["safetensors"] / "model.safetensors")
    assert written.keys() == kept.keys() and len(kept) < len(checkpoint)
    assert all(torch.equal(written[name], kept[name]) for name in kept)


def test_facts_and_tensors_alone_are_the_network(run: Path, exports: dict[str, Path]) -> None:
    images, logits = images_and_logits(run)
    facts, tensors = facts_of(exports["safetensors"]), load_file(exports["safetensors"] / "model.safetensors")
    options = {key: value for key, value in facts["config"]["encoder"].items() if key not in NO_OPTIONS}
    options |= {"drop_path": 0.0, "pos_embed": "sincos"}  # of the recipe
    encoder = create(ENCODERS, facts["config"]["encoder"]["kind"], options, "encoder")
    head = linear_head(encoder.num_features, facts["num_classes"])
    for module, prefix in ((encoder, "encoder."), (head, "head.")):
        module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    with torch.no_grad():
        assert torch.equal(head(encoder.eval()(images)), logits)


NO_OPTIONS = ("kind", "name", "pretrained", "adapt_stem")


@pytest.mark.slow
def test_the_code_of_the_cards_runs_in_a_fresh_process_without_this_package(
    run: Path, exports: dict[str, Path], tmp_path: Path
) -> None:
    photo, logits = photo_and_logits(run, tmp_path)
    lines = ["import os, sys"]
    for name in PORTABLE:
        lines += [f"os.chdir({str(exports[name])!r})", code_of(exports[name], photo), "import torch"]
        lines += [f"numpy.save({str(tmp_path / name)!r}, torch.as_tensor(logits).detach().numpy())"]
    lines += ["assert not [name for name in sys.modules if name.startswith('ssat')]"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name in PORTABLE:
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), logits, atol=CLOSE)
    assert done.stdout.split() == [str(logits.argmax())] * len(PORTABLE)


CLOSE = 0.05  # of logits: a pixel may differ by one level of 255


def photo_and_logits(run: Path, folder: Path) -> tuple[Path, np.ndarray]:
    """A picture of odd sizes, and what `ssat.load` says of it."""
    made = Image.fromarray(np.random.default_rng(3).integers(0, 256, (9, 14, 3), dtype=np.uint8))
    photo, model = folder / "photo.png", ssat.load(run)
    made.resize((61, 37), Image.Resampling.BILINEAR).save(photo)
    with torch.no_grad():
        return photo, model.logits(model.transform(photo)[None].to(model.device)).cpu().numpy()


def code_of(folder: Path, photo: Path) -> str:
    """The Python lines of a model card, about another photo."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert code.count("photo.jpg") == 1
    return code.replace("photo.jpg", str(photo))


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("pipeline", ["timm", "batched"])
def test_the_code_of_the_card_prepares_images_of_any_size_as_the_evaluation(
    pipeline: str, channels: int, tmp_path: Path
) -> None:
    words = ["data=digits", "encoder=vit_micro", "data.img_size=64", f"data.channels={channels}"]
    settings = config(*words, f"data.pipeline={pipeline}")
    phase = settings.mode.phases[-1]
    data = build_data(settings, phase)
    given = preprocessing(settings, phase, {"mean": list(data.mean), "std": list(data.std)})
    names: dict = {}
    exec(code(given), names)
    transform, std, generator = ImageTransform(data), np.array(given["std"]), np.random.default_rng(0)
    for number, (width, height) in enumerate([(61, 83), (200, 133), (75, 76), (64, 65), (301, 150), (9, 14)]):
        coarse = Image.fromarray(generator.integers(0, 256, (9, 14, 3), dtype=np.uint8))
        photo = tmp_path / f"{number}.png"
        coarse.resize((width, height), Image.Resampling.BILINEAR).save(photo)
        ours, theirs = transform(photo).numpy(), names["prepare"](photo)[0]
        levels = np.abs(ours - theirs) * 255 * std[:, None, None]
        assert ours.shape == theirs.shape == (channels, 64, 64) and theirs.dtype == np.float32
        assert levels.max() < 1.01 if pipeline == "batched" else levels.max() < 1e-3, (width, height, levels.max())


def test_the_code_of_timms_card_builds_the_network(
    run: Path, exports: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, logits = photo_and_logits(run, tmp_path)
    names: dict = {}
    monkeypatch.chdir(exports["timm"])
    exec(code_of(exports["timm"], photo), names)
    np.testing.assert_allclose(names["logits"].detach(), logits, atol=CLOSE)


def test_the_onnx_graph_has_a_free_batch_and_one_attention_a_block(exports: dict[str, Path]) -> None:
    import onnx

    graph = onnx.load(exports["onnx"] / "model.onnx").graph
    assert onnx_shapes(graph) == [["batch", 3, 16, 16], ["batch", 10]]
    assert sum(node.op_type == "Softmax" for node in graph.node) == 2


def test_the_preprocessing_is_that_of_the_evaluation(run: Path, exports: dict[str, Path]) -> None:
    given = facts_of(exports["onnx"])["preprocessing"]
    ours = Compose(
        [
            Resize(given["resize"], InterpolationMode(given["interpolation"])),
            CenterCrop(given["crop"]),
            ToTensor(),
            Normalize(given["mean"], given["std"]),
        ]
    )
    data = Evaluator(saved_configuration(run, []), run, "", "best", "test", 0).data
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 61, 3), dtype=np.uint8))
    assert torch.allclose(ours(photo), data.eval_transform(photo), atol=1e-6)


def test_the_card_says_what_to_keep_in_mind(run: Path, exports: dict[str, Path]) -> None:
    card = (exports["onnx"] / "README.md").read_text()
    facts = facts_of(exports["onnx"])
    assert "the test images also chose this epoch, so their numbers are optimistic" in card
    assert "it has learned from a part of the training data (data.samples_per_class=16)" in card
    assert "CC BY 4.0" in card and facts["sha256"] in card and facts["hash"] in card
    assert card == model_card(facts, saved_configuration(run, []), FORMATS["onnx"].usage(facts))


def test_a_metric_whose_best_epoch_is_another_is_not_the_checkpoints() -> None:
    values = {
        "acc1": {"last": 50.0, "best": 60.0, "best_epoch": 3},
        "loss": {"last": 2.0, "best": 1.0, "best_epoch": 1},
    }
    record = {"metrics": {"test": values}}
    assert measured(record, "best", 4) == {"test/acc1": 60.0}
    assert measured(record, "last", 9) == {"test/acc1": 50.0, "test/loss": 2.0}
    assert measured(record, "a.ckpt", None) == {}


def test_a_validation_split_leaves_the_test_images_honest(run: Path) -> None:
    config = saved_configuration(run, [])
    assert not any("optimistic" in line for line in caveats(config, {"metrics": {"val": {}, "test": {}}}, "last"))
    with_val = {"metrics": {"val": {"acc1": {"best": 1.0}}, "test": {}}}
    assert not any("optimistic" in line for line in caveats(config, with_val, "best"))
    assert any("optimistic" in line for line in caveats(config, {"metrics": {"test": {}}}, "best"))


# ---- folders ----


def test_an_earlier_export_is_replaced_only_with_force_and_other_files_stay(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    words = [f"run={run}", f"out={out}"]
    export([*words, "format=timm"], quiet())
    (out / "mine.txt").write_text("mine")
    assert refusal([*words, "format=safetensors"]).startswith(
        f"out={out} is not empty: name a new folder, or force=true"
    )
    assert facts_of(out)["format"] == "timm"
    export([*words, "format=safetensors", "checkpoint=last", "force=true"], quiet())
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "mine.txt", "model.json", "model.safetensors"]
    assert facts_of(out)["checkpoint"]["name"] == "last"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_place_that_cannot_be_written_is_refused(run: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    assert refusal([f"run={run}", "format=timm", f"out={tmp_path / place}"]).startswith(f"out={tmp_path / place} ")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_of_two_exports_into_one_folder_the_second_is_refused(tmp_path: Path) -> None:
    out, partials = tmp_path / "out", [tmp_path / f".out.{number}.partial" for number in (1, 2)]
    for partial in partials:
        partial.mkdir()
        (partial / "model.json").write_text(partial.name)
    _publish(partials[0], out, ["model.json"], force=False)
    with pytest.raises(UserError, match="is not empty: name a new folder"):
        _publish(partials[1], out, ["model.json"], force=False)
    assert (out / "model.json").read_text() == ".out.1.partial"


def test_a_file_that_computes_something_else_leaves_nothing_behind(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(model):  # as a faulty exporter would write
        with torch.no_grad():
            model.head.bias[0] += 1
        written = FORMATS["safetensors"].encode(model)
        with torch.no_grad():
            model.head.bias[0] -= 1
        return written

    monkeypatch.setitem(FORMATS, "onnx", FORMATS["safetensors"]._replace(file="model.onnx", encode=wrong))
    said = refusal([f"run={run}", "format=onnx", f"out={tmp_path / 'new' / 'out'}"])
    assert "format=onnx does not compute what PyTorch computes on 8 random inputs" in said
    assert not list(tmp_path.iterdir())
    (tmp_path / "empty").mkdir()
    refusal([f"run={run}", "format=onnx", f"out={tmp_path / 'empty'}"])
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


def test_without_the_data_the_random_inputs_are_enough_and_a_note_says_why(run: Path, tmp_path: Path) -> None:
    moved, console = tmp_path / "run", quiet()
    shutil.copytree(run, moved)
    text = (moved / "config.yaml").read_text()
    values = yaml.safe_load(text)
    values["data"]["root"] = str(tmp_path / "gone")
    values["data"]["source"] = {"kind": "image_folder", "root": str(tmp_path / "gone"), "name": "mine"}
    (moved / "config.yaml").write_text(yaml.safe_dump(values))
    out = export([f"run={moved}", "format=timm", f"out={tmp_path / 'out'}"], console)
    parity = facts_of(out)["parity"]
    assert parity["test"] is None and "gone" in parity["test_missing"]
    assert f"note: parity is not measured on test images: {parity['test_missing']}" in console.export_text()


# ---- mistakes ----


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["format=onnx"], "say which run: run=<folder that python -m src.train has made>"),
        (["run=x"], "say which format: safetensors, timm, onnx, torch_export"),
        (["run=x", "format=onx"], "format=onx is not a format (did you mean onnx?): safetensors, timm, onnx"),
        (["run=x", "format=onnx", "force=maybe"], "force=maybe is not one of true, false"),
        (["run=x", "format=onnx", "opset=17"], "there is no option 'opset=17'"),
    ],
)
def test_a_wrong_word_is_a_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        parse(words)
    assert str(refused.value).startswith(sentence)


def test_a_run_that_has_no_network_to_export_is_refused(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    words = [f"run={copy}", "format=timm", f"out={tmp_path / 'out'}"]
    assert "is no run folder" in refusal([f"run={tmp_path}", *words[1:]])
    assert "checkpoint=first: first does not exist" in refusal([*words, "checkpoint=first"])

    best = copy / "joint" / "checkpoints" / "best.ckpt"
    best.write_bytes(best.read_bytes()[:5000])
    assert f"{best} is not a readable checkpoint" in refusal(words)

    record = json.loads((copy / "result.json").read_text())
    (copy / "result.json").write_text(json.dumps(record | {"status": "failed"}))
    assert "has failed, and only a finished run is exported" in refusal([*words, "checkpoint=last"])
    (copy / "result.json").unlink()
    assert "is not finished, and only a finished run is exported" in refusal([*words, "checkpoint=last"])

    values = yaml.safe_load((copy / "config.yaml").read_text())
    values["mode"]["phases"][-1]["lam"] = 0.0
    (copy / "config.yaml").write_text(yaml.safe_dump(values))
    assert "has learned no labels (lam=0), so it has no head to export" in refusal(words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_the_command_ends_with_one_sentence_and_exit_code_2(run: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "src.export", f"run={run}", "format=pickle"], cwd=ROOT, capture_output=True, text=True
    )
    assert fail_of(done).startswith("error: format=pickle is not a format")
