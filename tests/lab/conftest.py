"""One lab for all tests that need machines: brought up once, taken down at the end."""

import os

import pytest

from appliance.lab import lab as labs


def pytest_collection_modifyitems(items):
    """Tests that need root say so instead of failing; `make test` prints each with its reason."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("lab"):
            item.add_marker(pytest.mark.skip(reason="needs root and network namespaces: sudo make test"))


@pytest.fixture(scope="session")
def lab():
    up = labs.up("test", lambda _what: None)
    yield up
    labs.down("test")
