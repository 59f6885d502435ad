"""Canonical JSON: one byte string for one value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core import canonical
from appliance.core.errors import RefusedError

_keys = st.text(st.characters(codec="ascii"), max_size=8)
_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-canonical.MAX_SAFE_INTEGER, canonical.MAX_SAFE_INTEGER)
    | st.text(st.characters(codec="utf-8"), max_size=12)
)
_values = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4)
)


@given(_values)
def test_decode_reads_what_encode_writes(value):
    assert canonical.decode(canonical.encode(value)) == value


@given(_values)
def test_encode_gives_the_same_bytes_for_the_same_value(value):
    assert canonical.encode(canonical.decode(canonical.encode(value))) == canonical.encode(value)


@pytest.mark.parametrize(
    "spelling",
    [
        b'{"a":1} ',
        b'{"a": 1}',
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":1.0}',
        b'{"a":1e2}',
        b'{"a":NaN}',
        b'"\\u0041"',
        b'"\\/"',
        b"01",
        b"-0",
        b"\xef\xbb\xbf1",
        b"\xff",
        b"",
        b"[" * 100_000,
        b'"\\ud800"',
        b"9007199254740992",
    ],
)
def test_a_second_spelling_is_refused(spelling):
    with pytest.raises(RefusedError):
        canonical.decode(spelling)


@pytest.mark.parametrize("value", [1.5, float("nan"), {1: 2}, {"ä": 1}, "\ud800", object(), 2**53, b"bytes"])
def test_a_value_without_canonical_form_is_refused(value):
    with pytest.raises(RefusedError):
        canonical.encode(value)
