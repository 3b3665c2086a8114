"""The log of the core, as that of Python: loggers ``whimbrel`` and below."""

from __future__ import annotations


def start() -> None:
    """Called whenever a client is opened."""
