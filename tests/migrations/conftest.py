"""Migrating is the owner's affair."""

from __future__ import annotations

import pytest


@pytest.fixture
def database_url(owner_url: str) -> str:
    return owner_url
