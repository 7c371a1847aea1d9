"""Addresses of one database, for its three roles."""

from __future__ import annotations

from breaker_store.postgres.privileges import DEFAULT_APPLICATION, DEFAULT_MAINTENANCE


def as_maintenance(application_url: str) -> str:
    return application_url.replace(f"//{DEFAULT_APPLICATION}", f"//{DEFAULT_MAINTENANCE}", 1)
