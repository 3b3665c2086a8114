"""Fixtures for pytest; pytest finds them by itself where whimbrel is installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .testing import LocalHub


@pytest.fixture
def whimbrel_hub() -> Iterator[LocalHub]:
    """A hub that runs, with nothing in it; each test has its own."""
    with LocalHub() as hub:
        yield hub


@pytest.fixture(scope="session")
def whimbrel_session_hub() -> Iterator[LocalHub]:
    """A hub that runs, the same for all tests: quicker, and each test has to take device ids of its own."""
    with LocalHub() as hub:
        yield hub
