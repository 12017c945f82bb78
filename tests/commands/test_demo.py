"""src.demo: what the page says equals src.predict; the page itself as a process, in a browser and through its API."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ssat
from ssat.commands.demo.answers import Answers, write_examples
from ssat.commands.demo.command import free_port, parse
from ssat.core.errors import UserError
from ssat.data.sets.sources import digits
from ssat.training.reconstructor import Reconstructor, reconstructor_of
from tests.data.bombs import BOMBS
from tests.helpers import ROOT, train
from tests.results.browser import browser, find_browser

READY = 60  # seconds: the library is slow to import on a busy machine
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(runs: Path) -> Path:
    return train("mode=ssat", "epochs=1", runs=runs)


@pytest.fixture(scope="module")
def image(runs: Path) -> Path:
    path = runs / "digit.png"
    Image.fromarray(digits().test.images[7]).save(path)
    return path


def test_classes_and_heat_map_are_those_of_predict(run: Path, image: Path) -> None:
    model = ssat.load(run)
    answers = Answers(model)
    expected = model.predict(image)[0]
    assert answers.classes(str(image)) == dict(zip(expected.classes, expected.probs, strict=True))
    assert answers.without_heat == "" and answers.heat(str(image)).size == (224, 224)
    bad = image.with_name("bad.png")
    bad.write_bytes(b"no image")
    with pytest.raises(UserError) as caught:
        answers.classes(str(bad))
    assert "cannot read the image bad.png" in str(caught.value)  # the server's folders are nobody's business


@pytest.mark.parametrize("ending", BOMBS)
def test_a_huge_picture_is_refused_by_what_it_states(run: Path, tmp_path: Path, ending: str) -> None:
    (tmp_path / f"a.{ending}").write_bytes(BOMBS[ending]())
    answers = Answers(ssat.load(run))
    for answer in (answers.classes, answers.heat, lambda path: answers.reconstruction(path, 0.5, 1)):
        with pytest.raises(UserError, match="pixels are too many at once"):
            answer(str(tmp_path / f"a.{ending}"))


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_the_decoder_predicts_the_hidden_patches_and_keeps_the_others(run: Path, checkpoint: str) -> None:
    model = ssat.load(run, checkpoint)
    decoder = reconstructor_of(model.saved, CPU)
    assert isinstance(decoder, Reconstructor)
    assert decoder.phase == "joint" and 0.75 in decoder.ratios and 0.95 not in decoder.ratios  # of 16 patches
    images = torch.stack([model.transform(image) for image in digits().test.images[:3]])
    for ratio, visible in ((0.75, 4), (0.5, 8)):
        hidden, rebuilt = decoder.pictures(images, ratio, draw=1)
        blocks = hidden.unfold(2, 4, 4).unfold(3, 4, 4).abs().amax((1, 4, 5))  # (B, 4, 4): 0 where it is hidden
        kept = (blocks > 0).repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None].expand_as(images)
        assert (blocks > 0).flatten(1).sum(1).tolist() == [visible] * 3
        assert torch.equal(rebuilt[kept], images[kept]) and not torch.equal(rebuilt[~kept], images[~kept])
    assert torch.equal(hidden, decoder.pictures(images, 0.5, draw=1)[0])
    assert not torch.equal(hidden, decoder.pictures(images, 0.5, draw=2)[0])


@pytest.mark.slow
def test_the_decoder_of_ssl_ft_is_that_of_its_first_phase(runs: Path, run: Path, tmp_path: Path) -> None:
    both = train("mode=ssl_ft", "mode.ssl_epochs=1", "epochs=1", runs=runs)
    found = reconstructor_of(ssat.load(both).saved, CPU)
    assert isinstance(found, Reconstructor) and found.phase == "pretrain"
    moved = Path(shutil.copy(both / "finetune" / "checkpoints" / "best.ckpt", tmp_path))
    ssat.load(run).export(tmp_path / "plain")
    for source in (moved, tmp_path / "plain"):
        said = reconstructor_of(ssat.load(source).saved, CPU)
        assert said == "this file holds no decoder, which is dropped for inference: name the run folder"


def test_a_decoder_of_other_sizes_is_refused_with_its_tensors(run: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(run, tmp_path / "run")
    path = moved / "joint" / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    name = next(name for name in content["state_dict"] if name.startswith("ssl.") and name.endswith("pred.bias"))
    content["state_dict"][name] = torch.ones(5)
    torch.save(content, path)
    with pytest.raises(
        UserError, match=rf": 1 tensor is of another shape \({name} is \(5,\) in the file and \(48,\) here"
    ):
        reconstructor_of(ssat.load(moved).saved, CPU)


def test_examples_are_the_test_images_themselves(run: Path, tmp_path: Path) -> None:
    model = ssat.load(run)
    paths, why = write_examples(model, tmp_path)
    assert len(paths) == 8 and why == ""
    test = {image.tobytes() for image in digits().test.images}
    assert {np.asarray(Image.open(path)).tobytes() for path in paths} <= test
    moved = shutil.copytree(run, tmp_path / "run")
    text = (moved / "config.yaml").read_text()
    (moved / "config.yaml").write_text(text.replace("kind: digits", "kind: image_folder\n    root: gone"))
    paths, why = write_examples(ssat.load(moved), tmp_path)
    assert paths == [] and why.startswith("the run's own images cannot be read (")


def test_a_port_in_use_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"^port={port} is used by another program: name another, or port=0"):
            free_port(port)
    assert free_port(port) == port and free_port(0) > 1023


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "say run=<run folder>"),
        (["run=x", "port=99999"], "port=99999 is not possible: at most 65535"),
        (["run=x", "open=yes"], "open=yes is not one of true, false"),
        (["run=x", "share=true"], "there is no option 'share=true'"),
        (["run=x", "device=tpu"], "device=tpu is not one of auto, cpu, cuda"),
    ],
)
def test_a_wrong_word_is_refused(words: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(words)
    assert sentence in str(caught.value)


@pytest.fixture(scope="module")
def address(run: Path) -> Iterator[str]:
    """The page of a real process, which ends with Ctrl-C and exit code 0."""
    process = subprocess.Popen(
        [sys.executable, "-m", "src.demo", f"run={run}", "port=0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    line = process.stdout.readline()
    assert line.startswith(f"demo of {run.name}: http://127.0.0.1:"), process.communicate()
    yield line.split(": ", 1)[1].split()[0]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.strip(), err) == (0, "ended", "")


@pytest.mark.slow
def test_the_api_gives_the_numbers_of_predict(address: str, run: Path, image: Path) -> None:
    from gradio_client import Client, handle_file

    client = Client(address, verbose=False)
    said, heat = client.predict(handle_file(str(image)), api_name="/predict")
    expected = ssat.load(run).predict(image, top_k=5)[0]
    assert [each["label"] for each in said["confidences"]] == [*expected.classes]
    np.testing.assert_allclose([each["confidence"] for each in said["confidences"]], expected.probs, rtol=1e-6)
    hidden, rebuilt = client.predict(handle_file(str(image)), 0.5, 1, api_name="/reconstruct")
    for path in (heat, hidden, rebuilt):
        with Image.open(path) as picture:
            assert picture.size == (224, 224)
    bad = image.with_name("bad.png")
    bad.write_bytes(b"no image")
    with pytest.raises(Exception, match=r"cannot read the image bad\.png \(not an image\)"):
        client.predict(handle_file(str(bad)), api_name="/predict")


@pytest.mark.slow
@pytest.mark.skipif(find_browser() is None, reason="needs chromium")
def test_an_example_that_is_clicked_gets_the_class_of_predict(address: str, run: Path, tmp_path: Path) -> None:
    model = ssat.load(run)
    paths, _ = write_examples(model, tmp_path)
    shown = "document.querySelector('[data-testid=\"label-output-value\"]')?.innerText"

    def until(script: str) -> object:
        deadline = time.monotonic() + READY
        while not (value := page.run(script)):
            assert time.monotonic() < deadline, page.run("document.body.innerText")
            time.sleep(0.2)
        return value

    with browser(tmp_path / "profile") as page:
        page.send("Page.navigate", url=address)
        until("document.querySelectorAll('.gallery-item').length == 8")
        page.run("document.querySelectorAll('.gallery-item')[2].click()")
        assert str(until(shown)).strip() == model.predict(paths[2])[0].label
        until("[...document.images].filter(image => image.naturalWidth == 224).length == 3")  # heat, hidden, rebuilt
        bad = tmp_path / "bad.png"
        bad.write_bytes(b"no image")
        page.run("document.querySelector('.ssat-photo [aria-label=\"Remove Image\"]').click()")
        until("document.querySelector('.ssat-photo input[type=file]') != null")
        page.send("DOM.enable")
        root = page.send("DOM.getDocument")["root"]["nodeId"]
        node = page.send("DOM.querySelector", nodeId=root, selector=".ssat-photo input[type=file]")["nodeId"]
        page.send("DOM.setFileInputFiles", nodeId=node, files=[str(bad)])
        until("document.body.innerText.includes('cannot read the image bad.png')")
        until("[...document.images].filter(image => image.naturalWidth == 224).length == 0")  # none of the last image
        assert page.run(shown) is None
        time.sleep(1)  # for a second sentence
        assert page.run("document.body.innerText.split('cannot read the image').length") == 2  # said once
        assert page.run(
            "[...document.querySelectorAll('[data-testid=status-tracker] .error')].every(e => !e.checkVisibility())"
        )
        page.screenshot(tmp_path / "page.png")
        assert all(request.startswith((address, "data:", "blob:")) for request in page.requests), page.requests
        assert page.run("document.documentElement.scrollWidth <= window.innerWidth")
