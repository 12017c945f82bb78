from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssat.commands.prepare import main, parse, prepare
from ssat.core.errors import UserError
from ssat.data.sets import manifest
from ssat.data.sets.card import Card
from ssat.data.sets.catalog import CATALOG
from ssat.data.sets.obtain import READERS, obtain, verify
from ssat.data.sets.sources import digits
from tests.data.official import WRITERS
from tests.data.server import FileServer

SHARED = Path(os.environ.get("SSAT_SHARED", Path(__file__).resolve().parents[3] / "shared"))


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def server() -> Iterator[FileServer]:
    server = FileServer()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def publish(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Card]:
    """Put a small official copy of a set on the server, as its makers pack it; the catalog then describes that copy."""

    def make(name: str) -> Card:
        made = tmp_path / "made"
        WRITERS[name](made)
        source = READERS[name](made, verify=False)
        card = CATALOG[name]
        downloads = []
        for file in card.downloads:
            if file.unpacks:
                content = pack(made / file.folder / file.unpacks, file.name)
            else:
                content = (made / file.folder / file.name).read_bytes()
            server.files[file.name] = content
            downloads.append(replace(file, md5=md5(content), megabytes=0.1))
        contents = {name: md5((made / card.folder / name).read_bytes()) for name in card.contents}
        assert source.test is not None
        card = replace(
            card,
            train=len(source.train),
            val=None if source.val is None else len(source.val),
            test=len(source.test),
            classes=len(source.classes),
            downloads=tuple(downloads),
            contents=contents,
            disk=1,
        )
        monkeypatch.setitem(CATALOG, name, card)
        monkeypatch.setitem(manifest.FROZEN, name, manifest.describe(source))
        shutil.rmtree(made)
        return card

    return make


def pack(folder: Path, name: str) -> bytes:
    buffer = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(buffer, "w") as file:
            for path in sorted(folder.rglob("*")):
                file.write(path, path.relative_to(folder.parent))
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            tar.add(folder, folder.name)
    return buffer.getvalue()


def refused(function, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


DOWNLOADED = sorted(name for name, card in CATALOG.items() if card.downloads)


# --- obtain


@pytest.mark.parametrize("name", DOWNLOADED)
def test_a_set_is_downloaded_unpacked_checked_and_read(publish, server: FileServer, tmp_path: Path, name: str) -> None:
    card = publish(name)
    root = tmp_path / "data"
    source = obtain(card, root, mirror=server.url)
    assert len(source.train) == card.train and source.train.read(0).mode == "RGB"
    assert all((root / card.folder / mark).exists() for mark in card.marks)
    assert not list(root.rglob("*.part")) and not (root / ".ssat" / "parts" / name).exists()
    assert manifest.read(root, name) == manifest.describe(source)
    asked = len(server.ranges)
    obtain(card, root, mirror=server.url)
    assert len(server.ranges) == asked == len(card.downloads)
    assert verify(card, root)[1].endswith("content, manifest as expected")


def test_three_domains_share_a_folder(publish, server: FileServer, tmp_path: Path) -> None:
    for name in ("clipart", "sketch"):
        obtain(publish(name), tmp_path / "data", mirror=server.url)
    assert sorted(path.name for path in (tmp_path / "data" / "domainnet").iterdir()) == [
        "clipart", "clipart_test.txt", "clipart_train.txt", "sketch", "sketch_test.txt", "sketch_train.txt",
    ]  # fmt: skip


def test_an_interrupted_set_is_not_there_and_goes_on(publish, server: FileServer, tmp_path: Path) -> None:
    card, root = publish("flowers"), tmp_path / "data"
    labels = server.files.pop("imagelabels.mat")
    assert "imagelabels.mat (the server answers 404" in refused(obtain, card, root, mirror=server.url)
    assert not (root / "flowers-102").exists()
    server.files["imagelabels.mat"] = labels
    del server.files["102flowers.tgz"]  # already unpacked
    assert len(obtain(card, root, mirror=server.url).train) == card.train


def test_an_archive_of_the_users_is_used_and_kept(publish, server: FileServer, tmp_path: Path) -> None:
    card, root = publish("cifar10"), tmp_path / "data"
    root.mkdir()
    (root / "cifar-10-python.tar.gz").write_bytes(server.files.pop("cifar-10-python.tar.gz"))
    obtain(card, root, mirror=server.url)
    assert (root / "cifar-10-python.tar.gz").exists() and not server.ranges


def test_a_truncated_archive_of_the_users_is_named_and_kept(publish, server: FileServer, tmp_path: Path) -> None:
    card, root = publish("cifar10"), tmp_path / "data"
    root.mkdir()
    (root / "cifar-10-python.tar.gz").write_bytes(server.files["cifar-10-python.tar.gz"][:500])
    message = refused(obtain, card, root, mirror=server.url)
    assert f"{root}/cifar-10-python.tar.gz has the MD5" in message and "it is truncated, damaged or another" in message


def test_a_download_with_other_counts_is_removed(publish, server: FileServer, tmp_path: Path) -> None:
    card, root = replace(publish("svhn"), train=5), tmp_path / "data"
    CATALOG["svhn"] = card
    message = refused(obtain, card, root, mirror=server.url)
    assert "what was downloaded is not the official SVHN and was removed" in message and "expected 5 train" in message
    assert not (root / "svhn").exists() and not (root / ".ssat" / "parts" / "svhn").exists()


def test_a_set_that_is_there_and_wrong_is_not_touched(publish, server: FileServer, tmp_path: Path) -> None:
    card, root = publish("svhn"), tmp_path / "data"
    (root / "svhn").mkdir(parents=True)
    (root / "svhn" / "train_32x32.mat").write_bytes(b"mine")
    assert "it has no 'test_32x32.mat': expected" in refused(obtain, card, root, mirror=server.url)
    assert (root / "svhn" / "train_32x32.mat").read_bytes() == b"mine" and not server.ranges


def test_a_disk_that_is_too_small_is_refused_before_the_download(publish, server: FileServer, tmp_path: Path) -> None:
    card = replace(publish("cifar10"), disk=10**12)
    assert "MB are needed: free some" in refused(obtain, card, tmp_path / "data", mirror=server.url)
    assert not server.ranges


def test_a_root_that_is_a_file_is_refused(publish, server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert f"cannot write {tmp_path}/data" in refused(obtain, publish("pmnist"), tmp_path / "data", mirror=server.url)


def test_two_commands_do_not_prepare_the_same_set(publish, server: FileServer, tmp_path: Path) -> None:
    card, root = publish("pmnist"), tmp_path / "data"

    def fetch(*args, **kwargs) -> None:
        raise UserError(refused(obtain, card, root, mirror=server.url))

    assert "another command is preparing PMNIST" in refused(obtain, card, root, mirror=server.url, fetch=fetch)


# --- verify


def test_a_changed_file_is_found_by_its_hash(publish, server: FileServer, tmp_path: Path) -> None:
    card, root = publish("cifar100"), tmp_path / "data"
    obtain(card, root, mirror=server.url)
    path = root / "cifar-100-python" / "test"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # a pixel
    path.write_bytes(content)
    assert f"the test images or labels of CIFAR-100 in {path.parent} are not the official" in refused(
        verify, card, root
    )


def test_a_changed_label_is_found_by_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = WRITERS["chaoyang"](tmp_path)
    card = replace(CATALOG["chaoyang"], train=5, test=2)
    monkeypatch.setitem(CATALOG, "chaoyang", card)
    obtain(card, tmp_path)
    assert verify(card, tmp_path)[1] == "counts, manifest as expected"
    entries = json.loads((folder / "train.json").read_text())
    entries[0]["label"] = 2
    (folder / "train.json").write_text(json.dumps(entries))
    obtain(card, tmp_path)
    assert "Chaoyang (train) is not what it was when it was prepared" in refused(verify, card, tmp_path)


def test_another_order_of_the_same_images_is_said_and_accepted(publish, server: FileServer, tmp_path: Path) -> None:
    card, root = publish("pmnist"), tmp_path / "data"
    obtain(card, root, mirror=server.url)
    path = root / "pneumoniamnist" / "pneumoniamnist.npz"
    with np.load(path) as file:
        content = dict(file)
    for key in ("train_images", "train_labels"):
        content[key] = content[key][::-1]
    np.savez_compressed(path, **content)
    assert "its images and labels are, in another order" in verify(card, root)[1]
    content["train_labels"] = 1 - content["train_labels"]
    np.savez_compressed(path, **content)
    assert "the train images or labels of PMNIST" in refused(verify, card, root)


def test_the_real_pmnist_is_the_frozen_one() -> None:
    if not (SHARED / "data" / "pneumoniamnist.npz").is_file():
        pytest.skip(f"needs {SHARED}/data/pneumoniamnist.npz (set SSAT_SHARED to the folder that holds data/)")
    assert "in another order" in verify(CATALOG["pmnist"], SHARED / "data")[1]


def test_the_digits_are_the_frozen_ones() -> None:
    assert manifest.describe(digits()) == manifest.FROZEN["digits"]


def test_frozen_counts_are_those_of_the_catalog() -> None:
    for name, splits in manifest.FROZEN.items():
        assert {split: of["images"] for split, of in splits.items()} == CATALOG[name].counts
        assert all(sum(of["per_class"]) == of["images"] for of in splits.values())


# --- the command


def test_a_set_is_prepared_and_checked_from_the_command_line(publish, server, tmp_path: Path, capsys) -> None:
    publish("pmnist")
    words = ["data=pmnist", f"data.root={tmp_path}/data"]
    assert prepare([*words, f"mirror={server.url}"]) == 0
    assert prepare([*words, "--check"]) == 0
    assert "counts, MD5, content, manifest as expected" in " ".join(capsys.readouterr().out.split())


def test_all_lists_every_set_and_fails_only_for_a_wrong_one(publish, server, tmp_path: Path, capsys) -> None:
    publish("svhn")
    root = f"data.root={tmp_path}/data"
    assert prepare(["data=svhn", root, f"mirror={server.url}"]) == 0
    assert prepare(["data=all", root, "--check"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in CATALOG) and text.count("absent") == 7 and text.count("ask for it") == 2
    (tmp_path / "data/svhn/train_32x32.mat").write_bytes(b"")
    assert prepare(["data=all", root, "--check"]) == 2


@pytest.mark.parametrize(
    ("name", "where"),
    [("imagenet", "https://www.image-net.org/download.php"), ("chaoyang", "bupt-ai-cz.github.io/HSA-NRL")],
)
def test_what_must_be_asked_for_says_where_and_shows_the_tree(tmp_path: Path, name: str, where: str) -> None:
    message = refused(prepare, [f"data={name}", f"data.root={tmp_path}"])
    assert where in message and f"expected {CATALOG[name].tree}" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say which data set"),
        (["data=cifr10"], "data=cifr10 does not exist (did you mean cifar10?)"),
        (["data=hf"], "there is nothing to prepare"),
        (["data="], "data needs a value"),
        (["data=svhn", "--chek"], "there is no option '--chek' (did you mean --check?)"),
        (["data=svhn", "mirror=/mnt"], "mirror='/mnt' is no address"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(words: list[str], message: str) -> None:
    assert message in refused(parse, words)


def test_the_exit_code_of_an_absent_set_is_two(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["prepare", "data=pmnist", f"data.root={tmp_path}", "--check"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2 and capsys.readouterr().err.startswith("error: PMNIST is not in data.root=")
