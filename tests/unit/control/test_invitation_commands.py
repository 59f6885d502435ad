"""`appliance control invitation` as people and scripts run it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from appliance.cli import main
from appliance.core.errors import RefusedError
from appliance.core.ticket import Ticket
from control.clients.invitations import render_svg, render_terminal
from control.clients.models import Client, Invitation, InvitationState

pytestmark = pytest.mark.django_db


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, object], str]:
    code = main(["control", "invitation", *arguments, "--json"])
    printed = capsys.readouterr()
    return code, json.loads(printed.out.strip().splitlines()[-1]), printed.err


def test_an_invitation_is_created_listed_and_cancelled(
    acme: Client, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, made, said = run(capsys, "create", "acme", "laptop", "--hours", "1", "--approval", "--qr")
    assert code == 0
    ticket = Ticket.read(str(made["invitation"]))
    assert (ticket.client, ticket.device, ticket.approval) == ("acme", "laptop", True)
    lines = said.splitlines()
    assert len(lines) > 40
    assert len({len(line) for line in lines if line}) == 1, "a square of blocks"
    out = tmp_path / "ticket"
    code, filed, _ = run(capsys, "create", "acme", "phone", "--out", str(out))
    assert code == 0
    assert "invitation" not in filed, "shown in one place"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert Ticket.read(out.read_text()).device == "phone"
    assert run(capsys, "create", "acme", "watch", "--out", str(out))[0] == 2, (
        "not written over, and none made for nothing"
    )
    assert Invitation.objects.count() == 2
    _, listed, _ = run(capsys, "list", "--client", "acme")
    assert [(row["device"], row["state"]) for row in listed["invitations"]] == [  # type: ignore[attr-defined]
        ("phone", "open"),
        ("laptop", "open"),
    ]
    assert run(capsys, "cancel", str(made["id"]))[1]["state"] == "cancelled"
    code, refused, _ = run(capsys, "approve", str(filed["id"]))
    assert code == 1
    assert "waits for approval" in refused["error"]["message"]  # type: ignore[index]
    assert Invitation.objects.get(device_name="phone").state == InvitationState.OPEN


def test_the_longest_ticket_there_can_be_fits_a_qr_code(
    acme: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    text = Ticket.read(str(run(capsys, "create", "acme", "laptop")[1]["invitation"])).render()
    longest = text + "A" * (2900 - len(text))
    assert render_svg(longest).startswith("<svg")
    assert len(render_terminal(text).splitlines()) < 60, "half a screen for a telephone to read"


def test_a_ca_that_no_ticket_can_hold_is_refused_by_name(
    acme: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    ticket = Ticket.read(str(run(capsys, "create", "acme", "laptop")[1]["invitation"]))
    with pytest.raises(RefusedError) as refused:
        ticket.model_copy(update={"ca_pem": ticket.ca_pem * 2}).render()
    assert refused.value.field == "ca_pem"
