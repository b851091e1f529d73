"""What every test needs: no test leaves the process other than it found it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def umask_of_a_system() -> Iterator[None]:
    """The command line makes its own files private; a test that runs it in this process must not do so to the next."""
    before = os.umask(0o022)
    yield
    os.umask(before)
