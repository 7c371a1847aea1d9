"""The demo: a fleet of bots whose calls go to a service that misbehaves, each through its breaker."""

from __future__ import annotations

from breaker_store.demo.run import run_demo

__all__ = ["run_demo"]
