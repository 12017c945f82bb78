"""What a task lacks of the contract, and whether it can serve an encoder, said before it is built."""

from __future__ import annotations

from ssat.core.errors import UserError
from ssat.encoders.base import Encoder
from ssat.tasks.base import Task


def task_class(make: object, kind: str) -> type[Task]:
    """`make`, if it is a complete class of tasks.

    Args:
        make: what `ssl.kind` names.
        kind: the value of `ssl.kind`.

    Raises:
        UserError: says what `make` lacks.
    """
    name = getattr(make, "__name__", type(make).__name__)
    if not (isinstance(make, type) and issubclass(make, Task)):
        problem = "is not a class of tasks: derive it from ssat.tasks.base.Task"
    elif make.forward is Task.forward:
        problem = "has no method forward(encoder, batch, with_features), which gives the loss"
    else:
        return make
    raise UserError(f"ssl.kind={kind}: {name} {problem}", key="ssl.kind", value=kind)


def check_contract(make: object, encoder: Encoder, *, kind: str, name: str | None = None) -> None:
    """Refuse a class that is no complete `Task`, and an encoder that it cannot serve.

    Args:
        make: what `ssl.kind` names.
        encoder: the encoder to be trained.
        kind: the value of `ssl.kind`.
        name: of the task, as the user types it after `ssl=`.

    Raises:
        UserError: says what is missing.
    """
    task_class(make, kind).check_encoder(encoder, name)
