"""Tests that need root say so instead of failing; `make test` prints each with its reason."""

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("lab"):
            item.add_marker(pytest.mark.skip(reason="needs root and network namespaces: sudo make test"))
