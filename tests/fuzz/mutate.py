"""Damage to the bytes of a file, drawn by a seed."""

from __future__ import annotations

import random
from collections.abc import Callable

NUMBERS = [b"-1", b"0", b"99999999999999999999", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'""', b'"\\ud800"']
TOKENS = [
    b"\x00",
    b"\xff" * 8,
    b"{" * 200,
    b"[" * 2000,
    b'"',
    b"\\",
    b"&a ",
    b"*a",
    b"!!python/object:os.system ",
    b"\r",
    b"- " * 300,
]


def _flipped(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice([1, 1, 2, 4, 16])):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _overwritten(data: bytearray, draw: random.Random) -> None:
    start, length = draw.randrange(len(data)), draw.choice([1, 2, 4, 8, 64, 512])
    fill = draw.choice([b"\x00", b"\xff", b"\x7f", b"\x80", bytes([draw.randrange(256)])])
    data[start : start + length] = fill * len(data[start : start + length])


def _cut(data: bytearray, draw: random.Random) -> None:
    del data[draw.choice([0, draw.randrange(len(data)), max(0, len(data) - draw.randrange(1, 64))]) :]


def _removed(data: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(data))
    del data[start : start + draw.choice([1, 4, 32, 256])]


def _repeated(data: bytearray, draw: random.Random) -> None:
    start, length = draw.randrange(len(data)), draw.choice([1, 16, 256])
    data[start:start] = data[start : start + length] * draw.choice([1, 2, 50])


def _inserted(data: bytearray, draw: random.Random) -> None:
    place = draw.randrange(len(data) + 1)
    data[place:place] = draw.choice([draw.choice(TOKENS), draw.choice(NUMBERS), draw.randbytes(draw.randrange(1, 64))])


def _another_number(data: bytearray, draw: random.Random) -> None:
    digits = [place for place in range(len(data)) if 48 <= data[place] <= 57]
    if digits:
        place = draw.choice(digits)
        data[place : place + 1] = draw.choice(NUMBERS)


def _swapped(data: bytearray, draw: random.Random) -> None:
    a, b, length = draw.randrange(len(data)), draw.randrange(len(data)), draw.choice([1, 4, 32])
    data[a : a + length], data[b : b + length] = data[b : b + length], data[a : a + length]


WAYS: list[Callable[[bytearray, random.Random], None]] = [_flipped, _overwritten, _cut, _removed, _repeated, _inserted]
WAYS += [_another_number, _swapped]


def mutated(data: bytes, draw: random.Random) -> bytes:
    """`data` after one to three kinds of damage; never as it was."""
    damaged = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 3])):
        if damaged:
            draw.choice(WAYS)(damaged, draw)
    return bytes(damaged) if bytes(damaged) != data else mutated(data, draw)
