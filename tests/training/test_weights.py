import argparse
import errno
import subprocess
from functools import partial
from itertools import islice, permutations
from pathlib import Path

import pytest
import torch

from ssat.config.command_line import disk_space
from ssat.core.checkpoints import encoder_weights, load_checkpoint, unwrapped
from ssat.core.errors import UserError
from ssat.encoders.base import Encoder
from ssat.encoders.swin import SwinTransformer
from ssat.encoders.timm_vit import TimmVisionTransformer
from ssat.encoders.vit import VisionTransformer
from ssat.training.checkpoint_io import AtomicCheckpointIO
from ssat.training.weights import load_encoder, load_pretrained
from tests.helpers import record_of, train


def small(**sizes) -> VisionTransformer:
    return VisionTransformer(**({"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2} | sizes))


def prefixed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"encoder.{name}": value for name, value in state.items()}


def same(a: Encoder, b: Encoder) -> bool:
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


@pytest.mark.parametrize("layout", ["ours", "authors"])
def test_encoder_weights_come_from_our_checkpoints_and_from_the_authors_layout(tmp_path, layout):
    source, target = small(), small()
    state = source.state_dict()
    if layout == "ours":
        content = {"state_dict": prefixed(state) | {"head.bias": torch.ones(3)}}
    else:
        decoder = {"mask_token": torch.ones(1, 1, 8), "decoder_embed.bias": torch.ones(8), "head.bias": torch.ones(3)}
        content = {"model": state | decoder, "args": argparse.Namespace(lr=1.0)}
    torch.save(content, tmp_path / "file.pth")
    assert not same(source, target)
    load_encoder(target, tmp_path / "file.pth")
    assert same(source, target)


def test_safetensors_are_read(tmp_path):
    from safetensors.torch import save_file

    source, target = small(), small()
    save_file(prefixed(source.state_dict()), tmp_path / "w.safetensors")
    load_encoder(target, tmp_path / "w.safetensors")
    assert same(source, target)


PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.", "encoder.", "student.")
BESIDE = {"head.weight": torch.ones(3, 32), "teacher.norm.weight": torch.ones(32), "cls_head.bias": torch.ones(3)}
SMALL_SWIN = {"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 4)}


@pytest.mark.parametrize(
    "make",
    [small, partial(SwinTransformer, 32, 2, 4, 4, **SMALL_SWIN), partial(TimmVisionTransformer, "test_vit", 32)],
    ids=["vit", "swin", "timm"],
)
def test_prefixes_in_any_order_and_any_container_are_taken_away(tmp_path, make):
    """Every order of up to three prefixes, and some of all six, by the names of ours and of timm's networks."""
    source, target = make(), make()
    orders = [order for count in range(4) for order in permutations(PREFIXES, count)]
    orders += islice(permutations(PREFIXES), 0, None, 97)
    own = source.state_dict()
    for order in orders:
        tensors = {f"{''.join(order)}{name}": value for name, value in own.items()}
        assert unwrapped(tensors | BESIDE if order else tensors, own).keys() == own.keys(), order
    containers = ["state_dict", "model", "module", "model_ema", "state_dict_ema", "student"]
    for number, path in enumerate([*permutations(containers, 1), *permutations(containers, 2)]):
        content = {f"{''.join(orders[-1 - number])}{name}": value for name, value in own.items()} | BESIDE
        for key in reversed(path):
            content = {key: content, "epoch": 3, "args": argparse.Namespace(lr=1.0)}
        torch.save(content, tmp_path / "f.pth")
        found = encoder_weights(tmp_path / "f.pth", own)
        assert found.keys() == own.keys() and all(torch.equal(value, own[name]) for name, value in found.items()), path
    assert not same(source, target)
    load_encoder(target, tmp_path / "f.pth")
    assert same(source, target)
    assert load_pretrained(make(), str(tmp_path / "f.pth")).startswith(f"{len(own)} of {len(own)} tensors")


def test_of_raw_and_averaged_weights_the_raw_ones_are_read(tmp_path):
    raw, averaged, target = small(), small(), small()
    torch.save({"model_ema": averaged.state_dict(), "model": raw.state_dict()}, tmp_path / "f.pth")
    load_encoder(target, tmp_path / "f.pth")
    assert same(raw, target)


@pytest.mark.parametrize("content", [{"state_dict": [1]}, {"epoch": 3}, {"model": {"state_dict": {}}}], ids=str)
def test_a_file_without_tensors_is_named(tmp_path, content):
    torch.save(content, tmp_path / "f.pth")
    with pytest.raises(UserError, match=r"f\.pth is damaged, it has no state_dict of tensors"):
        load_encoder(small(), tmp_path / "f.pth")


def test_weights_of_a_diverged_training_are_refused(tmp_path):
    state = small().state_dict()
    state["blocks.1.norm1.weight"][3] = float("nan")
    torch.save({"state_dict": prefixed(state)}, tmp_path / "f.ckpt")
    with pytest.raises(UserError, match=r"f.ckpt holds nan or infinity, first in blocks.1.norm1.weight"):
        load_encoder(small(), tmp_path / "f.ckpt")


def test_a_learnable_position_table_is_resampled_to_another_grid(tmp_path):
    source, target = small(pos_embed="learnable"), small(pos_embed="learnable", img_size=32)
    torch.save({"state_dict": prefixed(source.state_dict())}, tmp_path / "f.ckpt")
    load_encoder(target, tmp_path / "f.ckpt")
    assert target.pos_embed.shape == (1, 65, 32)
    assert torch.equal(target.pos_embed[:, 0], source.pos_embed[:, 0])
    assert torch.equal(target.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)


def test_a_fixed_position_table_follows_the_image_size(tmp_path):
    target = small(img_size=32)
    table = target.pos_embed.clone()
    torch.save({"state_dict": prefixed(small().state_dict())}, tmp_path / "f.ckpt")
    load_encoder(target, tmp_path / "f.ckpt")
    assert torch.equal(target.pos_embed, table)


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        (
            {"depth": 3},
            "12 tensors are unexpected (blocks.2.norm1.weight, blocks.2.norm1.bias, "
            "blocks.2.attn.qkv.weight and 9 more)",
        ),
        ({"embed_dim": 64}, "(1, 1, 64) in the file and (1, 1, 32) here"),
        ({"qkv_bias": False}, "2 tensors are missing (blocks.0.attn.qkv.bias, blocks.1.attn.qkv.bias)"),
    ],
)
def test_weights_of_another_encoder_are_refused_with_the_difference(tmp_path, sizes, sentence):
    torch.save({"state_dict": prefixed(small(**sizes).state_dict())}, tmp_path / "other.ckpt")
    with pytest.raises(UserError) as caught:
        load_encoder(small(), tmp_path / "other.ckpt")
    assert "is of another encoder" in str(caught.value) and sentence in str(caught.value)


class Trojan:
    def __reduce__(self):
        return print, ("code was run",)


def test_a_checkpoint_that_holds_code_is_refused_and_not_run(tmp_path, capsys):
    torch.save({"state_dict": {}, "extra": Trojan()}, tmp_path / "bad.ckpt")
    with pytest.raises(UserError, match="holds more than tensors and plain values"):
        load_checkpoint(tmp_path / "bad.ckpt")
    assert "code was run" not in capsys.readouterr().out


def test_a_cut_checkpoint_is_named(tmp_path):
    torch.save({"a": torch.ones(1000)}, tmp_path / "whole.ckpt")
    content = (tmp_path / "whole.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"cut.ckpt is not a readable checkpoint"):
        load_checkpoint(tmp_path / "cut.ckpt")


def test_a_failed_save_leaves_the_old_checkpoint_and_no_rest(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    with pytest.raises(Exception, match="pickle"):
        AtomicCheckpointIO().save_checkpoint({"step": 2, "code": lambda: 0}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("free", [4_000, 60_000, 120_000])
def test_a_save_that_meets_a_full_disk_says_so_wherever_it_is_cut(tiny_disk, free):
    (tiny_disk / "filler").write_bytes(b"x" * (2 * 2**20 - free))
    content = {f"tensor{i}": torch.randn(5_000) for i in range(10)}
    with pytest.raises(UserError, match="no space left on the disk"), disk_space():
        AtomicCheckpointIO().save_checkpoint(content, tiny_disk / "last.ckpt")
    assert [file.name for file in tiny_disk.iterdir()] == ["filler"]


def test_a_full_disk_is_a_sentence_and_no_traceback():
    with (
        pytest.raises(UserError, match="no space left on the disk writing /x: free some, then the same command"),
        disk_space(),
    ):
        raise OSError(errno.ENOSPC, "No space left on device", "/x")


@pytest.fixture
def tiny_disk(tmp_path) -> Path:
    """A file system of 2 MiB, where this machine lets us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_run_on_a_full_disk_stops_with_a_good_checkpoint_and_continues_when_there_is_room(tiny_disk):
    filler = tiny_disk / "filler"
    run = tiny_disk / "run"
    settings = [f"run_dir={run}", "epochs=2", "ssl.decoder_dim=32", "ssl.decoder_heads=2", "reconstruct_every=0"]
    settings += ["checkpoint_keep=1"]
    filler.write_bytes(b"x" * 1_300_000)
    with pytest.raises(UserError, match="no space left on the disk"):
        train(*settings, "epochs=3", runs=tiny_disk)
    for path in run.glob("**/*.ckpt"):
        load_checkpoint(path)
    filler.unlink()
    assert record_of(train(*settings, "epochs=3", runs=tiny_disk))["status"] == "finished"
