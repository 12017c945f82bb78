"""Filling a module with the tensors of a file, and saying in one sentence where the two differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy

from ssat.core.errors import UserError
from ssat.core.words import first_few

Written = Callable[[str], str]


@dataclass(frozen=True)
class Differences:
    """What keeps the tensors of a file from filling a module; true where there is anything.

    Attributes:
        missing: names that the file lacks.
        unexpected: names of the file that the module has not.
        misshapen: 'head.weight is (10, 64) in the file and (4, 64) here'.
    """

    missing: Sequence[str] = ()
    unexpected: Sequence[str] = ()
    misshapen: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    def __str__(self) -> str:
        """'2 tensors are missing (a, b), 5 are unexpected (c, d, e and 2 more)'"""
        parts: list[str] = []
        kinds = [("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.misshapen)]
        for kind, names in kinds:
            if names:
                word = "" if parts else " tensor" + "s" * (len(names) > 1)
                parts.append(f"{len(names)}{word} {'are' if len(names) > 1 else 'is'} {kind} ({first_few(names)})")
        return ", ".join(parts)


def tensors_in(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in nested dictionaries and lists, each with its way there.

    Example:
        >>> dict(tensors_in({"state": [torch.ones(1)]}, "optimizer"))
        {'optimizer.state.0': tensor([1.])}
    """
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, (Mapping, list, tuple)):
        for key, each in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from tensors_in(each, f"{name}.{key}" if name else str(key))


def non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of a tensor with an infinity or a NaN; None where all numbers are finite.

    Each tensor is read once, where it lies, and the host waits once for each device.
    """
    real = [(name, value) for name, value in tensors.items() if value.is_floating_point()]
    for _, group in groupby(sorted(real, key=lambda item: str(item[1].device)), key=lambda item: item[1].device):
        names, values = zip(*group, strict=True)
        # A sum is faster than a look at each number. It may overflow where all of them are finite.
        sums = torch.stack([value.detach().sum(dtype=torch.float32) for value in values])
        for index in (~torch.isfinite(sums)).nonzero().flatten().tolist():
            if not torch.isfinite(values[index]).all():
                return str(names[index])
    return None


def compare(module: nn.Module, given: Mapping[str, Tensor], written: Written = str) -> Differences:
    """Where `given` differs from the tensors of `module`.

    Args:
        module: to be filled.
        given: tensors by the module's names.
        written: the name that the file has for one of the module's.
    """
    own = module.state_dict()
    return Differences(
        [written(name) for name in own if name not in given],
        [written(name) for name in given if name not in own],
        [
            f"{written(name)} is {tuple(value.shape)} in the file and {tuple(own[name].shape)} here"
            for name, value in given.items()
            if name in own and own[name].shape != value.shape
        ],
    )


def require_same(module: nn.Module, given: Mapping[str, Tensor], wrong: str, cure: str, written: Written = str) -> None:
    """Refuse tensors that are not those of `module`, each of them and no others.

    Args:
        module: to be filled.
        given: tensors by the module's names.
        wrong: how the sentence begins where they differ, such as 'x.ckpt does not hold the network of runs/a'.
        cure: what to do then.
        written: the name that the file has for one of the module's.

    Raises:
        UserError: the two differ; says which tensors, and how many.
    """
    if found := compare(module, given, written):
        raise UserError(f"{wrong}: {found}; {cure}")


SMALL = 100_000_000  # parameters of a network that is built whatever its file holds: what is missing is said then


@contextmanager
def built_within(path: Path, wrong: str, cure: str) -> Iterator[None]:
    """Inside the block, no more parameters are made than the file of their weights has bytes, or a small network has.

    A configuration of a few bytes can describe a network of any size. Memory is only taken where a parameter is
    filled, which comes after the look at it here.

    Args:
        path: of the weights.
        wrong: how the sentence begins, such as 'x.ckpt does not hold the network of runs/a'.
        cure: what to do then.

    Raises:
        UserError: the network is larger.
    """
    size, made = path.stat().st_size, 0
    most = max(size, SMALL)
    too_large = f"{wrong}: the network has more parameters than the {size:,} bytes of its weights can hold; {cure}"

    def count(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        nonlocal made
        made += 0 if parameter is None or is_lazy(parameter) else parameter.numel()
        if made > most:
            raise UserError(too_large)

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    except RuntimeError as error:
        if "allocate memory" not in str(error):
            raise
        raise UserError(too_large) from error
    finally:
        hook.remove()


def fill(module: nn.Module, given: Mapping[str, Tensor], wrong: str, cure: str, written: Written = str) -> None:
    """Load all tensors of `given` into `module`, or none of them; arguments and errors of `require_same`."""
    require_same(module, given, wrong, cure, written)
    module.load_state_dict(given)
