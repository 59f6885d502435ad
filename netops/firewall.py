"""The table `inet appliance` in the kernel, and the kernel's connection tracking: observe and apply.

What the kernel holds is compared, not what was loaded last. nft prints rules in its own spelling, so the listing
right after our own load is remembered (in /run, which ends when the kernel's tables do); a listing that differs from
it means that somebody changed the table, and it is loaded again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from appliance.core.errors import HostError
from appliance.core.storage import read_or_none, write_atomic
from netops import command, nftables
from netops.model import Firewall
from netops.nftables import Elements

_TABLE = nftables.TABLE.split()
_ORIGINAL_SOURCE = re.compile(rb"\bsrc=([0-9a-f.:]+)")


class FirewallTable:
    """Our nftables table.

    Args:
        run: Folder of the remembered listing.
    """

    def __init__(self, run: Path) -> None:
        self._memory = run / "firewall.json"

    def observe(self) -> tuple[bool, Firewall]:
        """Return whether the table is loaded, and what it holds."""
        listing = self._listing()
        if listing is None:
            return False, Firewall(None)
        sets = self._sets()
        held = {name: sets.get(name, frozenset()) for name in nftables.SETS}
        return True, Firewall(self._rules(listing), **held)

    def load(self, rules: str, elements: Elements) -> None:
        """Replace the table in one transaction; a bad one leaves the old table as it was."""
        self._transact(nftables.render_load(rules, elements))
        listing = self._listing()
        if listing is None:
            raise HostError("the firewall was loaded and is not there")
        remembered = {"listing": hashlib.sha256(listing).hexdigest(), "rules": rules}
        write_atomic(self._memory, json.dumps(remembered).encode("ascii"), 0o600)

    def add(self, elements: Elements) -> None:
        """Put addresses into the sets."""
        self._transact(nftables.render_add(elements))

    def delete(self, elements: Elements) -> None:
        """Take addresses out of the sets; one that is not there is no error."""
        self._transact(nftables.render_delete(elements))

    def end_flows(self, addresses: Iterable[str]) -> None:
        """Drop connection tracking entries of these source addresses; none is no error."""
        gone = set(addresses)
        for family in ("ipv4", "ipv6"):
            ours = {address for address in gone if (":" in address) == (family == "ipv6")}
            # One look at the table instead of a process for each of thousands of addresses.
            for address in sorted(ours & tracked_sources(family)) if ours else ():
                # Exit code 1: the entry ended by itself meanwhile.
                command.attempt(["conntrack", "-D", "-f", family, "-s", address])

    def _transact(self, text: bytes) -> None:
        if not text:
            return
        # One transaction: of a text that nft refuses nothing is done (nft(8)).
        command.run(["nft", "--file", "-"], stdin=text, quote_error=True)

    def _listing(self) -> bytes | None:
        code, output, _ = command.attempt(["nft", "--stateless", "--terse", "list", "table", *_TABLE])
        return output if code == 0 else None

    def _rules(self, listing: bytes) -> str | None:
        try:
            remembered = json.loads(read_or_none(self._memory) or b"")
            same = remembered["listing"] == hashlib.sha256(listing).hexdigest()
            return str(remembered["rules"]) if same else None
        except (ValueError, KeyError, TypeError):
            return None

    def _sets(self) -> dict[str, frozenset[str]]:
        code, output, _ = command.attempt(["nft", "--json", "list", "sets", "table", *_TABLE])
        return nftables.parse_sets(output) if code == 0 else {}


def tracked_sources(family: str) -> set[str]:
    """Return the source addresses of all tracked connections of a family (`ipv4` or `ipv6`)."""
    code, output, _ = command.attempt(["conntrack", "-L", "-f", family])
    if code != 0:
        raise HostError("conntrack cannot list connections", hint="apt install conntrack; run as root")
    # The first src= of a line is the side that opened the connection.
    matches = (_ORIGINAL_SOURCE.search(line) for line in output.splitlines())
    return {match[1].decode("ascii") for match in matches if match}
