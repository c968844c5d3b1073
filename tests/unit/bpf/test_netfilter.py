"""What is asked of IPVS, in its own messages; the kernel itself is asked in tests/net."""

from __future__ import annotations

from typing import Any, Self

import pytest
from pyroute2 import IPVSDest, IPVSService, NetlinkError
from pyroute2.netlink.generic.ipvs import ipvsmsg

from bpf import netfilter

OWN = [("127.0.0.1", 80), ("127.0.0.1", 443)]
"""At an address that every machine has."""
OTHERS = [("192.0.2.77", 80), ("2001:db8::77", 80)]


def decoded(*attributes: Any) -> ipvsmsg:
    """A message as it comes from the kernel."""
    message = ipvsmsg()
    message["cmd"], message["version"], message["attrs"] = 1, 1, list(attributes)
    message.encode()
    read = ipvsmsg(message.data)
    read.decode()
    return read


class Kernel:
    """Answers as IPVS does; each virtual server has two ends with three connections each."""

    def __init__(self) -> None:
        self.servers = [*OWN, *OTHERS]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def service(self, command: str, service: Any = None) -> list[ipvsmsg]:
        """Dump, or delete one by its key."""
        if command == "dump":
            return [decoded(("IPVS_CMD_ATTR_SERVICE", self.full(*one))) for one in self.servers]
        assert command == "del"
        got = decoded(("IPVS_CMD_ATTR_SERVICE", service.dump_nla()))
        one = got.get_attr("IPVS_CMD_ATTR_SERVICE")
        self.servers.remove(
            (one.get_attr("IPVS_SVC_ATTR_ADDR"), one.get_attr("IPVS_SVC_ATTR_PORT"))
        )
        return []

    def dest(self, command: str, service: Any) -> list[ipvsmsg]:
        """Dump."""
        assert command == "dump"
        got = decoded(("IPVS_CMD_ATTR_SERVICE", service.dump_key()))
        assert got.get_nested("IPVS_CMD_ATTR_SERVICE", "IPVS_SVC_ATTR_ADDR") == "127.0.0.1"
        end = IPVSDest(addr="10.244.1.5", port=8080).dump_nla()
        end["attrs"].append(("IPVS_DEST_ATTR_ACTIVE_CONNS", 3))
        return [decoded(("IPVS_CMD_ATTR_DEST", end))] * 2

    @staticmethod
    def full(address: str, port: int) -> Any:
        """All that a dump says of one."""
        return IPVSService(addr=address, port=port, protocol=6, sched_name="rr").dump_nla()


def test_only_servers_at_own_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their connections are counted, and they go; others' servers stay."""
    kernel = Kernel()
    monkeypatch.setattr(netfilter, "IPVS", lambda: kernel)
    assert netfilter.active_connections() == 2 * 2 * 3
    assert netfilter.remove_virtual_servers() == 2
    assert kernel.servers == OTHERS
    assert (netfilter.active_connections(), netfilter.remove_virtual_servers()) == (0, 0)


def test_a_kernel_without_ipvs_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The family is not known there; any other error is one."""

    def refuse(code: int) -> Any:
        def ipvs() -> Any:
            raise NetlinkError(code)

        return ipvs

    monkeypatch.setattr(netfilter, "IPVS", refuse(2))
    assert (netfilter.active_connections(), netfilter.remove_virtual_servers()) == (0, 0)
    monkeypatch.setattr(netfilter, "IPVS", refuse(1))
    with pytest.raises(NetlinkError):
        netfilter.active_connections()
