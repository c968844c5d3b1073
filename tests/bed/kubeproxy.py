"""What kube-proxy, kubelet and a CNI leave in a node's netfilter: rules of their real shape.

One service with two endpoints, a node port and one without endpoints, as kube-proxy 1.36 writes
them in its modes iptables and nftables; and what is not kube-proxy's beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Tables = Mapping[str, Sequence[str]]
"""Lines of `iptables-save` by table: chains, then rules."""

NODE_PORT = 30081
VIPS = {"ipv4": "10.96.0.80", "ipv6": "fd00:10:96::80"}
ENDPOINTS = {
    "ipv4": ("10.244.1.10", "10.244.1.11"),
    "ipv6": ("fd00:10:244:1::10", "fd00:10:244:1::11"),
}
"""The service that the rules translate: TCP and UDP port 80 to port 8080 and 5000."""
_BITS = {"ipv4": 32, "ipv6": 128}


def at(address: str, port: int) -> str:
    """An address with a port."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _service(family: str, protocol: str, target: int) -> list[str]:
    vip, endpoints, bits = VIPS[family], ENDPOINTS[family], _BITS[family]
    pods = {"ipv4": "10.244.0.0/16", "ipv6": "fd00:10:244::/48"}[family]
    mark, name = protocol.upper(), f"default/old:{protocol}"
    service, outside = f"KUBE-SVC-{mark}AAAAAAAAAAAA", f"KUBE-EXT-{mark}AAAAAAAAAAAA"
    ends = [f"KUBE-SEP-{mark}{number}AAAAAAAAAAA" for number in range(len(endpoints))]
    match = f"-p {protocol} -m comment --comment {{}} -m {protocol} --dport"
    said = f'"{name} cluster IP"'
    lines = [f":{chain} - [0:0]" for chain in (service, outside, *ends)]
    lines += [
        f"-A KUBE-SERVICES -d {vip}/{bits} {match.format(said)} 80 -j {service}",
        f"-A KUBE-NODEPORTS {match.format(f'{name}')} {NODE_PORT} -j {outside}",
        (
            f'-A {outside} -m comment --comment "masquerade traffic for {name} external'
            ' destinations" -j KUBE-MARK-MASQ'
        ),
        f"-A {outside} -j {service}",
        f"-A {service} ! -s {pods} -d {vip}/{bits} {match.format(said)} 80 -j KUBE-MARK-MASQ",
        (
            f'-A {service} -m comment --comment "{name} -> {at(endpoints[0], target)}"'
            f" -m statistic --mode random --probability 0.50000000000 -j {ends[0]}"
        ),
        f'-A {service} -m comment --comment "{name} -> {at(endpoints[1], target)}" -j {ends[1]}',
    ]
    for end, address in zip(ends, endpoints, strict=True):
        lines += [
            f"-A {end} -s {address}/{bits} -m comment --comment {name} -j KUBE-MARK-MASQ",
            (
                f"-A {end} -p {protocol} -m comment --comment {name} -m {protocol}"
                f" -j DNAT --to-destination {at(address, target)}"
            ),
        ]
    return lines


def iptables(family: str) -> dict[str, list[str]]:
    """kube-proxy's own, in mode iptables."""
    rejected = {"ipv4": "10.96.0.81/32", "ipv6": "fd00:10:96::81/128"}[family]
    refusal = {"ipv4": "icmp-port-unreachable", "ipv6": "icmp6-port-unreachable"}[family]
    return {
    "mangle": [":KUBE-PROXY-CANARY - [0:0]"],
    "nat": [
        *(
            f":{name} - [0:0]"
            for name in (
                "KUBE-MARK-MASQ", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-PROXY-CANARY",
                "KUBE-SERVICES",
            )
        ),
        '-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        '-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        '-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',
        "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
        "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0",
        ('-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT"'
        " -j MASQUERADE --random-fully"),
        *_service(family, "tcp", 8080),
        *_service(family, "udp", 5000),
        ('-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be'
        ' the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS'),
    ],
    "filter": [
        *(
            f":{name} - [0:0]"
            for name in (
                "KUBE-EXTERNAL-SERVICES", "KUBE-FORWARD", "KUBE-NODEPORTS", "KUBE-PROXY-CANARY",
                "KUBE-PROXY-FIREWALL", "KUBE-SERVICES",
            )
        ),
        '-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS',
        ("-A INPUT -m conntrack --ctstate NEW -m comment"
        ' --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES'),
        '-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD',
        ("-A FORWARD -m conntrack --ctstate NEW -m comment"
        ' --comment "kubernetes service portals" -j KUBE-SERVICES'),
        ("-A OUTPUT -m conntrack --ctstate NEW -m comment"
        ' --comment "kubernetes service portals" -j KUBE-SERVICES'),
        "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
        ('-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules"'
        " -m mark --mark 0x4000/0x4000 -j ACCEPT"),
        (f"-A KUBE-SERVICES -d {rejected} -p tcp -m comment"
        ' --comment "default/none:http has no endpoints" -m tcp --dport 80'
        f" -j REJECT --reject-with {refusal}"),
    ],
    }  # fmt: skip


KINDS_OF_SETS = {
    "LOOP-BACK": "hash:ip,port,ip", "CLUSTER-IP": "hash:ip,port", "LOAD-BALANCER": "hash:ip,port",
    "LOAD-BALANCER-SOURCE-CIDR": "hash:ip,port,net", "NODE-PORT-TCP": "bitmap:port",
    "HEALTH-CHECK-NODE-PORT": "bitmap:port", "IPVS-IPS": "hash:ip",
}  # fmt: skip
"""Some of those that kube-proxy makes in mode ipvs, without the prefix of their names."""


def set_name(family: str, name: str) -> str:
    """A set of kube-proxy's, whose name it cuts to 31 characters."""
    return f"{'KUBE-' if family == 'ipv4' else 'KUBE-6-'}{name}"[:31]


def ipvs(family: str) -> dict[str, list[str]]:
    """kube-proxy's own, in mode ipvs; `KINDS_OF_SETS` have to be there."""
    pods = {"ipv4": "10.244.0.0/16", "ipv6": "fd00:10:244::/48"}[family]
    refusal = {"ipv4": "icmp-port-unreachable", "ipv6": "icmp6-port-unreachable"}[family]

    def among(name: str, which: str) -> str:
        return f"-m set --match-set {set_name(family, name)} {which}"

    chains = {
        "nat": (
            "KUBE-LOAD-BALANCER", "KUBE-MARK-MASQ", "KUBE-NODE-PORT", "KUBE-POSTROUTING",
            "KUBE-SERVICES",
        ),
        "filter": (
            "KUBE-FORWARD", "KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER", "KUBE-NODE-PORT",
            "KUBE-PROXY-FIREWALL", "KUBE-SOURCE-RANGES-FIREWALL",
        ),
    }  # fmt: skip
    rules = {
    "nat": [
        '-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        '-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        '-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',
        "-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ",
        "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
        f"-A KUBE-NODE-PORT -p tcp {among('NODE-PORT-TCP', 'dst')} -j KUBE-MARK-MASQ",
        f"-A KUBE-POSTROUTING {among('LOOP-BACK', 'dst,dst,src')} -j MASQUERADE",
        "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0",
        "-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
        f"-A KUBE-SERVICES {among('LOAD-BALANCER', 'dst,dst')} -j KUBE-LOAD-BALANCER",
        f"-A KUBE-SERVICES ! -s {pods} {among('CLUSTER-IP', 'dst,dst')} -j KUBE-MARK-MASQ",
        "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT",
        f"-A KUBE-SERVICES {among('CLUSTER-IP', 'dst,dst')} -j ACCEPT",
    ],
    "filter": [
        '-A INPUT -m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-FILTER',
        "-A INPUT -j KUBE-PROXY-FIREWALL",
        "-A INPUT -j KUBE-NODE-PORT",
        "-A FORWARD -j KUBE-PROXY-FIREWALL",
        "-A FORWARD -j KUBE-FORWARD",
        "-A OUTPUT -j KUBE-IPVS-OUT-FILTER",
        "-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT",
        f"-A KUBE-IPVS-FILTER {among('CLUSTER-IP', 'dst,dst')} -j RETURN",
        (
            f"-A KUBE-IPVS-FILTER -m conntrack --ctstate NEW {among('IPVS-IPS', 'dst')}"
            f" -j REJECT --reject-with {refusal}"
        ),
        f"-A KUBE-NODE-PORT {among('HEALTH-CHECK-NODE-PORT', 'dst')} -j ACCEPT",
        (
            f"-A KUBE-PROXY-FIREWALL {among('LOAD-BALANCER', 'dst,dst')}"
            " -j KUBE-SOURCE-RANGES-FIREWALL"
        ),
        (
            "-A KUBE-SOURCE-RANGES-FIREWALL"
            f" {among('LOAD-BALANCER-SOURCE-CIDR', 'dst,dst,src')} -j RETURN"
        ),
        "-A KUBE-SOURCE-RANGES-FIREWALL -j DROP",
    ],
    }  # fmt: skip
    return {
        name: [*(f":{chain} - [0:0]" for chain in chains[name]), *lines]
        for name, lines in rules.items()
    }


def kubelet_and_cni(family: str) -> dict[str, list[str]]:
    """Not kube-proxy's."""
    pods = {"ipv4": "10.244.0.0/16", "ipv6": "fd00:10:244::/48"}[family]
    pod = at({"ipv4": "10.244.1.9", "ipv6": "fd00:10:244:1::9"}[family], 80)
    loopback = {"ipv4": "127.0.0.0/8", "ipv6": "::1/128"}[family]
    return {
    "mangle": [":KUBE-IPTABLES-HINT - [0:0]", ":KUBE-KUBELET-CANARY - [0:0]"],
    "nat": [
        ":KUBE-KUBELET-CANARY - [0:0]", ":CNI-HOSTPORT-DNAT - [0:0]", ":FLANNEL-POSTRTG - [0:0]",
        "-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
        '-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG',
        f"-A CNI-HOSTPORT-DNAT -p tcp -m tcp --dport 8088 -j DNAT --to-destination {pod}",
        f"-A FLANNEL-POSTRTG -s {pods} -d {pods} -j RETURN",
    ],
    "filter": [
        ":KUBE-FIREWALL - [0:0]", ":KUBE-KUBELET-CANARY - [0:0]", ":FLANNEL-FWD - [0:0]",
        "-A INPUT -j KUBE-FIREWALL",
        "-A OUTPUT -j KUBE-FIREWALL",
        '-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD',
        (f"-A KUBE-FIREWALL ! -s {loopback} -d {loopback} -m comment"
        ' --comment "block incoming localnet connections" -m conntrack'
        " ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"),
        f"-A FLANNEL-FWD -s {pods} -j ACCEPT",
    ],
    }  # fmt: skip


_BUILT_IN = {
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
}


def saved(tables: Tables) -> str:
    """The output of `iptables-save` for them, which `iptables-restore` takes as well."""
    text = ["# Generated by iptables-save"]
    for name, lines in tables.items():
        text += [f"*{name}", *(f":{chain} ACCEPT [0:0]" for chain in _BUILT_IN[name])]
        text += [line for line in lines if line[0] == ":"]
        text += [line for line in lines if line[0] != ":"]
        text.append("COMMIT")
    return "\n".join(text) + "\n"


def nftables(family: str) -> str:
    """kube-proxy's own, in mode nftables."""
    ip = {"ipv4": "ip", "ipv6": "ip6"}[family]
    kind = {"ipv4": "ipv4_addr", "ipv6": "ipv6_addr"}[family]
    vip, (first, second) = VIPS[family], ENDPOINTS[family]
    return f"""
table {ip} kube-proxy {{
	comment "rules for kube-proxy"
	map service-ips {{
		type {kind} . inet_proto . inet_service : verdict
		elements = {{ {vip} . tcp . 80 : goto service-TCP, {vip} . udp . 80 : goto service-UDP }}
	}}
	map service-nodeports {{
		type inet_proto . inet_service : verdict
		elements = {{ tcp . {NODE_PORT} : goto external-TCP, udp . {NODE_PORT} : goto service-UDP }}
	}}
	chain mark-for-masquerade {{
		meta mark set meta mark or 0x4000
	}}
	chain masquerading {{
		meta mark & 0x4000 == 0 return
		meta mark set meta mark xor 0x4000
		masquerade fully-random
	}}
	chain services {{
		{ip} daddr . meta l4proto . th dport vmap @service-ips
		fib daddr type local meta l4proto . th dport vmap @service-nodeports
	}}
	chain service-TCP {{
		numgen random mod 2 vmap {{ 0 : goto endpoint-TCP-0, 1 : goto endpoint-TCP-1 }}
	}}
	chain external-TCP {{
		jump mark-for-masquerade
		goto service-TCP
	}}
	chain endpoint-TCP-0 {{
		{ip} saddr {first} jump mark-for-masquerade
		meta l4proto tcp dnat to {at(first, 8080)}
	}}
	chain endpoint-TCP-1 {{
		{ip} saddr {second} jump mark-for-masquerade
		meta l4proto tcp dnat to {at(second, 8080)}
	}}
	chain service-UDP {{
		meta l4proto udp dnat to {at(first, 5000)}
	}}
	chain nat-prerouting {{
		type nat hook prerouting priority -100; policy accept;
		jump services
	}}
	chain nat-output {{
		type nat hook output priority -100; policy accept;
		jump services
	}}
	chain nat-postrouting {{
		type nat hook postrouting priority 100; policy accept;
		jump masquerading
	}}
}}
"""
