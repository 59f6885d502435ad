"""Closed schemas: what they accept has one spelling, however it is encoded."""

from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from appliance.core import canonical
from appliance.core.errors import RefusedError
from appliance.core.receipt import Draft, Opening, Receipt, SignedReceipt
from appliance.core.schema import Closed, is_canonical_as_declared
from inference.notary.records import OpenRecord, ReceiptRecord

Safe = Annotated[int, Field(ge=-(2**53 - 1), le=2**53 - 1)]


class Inner(Closed):
    """In canonical order."""

    text: str
    truth: bool


class Sorted(Closed):
    """In canonical order, with one of everything that has a canonical form."""

    a: Safe
    b: tuple[Inner, ...]
    c: str | None
    kind: Literal["sorted"] = "sorted"
    v: Literal[1] = 1


class Unsorted(Closed):
    """Not in canonical order."""

    b: str
    a: str


class Around(Closed):
    """Holds one that is not."""

    inner: Unsorted


class Unbounded(Closed):
    """Holds integers that have no canonical form."""

    a: int


class Floating(Closed):
    """Holds what has no canonical form."""

    a: float


class Free(Closed):
    """Holds keys in any order."""

    a: dict[str, str]


class Anything(Closed):
    """Holds what nobody knows."""

    a: Any


@pytest.mark.parametrize(
    "schema", [Receipt, SignedReceipt, Opening, Draft, OpenRecord, ReceiptRecord, Sorted]
)
def test_what_is_encoded_thousands_of_times_a_second_is_declared_in_canonical_order(schema):
    assert is_canonical_as_declared(schema)


@pytest.mark.parametrize("schema", [Unsorted, Around, Unbounded, Floating, Free, Anything])
def test_a_schema_that_allows_another_spelling_is_encoded_by_hand(schema):
    assert not is_canonical_as_declared(schema)


@given(
    st.integers(-(2**53 - 1), 2**53 - 1),
    st.lists(st.tuples(st.text(st.characters(codec="utf-8")), st.booleans()), max_size=3),
    st.none() | st.text(st.characters(codec="utf-8")),
)
def test_both_ways_of_encoding_give_the_same_bytes(number, inner, text):
    value = Sorted(a=number, b=tuple(Inner(text=said, truth=true) for said, true in inner), c=text)

    assert value.canonical_bytes() == canonical.encode(value.model_dump(mode="json"))
    assert Sorted.parse_canonical(value.canonical_bytes()) == value


@pytest.mark.parametrize(
    "spelling",
    [
        b'{"a":1,"b":[],"c":null}',
        b'{"a":1,"b":[],"c":null,"kind":"sorted","v":true}',
        b'{"a":1,"b":[],"c":null,"v":1,"kind":"sorted"}',
        b'{"a":1,"b":[],"c":null,"kind":"sorted","kind":"sorted","v":1}',
        b'{"a":1,"b":[],"c":"\\u0041","kind":"sorted","v":1}',
        b'{"a":1,"b":[],"c":null,"kind":"sorted","v":1}\n',
        b'{"a":1.0,"b":[],"c":null,"kind":"sorted","v":1}',
        b'{"a":9007199254740992,"b":[],"c":null,"kind":"sorted","v":1}',
        b'{"a":1,"b":[],"c":null,"kind":"sorted","v":1,"more":1}',
    ],
)
def test_a_second_spelling_of_a_schemas_value_is_refused(spelling):
    with pytest.raises(RefusedError):
        Sorted.parse_canonical(spelling)


def test_an_integer_without_canonical_form_is_refused_where_the_schema_allows_it():
    with pytest.raises(RefusedError):
        Unbounded.parse_canonical(b'{"a":9007199254740992}')
    assert Unbounded.parse_canonical(b'{"a":9007199254740991}').a == 2**53 - 1
