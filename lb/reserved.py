"""The ports that masquerading takes, kept from the kernel's own choice of local ports.

`net.ipv4.ip_local_reserved_ports` holds for IPv6, too, and belongs to this network namespace;
what others reserved there stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

PORTS = range(49152, 65536)
"""The dynamic ports of RFC 6335, section 6."""

SETTING = Path("/proc/sys/net/ipv4/ip_local_reserved_ports")


def ports_of(text: str) -> set[int]:
    """The ports of `8080,9148-9150`. Raises ValueError."""
    found: set[int] = set()
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    return found


def text_of(ports: Iterable[int]) -> str:
    """The shortest text for these ports, as the kernel writes it; "" for none."""
    runs: list[list[int]] = []
    for port in sorted(set(ports)):
        if runs and runs[-1][1] == port - 1:
            runs[-1][1] = port
        else:
            runs.append([port, port])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)


def added(text: str) -> str:
    """The setting with our ports, too. Raises ValueError."""
    return text_of(ports_of(text) | set(PORTS))


def removed(text: str) -> str:
    """The setting without our ports. Raises ValueError."""
    return text_of(ports_of(text) - set(PORTS))


def reserve(setting: Path = SETTING) -> str:
    """Sees to it that our ports are reserved; what went wrong, or "". Raises nothing."""
    try:
        before = setting.read_text()
        if not ports_of(before).issuperset(PORTS):
            setting.write_text(added(before) + "\n")
    except (OSError, ValueError) as error:
        return f"could not reserve ports {PORTS[0]}-{PORTS[-1]}: {error}"
    return ""


def release(setting: Path = SETTING) -> bool:
    """Give our whole range back, if it is reserved; False: it was not. Raises OSError."""
    before = setting.read_text()
    if not ports_of(before).issuperset(PORTS):
        return False
    # The kernel takes an empty line for no ports, and nothing for no change.
    setting.write_text(removed(before) + "\n")
    return True
