"""The ports that masquerading takes, kept from the kernel's own choice of local ports.

`net.ipv4.ip_local_reserved_ports` holds for IPv6, too, and belongs to this network namespace;
what others reserved there stays. What they had reserved of our own range is remembered in a
symbolic link, the one thing with a text of its own that a bpffs can hold: like the setting it
outlives the agent and its container, and not the machine.
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


def shared(text: str) -> str:
    """What a setting that is not ours yet has of our ports. Raises ValueError."""
    return text_of(ports_of(text) & set(PORTS))


def removed(text: str, before: str) -> str:
    """The setting without our ports but for those of `before`. Raises ValueError."""
    return text_of(ports_of(text) - set(PORTS) | ports_of(before))


def memory(bpffs: Path) -> Path:
    """The link that remembers, below the pins' folder."""
    return bpffs / "before" / "ip_local_reserved_ports"


def is_reserved(setting: Path = SETTING) -> bool:
    """Are all of our ports reserved, by whomever? Raises OSError, ValueError."""
    return ports_of(setting.read_text()).issuperset(PORTS)


def reserve(bpffs: Path, setting: Path = SETTING) -> str:
    """Sees to it that our ports are reserved; what went wrong, or "". Raises nothing."""
    try:
        if not is_reserved(setting):
            before = setting.read_text()
            _remember(memory(bpffs), shared(before))
            setting.write_text(added(before) + "\n")
    except (OSError, ValueError) as error:
        return f"could not reserve ports {PORTS[0]}-{PORTS[-1]}: {error}"
    return ""


def _remember(link: Path, text: str) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(f"ports:{text}")  # a link to nothing at all is refused


def release(bpffs: Path, setting: Path = SETTING) -> bool:
    """Give back what we reserved; False: nothing, by our memory. Raises OSError, ValueError."""
    link = memory(bpffs)
    if not link.is_symlink():
        return False
    text = str(link.readlink()).removeprefix("ports:")
    # The kernel takes an empty line for no ports, and nothing for no change.
    setting.write_text(removed(setting.read_text(), text) + "\n")
    link.unlink()
    link.parent.rmdir()
    return True
