"""Which figures are reported, and their bounds. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from appliance.bench.receipts.admission import Grown
from appliance.bench.report import Check

SIGNED_PER_S, ADMITTED_PER_S = 2000.0, 2000.0
COST_RATIO = 1.5
PROOF_BYTES, WITNESS_BYTES = 5000.0, 3300.0
VERIFY_MS = 5.0
_RECORDS = 2  # that a session makes durable: that it was opened, and its receipt


@dataclass(frozen=True)
class Signing:
    """What the notary and the disk did, each figure once a round.

    Attributes:
        sessions_per_s: By the number of sessions at once.
        alone_per_s: Records of the notary's size per second, one bare fsync each.
        grouped_per_s: The same with one fsync for as many as the most sessions at once.
        record_bytes: Their size.
        cpu_us: Processor time of the notary for each session, with the most at once.
        early: Replies that came before the disk had what they answer, None where the kernel cannot say.
        early_control: The same from a notary whose fsync does nothing.
        asked: Sessions behind `early`.
    """

    sessions_per_s: Mapping[int, Sequence[float]]
    alone_per_s: Sequence[float]
    grouped_per_s: Sequence[float]
    record_bytes: int
    cpu_us: Sequence[float]
    early: int | None
    early_control: int | None
    asked: int


def check_signing(signing: Signing) -> Iterator[Check]:
    """Yield the notary's figures; medians of the rounds."""
    most = max(signing.sessions_per_s)
    rounds = len(signing.alone_per_s)
    rates = {count: statistics.median(values) for count, values in signing.sessions_per_s.items()}
    alone, grouped = statistics.median(signing.alone_per_s), statistics.median(signing.grouped_per_s)
    for count, rate in rates.items():
        bound = SIGNED_PER_S if count == most else None
        yield Check(
            f"receipts signed and fsynced, {_sessions(count)}", rate, bound, "/s", rounds, at_least=True
        )
    cpu_us = statistics.median(signing.cpu_us)
    yield Check(f"processor time of the notary for each, {_sessions(most)}", cpu_us, None, "us", rounds)
    size = f"{signing.record_bytes} B"
    yield Check(f"bare fsync, one for each record of {size}", alone, None, "/s", rounds)
    yield Check(f"bare fsync, one for {most} records", grouped, None, "/s", rounds)
    yield Check(
        "records of 1 session, to bare fsync of each", _RECORDS * rates[min(rates)] / alone, None, "x", rounds
    )
    yield Check(
        f"records of {_sessions(most)}, to bare fsync of {most}",
        _RECORDS * rates[most] / grouped,
        None,
        "x",
        rounds,
    )
    if signing.early is not None:
        yield Check(
            "replies before the disk had what they answer", signing.early, 0, "", _RECORDS * signing.asked
        )


def check_admission(grown: Sequence[Grown]) -> Iterator[Check]:
    """Yield control's figures at each size, smallest first, and how the cost of a leaf grew."""
    for one in grown:
        yield from _check_size(one)
    first, last = grown[0], grown[-1]
    if first is not last:
        ratio = _median_s(last) / _median_s(first)
        name = f"cost of a leaf, at {last.leaves:,} to {first.leaves:,}"
        yield Check(name, ratio, COST_RATIO, "x", len(first.rounds))


def _check_size(one: Grown) -> Iterator[Check]:
    at, proofs = f"at {one.leaves:,}", one.proofs
    admitted = one.admitted
    cpu_us = sum(took.cpu_s for took in one.rounds) / admitted * 1e6
    bare_us = statistics.fmean(took.bare_s for took in one.rounds) * 1e6
    yield Check(
        f"receipts admitted and logged, {at}", one.per_s, ADMITTED_PER_S, "/s", admitted, at_least=True
    )
    yield Check(f"processor time for each, {at}", cpu_us, None, "us", admitted)
    yield Check(f"the same, to a bare Ed25519 verification, {at}", cpu_us / bare_us, None, "x", admitted)
    yield Check(f"largest proof, {at}", proofs.proof_bytes, PROOF_BYTES, "B", proofs.proven)
    yield Check(f"a witness adds, {at}", proofs.witness_bytes, WITNESS_BYTES, "B", 1)
    yield Check(f"proof made, median, {at}", proofs.prove_ms, None, "ms", proofs.proven)
    yield Check(f"proof verified, median, {at}", proofs.verify_ms, VERIFY_MS, "ms", proofs.verified)
    yield Check(f"database, for each receipt admitted, {at}", proofs.receipt_bytes, None, "B", admitted)
    yield Check(f"tiles on the disk, for each leaf, {at}", proofs.leaf_bytes, None, "B", proofs.size)
    yield Check(f"peak memory of control, {at}", proofs.peak_bytes / 2**20, None, "MiB", 1)
    yield Check(f"rows of receipts in the database, {at}", proofs.rows, None, "", 1)


def check_control(signing: Signing, grown: Sequence[Grown]) -> tuple[str, bool]:
    """Return what shows that the run could have failed, and whether it did."""
    name = "no proof fits another leaf, a changed receipt gets an alarm and no place"
    refused = all(one.proofs.refused_other and one.proofs.refused_changed for one in grown)
    if signing.early_control is None:
        return name, refused
    return f"{name}, a notary without fsync is told apart", refused and signing.early_control > 0


def _median_s(one: Grown) -> float:
    return statistics.median(took.wall_s for took in one.rounds)


def _sessions(count: int) -> str:
    return "1 session" if count == 1 else f"{count} sessions"
