"""Addresses beside the standard library's own idea of them."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.address import MAPPED, Address, Family, family, parse, parse_prefix, show, show_port
from lb.errors import BadAddress

V4, V6 = st.ip_addresses(v=4), st.ip_addresses(v=6)
PLAIN_V6 = V6.filter(lambda ip: ip.ipv4_mapped is None)
ANY = V4 | PLAIN_V6


@given(ip=V4)
def test_ipv4_is_mapped(ip: IPv4Address) -> None:
    """IPv4 lies behind ::ffff, whichever way it is written."""
    assert parse(str(ip)) == parse(f"::ffff:{ip}") == MAPPED + ip.packed
    assert family(parse(str(ip))) is Family.IPV4


@given(ip=PLAIN_V6)
def test_ipv6_is_itself(ip: IPv6Address) -> None:
    """IPv6 is its 16 bytes, also written out."""
    assert parse(str(ip)) == parse(ip.exploded) == parse(str(ip).upper()) == ip.packed
    assert family(parse(str(ip))) is Family.IPV6


@given(ip=ANY)
def test_shown_is_read_back(ip: IPv4Address | IPv6Address) -> None:
    """Text and bytes name the same address."""
    address = parse(str(ip))
    assert ip_address(show(address)) == ip
    assert parse(show(address)) == address


@given(ip=V4)
def test_zeros_in_front_are_decimal(ip: IPv4Address) -> None:
    """Zero-padded numbers are what Kubernetes has always read, not octal."""
    padded = ".".join(f"{number:03}" for number in ip.packed)
    assert parse(padded) == parse(f"::ffff:{padded}") == parse(str(ip))


@given(text=st.text(max_size=40))
def test_junk_is_refused_in_words(text: str) -> None:
    """Any text is an address or a BadAddress."""
    with suppress(BadAddress):
        assert len(parse(text)) == 16


@pytest.mark.parametrize(
    "text", ["", "1.2.3", "1.2.3.4.5", "1.2.3.256", "::1%lo", "a\0b", " 1.2.3.4"]
)
def test_not_an_address(text: str) -> None:
    """Near misses are refused."""
    with pytest.raises(BadAddress):
        parse(text)


@given(ip=ANY, data=st.data())
def test_a_prefix_holds_what_the_network_holds(
    ip: IPv4Address | IPv6Address, data: st.DataObject
) -> None:
    """The same members, text and length as the standard library's network."""
    length = data.draw(st.integers(0, ip.max_prefixlen))
    network = ip_network((ip, length), strict=False)
    prefix = parse_prefix(f" {ip}/{length}\n")
    other = data.draw(V4 if ip.version == 4 else PLAIN_V6)
    near = network[data.draw(st.integers(0, network.num_addresses - 1))]
    assert (parse(str(other)) in prefix) == (other in network)
    assert (
        Address(near.packed.rjust(16, b"\0") if ip.version == 6 else MAPPED + near.packed) in prefix
    )
    assert prefix.length == length


@pytest.mark.parametrize(
    "text", ["", "/", "1.2.3.4", "1.2.3.4/", "1.2.3.4/33", "::/129", "1.2.3.4/-1", "::/٣"]
)
def test_not_a_prefix(text: str) -> None:
    """Near misses are refused."""
    with pytest.raises(BadAddress):
        parse_prefix(text)


def test_with_a_port() -> None:
    """IPv6 stands in brackets."""
    assert show_port(parse("10.96.0.10"), 80) == "10.96.0.10:80"
    assert show_port(parse("fd00::1"), 80) == "[fd00::1]:80"
