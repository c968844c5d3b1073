"""Names behind addresses and ids: services, nodes and zones from the maps, pods from the agent.

Look-ups of single entries, so that what has just come is known. Without an agent pods have no
names, and all else does. Not for deciding anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from bandwidth.book import whose
from bandwidth.plan import Owner
from bpf.layout import Backend, FrontendKey, Name, NameKey, NameKind
from bpf.maps import Hash
from lb.address import Address, show
from lb.names import unit_of
from lb.plan import Unit
from lb.tables import Tables

PODS_SECONDS = 2.0
"""How long names of pods are good before a stranger makes us ask again."""

Pods = Mapping[str, str]
"""By address as text: NAMESPACE/NAME."""


class Who:
    """Answers by look-ups in `tables`, and in `limits`, the names of bandwidth limits.

    `pods` asks the agent; `netns` finds a cookie's address.
    """

    def __init__(
        self,
        tables: Tables,
        pods: Callable[[], Pods],
        netns: Callable[[int], str],
        now: Callable[[], float],
        limits: Hash | None = None,
    ) -> None:
        self._tables, self._ask, self._find, self._now = tables, pods, netns, now
        self._limits = limits
        self._pods: Pods = {}
        self._asked = float("-inf")
        self._cookies: dict[int, str] = {}

    def unit(self, service: int) -> Unit | None:
        """The service port behind an id."""
        raw = self._tables.names.get(NameKey(NameKind.SERVICE, service).pack())
        with suppress(ValueError, KeyError):
            return unit_of(_text(raw)) if raw is not None else None
        return None

    def service(self, service: int) -> str:
        """`default/web:http`; "" for an id that nothing has."""
        unit = self.unit(service)
        return service_text(unit) if unit is not None else ""

    def frontend(self, key: FrontendKey) -> int:
        """The id of the service at an address; 0: none."""
        raw = self._tables.frontends.get(key.pack())
        return int.from_bytes(raw[:4], "little") if raw is not None else 0

    def node(self, backend: int) -> str:
        """The node of a backend, by its id; "": unknown."""
        if not 0 < backend < self._tables.backends.capacity:
            return ""
        record = Backend.unpack(self._tables.backends.read(backend))
        raw = self._tables.names.get(NameKey(NameKind.NODE, record.node).pack())
        return _text(raw) if raw is not None else ""

    def pod(self, address: bytes) -> str:
        """The pod at an address, as NAMESPACE/NAME; "": none that the agent knows."""
        text = show(Address(address))
        if text not in self._pods and self._now() - self._asked > PODS_SECONDS:
            self._pods, self._asked = self._ask(), self._now()
        return self._pods.get(text, "")

    def limit(self, number: int) -> Owner | None:
        """Whose bandwidth limit has this number, and of which direction; None: unknown."""
        raw = self._limits.get(number.to_bytes(4, "little")) if self._limits is not None else None
        with suppress(ValueError):
            return whose(raw) if raw is not None else None
        return None

    def netns(self, cookie: int) -> str:
        """An address in a network namespace, as text; "": unknown."""
        if cookie not in self._cookies:
            self._cookies[cookie] = self._find(cookie)
        return self._cookies[cookie]


def service_text(unit: Unit) -> str:
    """`default/web:http`, as commands name a service port."""
    port = f":{unit.port}" if unit.port else ""
    return f"{unit.service}{port}"


def _text(raw: bytes) -> str:
    return Name.unpack(raw).text.partition(b"\0")[0].decode(errors="replace")
