"""NGINX's configuration as text. What it does with requests is tested in tests/lab/test_netops.py."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import BundleError, HostError
from appliance.core.node import NodePaths
from netops import nginx
from netops.model import route4, route6, route6_prefix
from tests.unit.netops import cast, golden

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def config(**changes):
    return nginx.render_config(cast.bundle(**changes), cast.settings(), NodePaths(), CERTIFICATE)


def test_the_configuration_is_as_reviewed():
    golden.check("nginx/node-a/nginx.conf", config())


def test_no_placeholder_is_left():
    assert not re.search(r"@[A-Z]", config())


def test_another_certificate_is_another_text():
    other = nginx.render_config(cast.bundle(), cast.settings(), NodePaths(), CERTIFICATE + "\n")
    assert other != config()


@pytest.mark.parametrize("path", ["/tmp/a b", "/tmp/a;b", "/tmp/$a", "/tmp/a'b", "/tmp/a\nb", "/tmp/{a}"])
def test_a_path_that_would_be_read_as_syntax_is_not_written(path):
    with pytest.raises(HostError):
        nginx.render_config(cast.bundle(), cast.settings(), NodePaths(Path(path)), CERTIFICATE)


def test_a_group_that_would_be_read_as_syntax_is_not_written():
    settings = cast.settings(nginx_group="www-data; load_module /tmp/x.so")
    with pytest.raises(HostError):
        nginx.render_config(cast.bundle(), settings, NodePaths(), CERTIFICATE)


@given(st.integers(min_value=2, max_value=0xFFFF))
def test_nginx_finds_the_link_that_the_agent_writes(host):
    """The map's regular expressions and the naming functions are two spellings of one rule."""
    four, six = re.findall(r'^ +"~(.+)" (\S+);$', config(), re.MULTILINE)
    device = cast.device("acme", 0, host)
    name4 = re.search(four[0].replace("?<", "?P<"), device.address4)
    name6 = re.search(six[0].replace("?<", "?P<"), device.address6)
    assert name4 is not None
    assert name6 is not None
    assert f"{name4['peer4']}.sock" == route4(device.address4)
    assert six[1] == "v6-$peer6"
    assert f"v6-{name6['peer6']}.sock" == route6(device.address6, route6_prefix(cast.TUNNEL.network6), "x")


@pytest.mark.parametrize("address", ["fd86:5e:1::1:2", "fd86:5e:1::", "fd86:5e:2::2", "10.86.0.2"])
def test_an_address_that_no_link_can_be_named_after_is_refused(address):
    with pytest.raises(BundleError) as refused:
        route6(address, "fd86:5e:1::", "clients.0.devices.0.address6")
    assert refused.value.field == "clients.0.devices.0.address6"


def test_a_network_that_leaves_no_group_for_devices_is_refused():
    with pytest.raises(BundleError) as refused:
        route6_prefix("fd86:5e:1:2:3:4:5:0/112")
    assert refused.value.field == "tunnel.network6"
