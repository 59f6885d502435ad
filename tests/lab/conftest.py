"""One lab for all tests that need machines: brought up once, taken down at the end."""

import pytest

from appliance.lab import lab as labs


@pytest.fixture(scope="session")
def lab():
    up = labs.up("test", lambda _what: None)
    yield up
    labs.down("test")
