"""Labs for the tests of this room: one shared, and one to be broken."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .lab_under_test import LabUnderTest, make_site


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabUnderTest]:
    """A lab that is up for the whole session; tests leave it whole."""
    made = LabUnderTest(f"ta{os.getpid() % 1000000}", make_site(tmp_path_factory.mktemp("site")))
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture
def spare_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabUnderTest]:
    """A lab that is not up yet; whatever a test does with it, it is removed afterwards."""
    made = LabUnderTest(f"tb{os.getpid() % 1000000}", make_site(tmp_path_factory.mktemp("spare")))
    try:
        yield made
    finally:
        made.down()
