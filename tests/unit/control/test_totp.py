"""Codes of authenticator apps, as RFC 6238 has them."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.operators import totp

SECRET = b"12345678901234567890"


@pytest.mark.parametrize(
    ("now_s", "code"),
    [
        (59, "287082"),
        (1_111_111_109, "081804"),
        (1_111_111_111, "050471"),
        (1_234_567_890, "005924"),
        (2_000_000_000, "279037"),
        (20_000_000_000, "353130"),
    ],
)
def test_codes_are_those_of_the_rfc(now_s: int, code: str) -> None:
    """Appendix B, of which an app shows the last six digits."""
    assert totp.code_of(SECRET, totp.step_at(now_s)) == code
    assert totp.matching_step(SECRET, code, now_s, after=0) == totp.step_at(now_s)


@given(now_s=st.integers(1_000, 2**36), off=st.integers(-5, 5))
def test_a_clock_may_be_one_step_off_and_no_more(now_s: int, off: int) -> None:
    step = totp.step_at(now_s)
    near = [totp.code_of(SECRET, step + at) for at in (-1, 0, 1)]
    code = totp.code_of(SECRET, step + off)
    found = totp.matching_step(SECRET, code, now_s, after=0)
    assert (found is not None) == (code in near)


@given(now_s=st.integers(1_000, 2**36), after=st.integers(-2, 2))
def test_no_step_is_taken_again_nor_one_before_it(now_s: int, after: int) -> None:
    step = totp.step_at(now_s)
    found = totp.matching_step(SECRET, totp.code_of(SECRET, step), now_s, after=step + after)
    assert found is None or found > step + after
    assert after >= 0 or found is not None


@pytest.mark.parametrize(
    "typed", ["", "28708", "2870820", "\uff12\uff18\uff17\uff10\uff18\uff12", "abcdef", "\ud800", "287082\n"]
)
def test_nothing_else_is_a_code(typed: str) -> None:
    assert totp.matching_step(SECRET, typed, 59, after=0) is None


def test_the_address_in_the_qr_code_says_all_that_an_app_needs() -> None:
    parts = urlsplit(totp.uri_of(SECRET, "Sovereign Appliance", "ada & co"))
    assert (parts.scheme, parts.netloc) == ("otpauth", "totp")
    assert parts.path == "/Sovereign%20Appliance%3Aada%20%26%20co"
    assert parse_qs(parts.query) == {
        "secret": ["GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"],
        "issuer": ["Sovereign Appliance"],
        "algorithm": ["SHA1"],
        "digits": ["6"],
        "period": ["30"],
    }
