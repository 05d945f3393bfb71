"""What every model of written-down content is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

INCONSISTENT = "inconsistent"
FOLDER = "folder"
"""Key of the context of a validation: the folder of the file."""
LATER = "later"
"""Key of the context of a validation: whether the caller looks at the rules between fields after all fields."""
SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
"""What most objects of Kubernetes may be called."""
VerdictValue = Literal["Passed", "Failed", "Inconclusive"]
"""How a trial, an evaluation or a check ends."""
VERDICT_VALUES: tuple[VerdictValue, ...] = get_args(VerdictValue)
Problem = tuple[tuple[str | int, ...], str]


def raise_inconsistent(problems: Iterator[Problem]) -> None:
    """Refuse values that are each valid but not together, naming the fields.

    Args:
        problems: Field, as a path below the validated model, and its problem.

    Raises:
        PydanticCustomError: There is a problem; its context has all of them under `problems`.
    """
    if listed := list(problems):
        text = "; ".join(f"{'.'.join(map(str, path))}: {message}" for path, message in listed)
        raise PydanticCustomError(INCONSISTENT, "{text}", {"text": text, "problems": listed})


class Strict(BaseModel):
    """Immutable. Unknown fields are refused, and so are NaN and infinities: no limit compares with them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Consistent(Strict):
    """Has rules between its fields."""

    def problems(self) -> Iterator[Problem]:
        """What does not fit together: field, as a path below this model, and problem."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Self:
        if not (info.context or {}).get(LATER):
            raise_inconsistent(self.problems())
        return self


class SecretKey(Strict):
    """One key of a Secret in the serving namespace."""

    name: Annotated[str, Field(pattern=SUBDOMAIN, max_length=253, description="Name of the Secret.")]
    key: Annotated[str, Field(pattern=r"^\.?[-_a-zA-Z0-9][-._a-zA-Z0-9]*$", description="Key of its data.")]
