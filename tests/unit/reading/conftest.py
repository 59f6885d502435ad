"""Chance that can be repeated."""

from random import Random

import pytest


@pytest.fixture
def random():
    return Random(1)
