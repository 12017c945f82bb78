from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from ssat.core.errors import UserError
from ssat.data.sets import ilsvrc
from ssat.data.sets.lists import imagenet
from tests.data.official import WNIDS


def refused(root: Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        ilsvrc.unpack(root, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """The three files of ILSVRC 2012 with three classes, as image-net.org packs them."""
    classes = {f"{wnid}.tar": tar_of({f"{wnid}_{n}.JPEG": b"image %d" % n for n in range(3)}) for wnid in WNIDS}
    (tmp_path / ilsvrc.TRAIN).write_bytes(tar_of(classes))
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 5)]
    (tmp_path / ilsvrc.VAL).write_bytes(tar_of({name: name.encode() for name in names}))
    synsets = np.zeros((4, 1), dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")])
    for row, wnid in enumerate((*WNIDS, "n00001740")):
        synsets[row, 0] = (row + 1, wnid, int(row == 3))
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    inside = "ILSVRC2012_devkit_t12/data/"
    devkit = {
        inside + "meta.mat": meta.getvalue(),
        inside + "ILSVRC2012_validation_ground_truth.txt": b"2\n1\n3\n2\n",
    }
    (tmp_path / ilsvrc.DEVKIT).write_bytes(tar_of(devkit))
    return tmp_path


def test_the_tar_files_of_imagenet_become_class_folders(tars: Path) -> None:
    ilsvrc.unpack(tars, md5={})
    source = imagenet(tars, verify=False)
    assert source.classes == list(WNIDS) and len(source.train) == 9 and source.test is not None
    labels = {
        Path(name).name: label for name, label in zip(source.test.images, source.test.labels.tolist(), strict=True)
    }
    assert [labels[f"ILSVRC2012_val_{number:08d}.JPEG"] for number in range(1, 5)] == [1, 0, 2, 1]
    assert sorted(path.name for path in (tars / "imagenet").iterdir()) == ["train", "val"]


def test_unpacking_imagenet_goes_on_with_the_classes_that_lack(tars: Path) -> None:
    whole = (tars / ilsvrc.TRAIN).read_bytes()
    (tars / ilsvrc.TRAIN).write_bytes(whole[: len(whole) // 2])
    assert "is damaged or truncated" in refused(tars, md5={})
    done = tars / "imagenet" / ".train.part" / WNIDS[0]
    assert len(list(done.iterdir())) == 3 and not (tars / "imagenet" / "train").exists()
    (done / "mark").write_text("")
    (tars / ilsvrc.TRAIN).write_bytes(whole)
    ilsvrc.unpack(tars, md5={})
    assert (tars / "imagenet" / "train" / WNIDS[0] / "mark").exists()


def test_validation_images_without_the_devkit_have_no_labels(tars: Path) -> None:
    (tars / ilsvrc.DEVKIT).unlink()
    assert f"has no labels: put {ilsvrc.DEVKIT} beside it" in refused(tars, md5={})


def test_another_imagenet_tar_is_refused_by_its_hash(tars: Path) -> None:
    assert f"{ilsvrc.TRAIN} has the MD5" in refused(tars)
