"""The argument that names a user."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

UserId: TypeAlias = Annotated[int, typer.Argument(min=-(2**63), max=2**63 - 1, help="Whose breaker.")]
