"""What somebody asks `explain`: words to packets, and a trial to put them to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bpf.module import CompileError
from bpf.netlink import NetlinkError
from bpf.pins import Pins
from bpf.trial import trial
from lb.address import Address, parse, show
from lb.client import ask
from lb.errors import BadInput, KernelRefused
from lb.model import Protocol
from lb.see.answer import Answer
from lb.see.explain import Explainer, same_family
from lb.see.frame import Ends, captured, read
from lb.see.monitor import cgroup_of, names
from lb.see.whence import Places
from lb.tables import in_kernel


def explained(flags: Mapping[str, Any]) -> list[Answer]:
    """An answer for each packet that was asked for. Raises BadInput, KernelRefused."""
    capture, pod = flags["capture"], flags["from_pod"]
    socket = None if flags["via"] is None and not pod else flags["via"] == "socket" or bool(pod)
    bpffs, api_socket = Path(flags["bpffs"]), Path(flags["api_socket"])
    kept = Path(flags["program_cache"]) if flags["program_cache"] else None
    if capture is not None:
        if flags["protocol"] or pod or flags["via"]:
            raise BadInput("--capture stands in place of PROTO SRC:PORT DST:PORT and other flags")
        frames = captured(_read(capture), str(capture))
        with explaining(bpffs, api_socket, kept) as explainer:
            found = [(one, read(one)) for one in frames]
            return [explainer.explain(who, frame=one) for one, who in found if who is not None]
    if not flags["destination"]:
        raise BadInput("what is asked? Give PROTO SRC:PORT DST:PORT, or --capture FILE.pcap")
    ends = ends_of(flags["protocol"], flags["source"], flags["destination"])
    if pod and pod != (there := _pod_at(api_socket, show(ends.source))):
        raise BadInput(
            f"--from-pod {pod}: {show(ends.source)} is "
            + (f"{there}'s address" if there else "no pod's address that the agent knows")
        )
    with explaining(bpffs, api_socket, kept) as explainer:
        return [explainer.explain(ends, socket=socket)]


@contextmanager
def explaining(bpffs: Path, api_socket: Path, kept: Path | None) -> Iterator[Explainer]:
    """An explainer on these pins, ready; `kept`: as `trial` has it. Raises KernelRefused."""
    pins = Pins(bpffs)
    try:
        tables, who = in_kernel(pins), names(pins, bpffs, api_socket)
        with trial(pins, kept) as run:
            run.remember()
            yield Explainer(tables, who, run, Places(cgroup_of(bpffs, api_socket), pins))
    except (OSError, CompileError, NetlinkError) as error:
        said = getattr(error, "strerror", None) or error
        raise KernelRefused(
            f"--bpffs {bpffs}: {said}; was an agent of this version started with it?"
        ) from error


def ends_of(protocol: str, source: str, destination: str) -> Ends:
    """`tcp 198.51.100.10:40000 203.0.113.10:80`. Raises BadInput."""
    near, far = _place(source), _place(destination)
    return same_family(Ends(Protocol[protocol.upper()], *near, *far))


def _place(text: str) -> tuple[Address, int]:
    address, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise BadInput(f"{text!r}: write ADDRESS:PORT or [ADDRESS]:PORT")
    return parse(address.removeprefix("[").removesuffix("]")), int(port)


def _pod_at(api_socket: Path, address: str) -> str:
    found: str = ask(api_socket, "/pods").get(address, "")
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"--capture {path}: {error.strerror}") from error
