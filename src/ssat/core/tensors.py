"""Filling a module with the tensors of a file, and saying in one sentence where the two differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

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


def fill(module: nn.Module, given: Mapping[str, Tensor], wrong: str, cure: str, written: Written = str) -> None:
    """Load all tensors of `given` into `module`, or none of them; arguments and errors of `require_same`."""
    require_same(module, given, wrong, cure, written)
    module.load_state_dict(given)
