"""What the console's tests look at: a control with something of everything, and a strict reader of pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any, Final

from control_cast import OverTls, new_public_key, store_pin
from django.conf import settings
from django.contrib.auth.models import User
from django.utils import timezone
from simulated_node import SimulatedNode, report

from appliance.core.health import Health
from appliance.core.receipt import End, NodeKey, make_keyring
from appliance.core.signing import public_text
from control.audit.models import AlarmKind, ReceiptRecord
from control.audit.pseudonyms import pseudonym_of
from control.audit.services import admit_receipt, raise_alarm
from control.clients.enrolment import add_device
from control.clients.invitations import invite
from control.clients.models import Client, Device, Invitation, InvitationState
from control.clients.requests import NewClient, NewDevice, NewInvitation
from control.clients.services import create_client, suspend_client
from control.fleet.history import record_health
from control.fleet.models import BundleRecord, Node
from control.operators.models import ApiToken
from control.operators.roles import Role
from control.operators.services import NewOperator, NewToken, create_operator, create_token
from control.pins.aliases import NewAlias, set_alias
from control.pins.models import ClientAlias, ModelPin, PinState
from control.reconciler.keys import ReconcilerKeys
from control.transparency.keeper import Keeper

HEALTH: Final = report(
    accepted={"epoch": 1, "generation": 2, "digest": "d" * 64},
    boot="b" * 32,
    cells=[{"client": "acme", "confined": True, "pid": 4711, "rss_bytes": 61_000_000}],
    disks=[{"name": "root", "free_bytes": 70_000_000_000, "total_bytes": 100_000_000_000}],
    seats={"taken": 1, "total": 2},
    uptime_s=93_784,
)


@dataclass
class World:
    """A control that has been in use for a while."""

    node: Node
    pin: ModelPin
    client: Client
    simulated: SimulatedNode
    keys: ReconcilerKeys
    device: Device = field(init=False)
    logged: ReceiptRecord = field(init=False)
    invalid: ReceiptRecord = field(init=False)
    waiting: ReceiptRecord = field(init=False)
    bob: User = field(init=False)
    token: ApiToken = field(init=False)
    invitation: Invitation = field(init=False)
    alias: ClientAlias = field(init=False)
    verified: ModelPin = field(init=False)

    def issue(self, count: int, client: Client | None = None, **changes: Any) -> list[ReceiptRecord]:
        """Admit receipts of a client."""
        keyring = make_keyring(
            (NodeKey(node=self.node.name, public_key=public_text(self.simulated.receipt_key)),), self.keys.log
        )
        settings.PATHS.keyring.write_bytes(keyring.canonical_bytes())
        for _ in range(count):
            signed = self.simulated.issue_receipt(pseudonym_of(client or self.client), **changes)
            assert admit_receipt(self.node, signed, keyring)
        return list(ReceiptRecord.objects.order_by("-pk")[:count])[::-1]

    def log(self) -> int:
        """Give them their places."""
        return Keeper(settings.PATHS.log, self.keys.checkpoints).keep()


def make_world(node: Node, pin: ModelPin, keys: ReconcilerKeys) -> World:
    """Fill a control: two clients, two devices, receipts in each state, alarms, bundles,
    operators, a token."""
    client, other = create_client(NewClient(name="acme")), create_client(NewClient(name="bolt"))
    suspend_client(other)
    world = World(node, pin, client, SimulatedNode(node.name, public_text(keys.bundle)), keys)
    world.bob = create_operator(NewOperator(name="bob", role=Role.VIEWER), None)
    create_operator(NewOperator(name="dora", role=Role.OPERATOR), None)
    create_token(NewToken(operator="dora", name="backup", networks=("10.0.0.0/8",)))
    world.token = ApiToken.objects.get()
    (world.logged,) = world.issue(1)
    world.log()
    (world.invalid,) = world.issue(1, end=End.CRASHED)
    ReceiptRecord.objects.filter(pk=world.invalid.pk).update(verified=False)
    (world.waiting,) = world.issue(1)
    for name in ("laptop", "phone"):
        add_device(NewDevice(client="acme", name=name, public_key=new_public_key()))
    world.device = Device.objects.get(name="laptop")
    invite(NewInvitation(client="acme", device="tablet"))
    shown = invite(NewInvitation(client="acme", device="terminal", approval=True))
    world.invitation = Invitation.objects.get(pk=shown.id)
    world.invitation.public_key, world.invitation.state = new_public_key(), InvitationState.REDEEMED
    world.invitation.save()
    world.verified = store_pin(b"GGUF other weights", PinState.VERIFIED, version="2.0")
    world.alias = set_alias(NewAlias(client="acme", alias="chat", model=pin.name))
    now = timezone.now()
    for generation in (1, 2, 3):
        accepted_at = now if generation < 3 else None
        BundleRecord.objects.create(
            node=node,
            epoch=1,
            generation=generation,
            digest=f"{generation}" * 64,
            content="c" * 64,
            accepted_at=accepted_at,
        )
    BundleRecord.objects.update(created_at=now - timedelta(minutes=5))
    Node.objects.update(health=HEALTH, last_seen_at=now, version="0.1.0", boot="b" * 32)
    for minutes in (3, 2, 1):
        record_health(node, Health.parse(HEALTH), 0, now - timedelta(minutes=minutes))
    raise_alarm(node, AlarmKind.CHAIN_GAP, world.invalid.receipt_id)
    raise_alarm(node, AlarmKind.NODE_SILENT, "2026-01-01T00:00:00+00:00")
    node.refresh_from_db()
    return world


def browser_of(role: Role, *, csrf: bool = False) -> OverTls:
    """A browser in which an operator of a role is signed in."""
    user = User.objects.filter(username=role).first() or create_operator(
        NewOperator(name=role, role=role), None
    )
    browser = OverTls(enforce_csrf_checks=csrf, raise_request_exception=False)
    browser.force_login(user)
    return browser


_VOID = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"]
)
_EMPTY_SVG = frozenset({"path", "rect", "circle", "line"})
_BLOCKS = frozenset(
    [
        "div",
        "p",
        "ul",
        "ol",
        "dl",
        "table",
        "section",
        "form",
        "fieldset",
        "figure",
        "h1",
        "h2",
        "h3",
        "pre",
        "details",
        "nav",
        "main",
        "header",
    ]
)
_HEADINGS = ("h1", "h2", "h3", "h4")


@dataclass
class Element:
    """An element of a page."""

    tag: str
    attributes: dict[str, str]
    text: str = ""
    within: tuple[str, ...] = ()


@dataclass
class PageReader(HTMLParser):
    """Reads a page as strictly as the rules say. `problems` holds what breaks them.

    Well-formed: every element is closed, by itself, in order; no attribute and no id comes twice. Safe: no inline script or style, no
    handler, no other host. Usable: a language, a title, one h1, no heading level left out, names for forms' fields, buttons, links,
    images, tables and regions; references that lead somewhere.
    """

    elements: list[Element] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _open: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    @classmethod
    def read(cls, text: str) -> PageReader:
        """Read a whole page."""
        reader = cls()
        if not text.startswith("<!doctype html>"):
            reader.problems.append("no doctype")
        reader.feed(text)
        reader.close()
        reader.problems += [f"<{element.tag}> is not closed" for element in reader._open]
        reader.problems += [*reader._unsafe(), *reader._unusable()]
        return reader

    def all(self, *tags: str) -> list[Element]:
        """Return the elements with one of these names."""
        return [element for element in self.elements if element.tag in tags]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if len({name for name, _ in attrs}) != len(attrs):
            self.problems.append(f"<{tag}> has an attribute twice")
        if tag in _BLOCKS and any(element.tag in ("p", "h1", "h2", "h3") for element in self._open):
            self.problems.append(f"<{tag}> stands in a paragraph or heading")
        element = Element(
            tag, {name: value or "" for name, value in attrs}, within=tuple(each.tag for each in self._open)
        )
        self.elements.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID | _EMPTY_SVG:
            self.problems.append(f"<{tag}/> closes itself")
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1].tag != tag:
            self.problems.append(f"</{tag}> closes nothing")
        else:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def _unsafe(self) -> Iterator[str]:
        for element in self.elements:
            attributes = element.attributes
            if element.tag in ("style", "iframe", "object", "embed", "base"):
                yield f"<{element.tag}>"
            if element.tag == "script" and not attributes.get("src", "").startswith("/static/"):
                yield "an inline script"
            for name, value in attributes.items():
                if name == "style" or name.startswith("on"):
                    yield f"<{element.tag} {name}>"
                if name in ("href", "src", "action", "formaction", "poster", "srcset", "data", "xlink:href"):
                    offered = (
                        name == "href"
                        and value.startswith("data:application/json;")
                        and "download" in attributes
                    )
                    if not offered and not re.match(r"(/(?!/)|[?#])", value):
                        yield f"<{element.tag} {name}={value[:40]}> leads elsewhere"
            if element.tag == "form" and attributes.get("method", "get") not in ("get", "post"):
                yield "a form of another method"

    def _unusable(self) -> Iterator[str]:
        yield from self._structure()
        ids = [element.attributes["id"] for element in self.elements if "id" in element.attributes]
        if len(set(ids)) != len(ids):
            yield "an id twice"
        labels = {element.attributes.get("for") for element in self.all("label")}
        for element in self.elements:
            attributes = element.attributes
            for name in ("aria-labelledby", "aria-describedby", "for"):
                if any(part not in ids for part in attributes.get(name, "").split()):
                    yield f"{name}={attributes[name]} leads nowhere"
            if attributes.get("href", "").startswith("#") and attributes["href"][1:] not in ids:
                yield f"{attributes['href']} leads nowhere"
            named = "aria-label" in attributes or "aria-labelledby" in attributes
            asked = element.tag in ("input", "select", "textarea") and attributes.get("type") != "hidden"
            if asked and not named and attributes.get("id") not in labels:
                yield f"<{element.tag} name={attributes.get('name')}> has no label"
            if (
                element.tag in ("button", "a", "caption", "th", "legend")
                and not named
                and not element.text.strip()
            ):
                images = any(
                    image.attributes.get("alt") for image in self.all("img") if element.tag in image.within
                )
                if not images:
                    yield f"<{element.tag}> says nothing"
            if element.tag in ("nav", "section") and not named:
                yield f"<{element.tag}> has no name"
            if element.tag == "img" and "alt" not in attributes:
                yield "<img> without alt"
            drawn = element.tag == "svg" and attributes.get("aria-hidden") != "true"
            if drawn and attributes.get("role") != "img" and attributes.get("class") != "qr":
                yield "<svg> says nothing"
            if element.tag == "th" and attributes.get("scope") not in ("col", "row"):
                yield "<th> of nothing"

    def _structure(self) -> Iterator[str]:
        (html,) = self.all("html") or (Element("html", {}),)
        if html.attributes.get("lang") != "en":
            yield "no language"
        if not self.all("title") or not self.all("title")[0].text.partition("·")[0].strip():
            yield "no title"
        if len(self.all("main")) != 1 or len(self.all("h1")) != 1:
            yield "not one main, not one h1"
        if len(self.all("caption")) != len(self.all("table")):
            yield "a table without a caption"
        level = 0
        for heading in self.all(*_HEADINGS):
            number = int(heading.tag[1])
            if number > level + 1:
                yield f"{heading.tag} “{heading.text.strip()}” leaves a level out"
            level = number
