"""Weight files with flipped bytes: read, or refused in one sentence."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ssat.core.checkpoints import encoder_weights, load_checkpoint, read_safetensors
from ssat.core.errors import UserError


def tensors() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(12.0).view(3, 4), "b": torch.zeros(2, dtype=torch.int64), "c": torch.ones(())}


def mutants(sound: bytes, draw: random.Random, head: int) -> list[bytes]:
    """100: bytes changed in the header and anywhere, cut, lengthened, doubled, a length that is none."""
    found = [sound[:size] for size in (0, 1, 7, 8, 9, head, len(sound) - 1)]
    found += [sound + b"x", sound * 2, b"\xff" * 8 + sound[8:], bytes(8) + sound[8:], b"PK\3\4" + sound[4:]]
    while len(found) < 100:
        data = bytearray(sound)
        for _ in range(draw.choice([1, 1, 2, 8])):
            data[draw.randrange(head if draw.random() < 0.8 else len(data))] = draw.choice(
                [0, 34, 48, 57, 255, 123, 91]
            )
        found.append(bytes(data))
    return found


def refused(read: Callable[[Path], object], path: Path) -> bool:
    try:
        read(path)
    except UserError as error:
        return "\n" not in str(error) and path.name in str(error)
    return True  # a change that does no harm, or one that only a checksum tells


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("read", [read_safetensors, lambda path: encoder_weights(path, ["b"])], ids=["all", "encoder"])
def test_a_mutated_safetensors_file_is_one_sentence(tmp_path: Path, read: Callable[[Path], object], seed: int) -> None:
    path = tmp_path / "a.safetensors"
    save_file(tensors(), path)
    sound = path.read_bytes()
    for number, data in enumerate(mutants(sound, random.Random(seed), len(sound) - 116)):
        path.write_bytes(data)
        assert refused(read, path), number


HEADERS = {
    "zeros": lambda data: bytes(4) + data[4:],
    "one bit": lambda data: b"QK\3\4" + data[4:],
    "text": lambda data: b"<htm" + data[4:],
    "global": lambda data: b"cos\n" + data[4:],
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_checkpoint_whose_zip_header_is_damaged_is_called_damaged(tmp_path: Path, name: str) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": tensors()}, path)
    path.write_bytes(HEADERS[name](path.read_bytes()))
    with pytest.raises(UserError) as caught:
        load_checkpoint(path)
    said = str(caught.value)
    assert ("damaged" in said or "not a readable checkpoint" in said) and "more than tensors" not in said


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("called",)


def test_a_checkpoint_with_code_still_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": Evil()}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="holds more than tensors and plain values"):
        load_checkpoint(tmp_path / "a.ckpt")
    assert capsys.readouterr().out == ""
