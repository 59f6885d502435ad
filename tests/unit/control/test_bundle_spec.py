"""The example in docs/spec/bundle-v1.md is a real one: it parses, has the digest it names, and verifies."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from appliance.core.bundle import (
    Accepted,
    Bundle,
    Grant,
    Revocation,
    verify_bundle,
    verify_grant,
    verify_revocation,
)
from appliance.core.epoch import EpochStatement, verify_statement
from appliance.core.errors import BundleError

TEXT = (Path(__file__).parents[3] / "docs/spec/bundle-v1.md").read_text("utf-8")
EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]
SIGNATURES = re.findall(r"`([A-Za-z0-9+/]{86}==)`", TEXT)
KEY = re.findall(r"bundle key \| `(.{44})`", TEXT)[0]
DIGEST = re.findall(r"digest \| `([0-9a-f]{64})`", TEXT)[0]


def test_the_bundle_of_the_page_is_accepted() -> None:
    bundle = Bundle.parse(EXAMPLES[0])
    assert bundle.digest == DIGEST
    data = bundle.canonical_bytes()
    assert verify_bundle(data, SIGNATURES[0], public_key=KEY, node="node-a", accepted=None) == bundle
    with pytest.raises(BundleError):
        verify_bundle(data + b" ", SIGNATURES[0], public_key=KEY, node="node-a", accepted=None)


def test_the_revocation_of_the_page_is_accepted() -> None:
    revocation = Revocation.parse(EXAMPLES[1])
    accepted = Accepted(epoch=1, generation=7, digest=DIGEST)
    data = revocation.canonical_bytes()
    assert verify_revocation(data, SIGNATURES[1], public_key=KEY, node="node-a", accepted=accepted)
    with pytest.raises(BundleError):
        verify_revocation(data, SIGNATURES[0], public_key=KEY, node="node-a", accepted=accepted)


def test_the_grant_of_the_page_is_accepted() -> None:
    grant = Grant.parse(EXAMPLES[2])
    accepted = Accepted(epoch=1, generation=7, digest=DIGEST)
    data = grant.canonical_bytes()
    assert verify_grant(data, SIGNATURES[2], public_key=KEY, node="node-a", accepted=accepted)
    with pytest.raises(BundleError):
        verify_grant(data, SIGNATURES[1], public_key=KEY, node="node-a", accepted=accepted)


def test_the_statement_of_the_page_is_believed_once() -> None:
    statement = EpochStatement.parse(EXAMPLES[3])
    data = statement.canonical_bytes()
    restore = re.findall(r"restore key: `(.{44})`", TEXT)[0]
    assert verify_statement(data, SIGNATURES[3], restore_key=restore, bundle_key=KEY, epoch=1) == statement
    for wrong in ({"epoch": 2}, {"restore_key": KEY}, {"bundle_key": restore}, {"restore_key": None}):
        known = {"restore_key": restore, "bundle_key": KEY, "epoch": 1, **wrong}
        with pytest.raises(BundleError):
            verify_statement(data, SIGNATURES[3], **known)  # type: ignore[arg-type]


def test_the_page_names_every_field() -> None:
    words = set(re.findall(r"[a-z0-9_]+", " ".join(re.findall(r"^\| `.*", TEXT, re.MULTILINE))))

    def fields(value: object) -> set[str]:
        if isinstance(value, dict):
            return {str(key) for key in value} | set().union(*(fields(v) for v in value.values()), set())
        return set().union(*(fields(item) for item in value), set()) if isinstance(value, list) else set()

    bundle = {key: value for key, value in EXAMPLES[0].items() if key != "pins"}
    assert fields(bundle) | {"pins", "certificate"} | fields(EXAMPLES[1]) | fields(EXAMPLES[2]) <= words
