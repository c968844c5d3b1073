"""The rows of one service, or about one address."""

from __future__ import annotations

import pytest

from lb.errors import BadInput
from lb.narrow import Row, narrowed


def own(name: str, **fields: object) -> Row:
    """A row of a service of this name in `default`."""
    return {"namespace": "default", "name": name, **fields}


FLOWS = [
    own("web", client="198.51.100.1:40000", frontend="192.0.2.1:80", backend="10.0.0.1:8080"),
    own("web", client="198.51.100.2:40000", frontend="192.0.2.1:80", backend="10.0.0.2:8080"),
    own("api", client="[2001:db8::1]:4", frontend="[2001:db8::2]:80", backend="[fd00::1]:80"),
]
SERVICES = [
    own("web", frontends=[{"address": "10.96.0.1"}], backends=[{"address": "10.0.0.1"}]),
    own("api", frontends=[{"address": "fd00:96::1"}], backends=[{"address": "fd00::1"}]),
]
BACKENDS = [own("web", address="10.0.0.1"), own("api", address="fd00::1")]
AFFINITY = [
    own("web", client="netns:7", backend="10.0.0.1:8080"),
    own("api", client="2001:db8::1", backend="[fd00::1]:80"),
]
ASKED = [
    # what, rows, service, address, places of the rows that are left
    ("flows", FLOWS, None, None, [0, 1, 2]),
    ("flows", FLOWS, "default/web", None, [0, 1]),
    ("flows", FLOWS, "other/web", None, []),
    ("flows", FLOWS, None, "192.0.2.1", [0, 1]),
    ("flows", FLOWS, None, "198.51.100.2", [1]),
    ("flows", FLOWS, None, "10.0.0.1", [0]),
    ("flows", FLOWS, None, "::ffff:10.0.0.1", [0]),
    ("flows", FLOWS, None, "2001:DB8:0::1", [2]),
    ("flows", FLOWS, "default/web", "fd00::1", []),
    ("services", SERVICES, None, "10.96.0.1", [0]),
    ("services", SERVICES, None, "fd00::1", [1]),
    ("backends", BACKENDS, None, "fd00::1", [1]),
    ("backends", BACKENDS, "default/web", "10.0.0.1", [0]),
    ("affinity", AFFINITY, None, "2001:db8::1", [1]),
    ("affinity", AFFINITY, None, "10.0.0.1", [0]),
    ("drops", [{"reason": "rewrite"}], None, None, [0]),
]


@pytest.mark.parametrize(("what", "rows", "service", "address", "left"), ASKED)
def test_what_is_left(
    what: str, rows: list[Row], service: str | None, address: str | None, left: list[int]
) -> None:
    """Rows of the service, with the address on any side, in whatever form it is written."""
    assert narrowed(what, rows, service, address) == [rows[place] for place in left]


WRONG = [
    # what, service, address, what the error says
    ("flows", "web", None, "NAMESPACE/NAME"),
    ("flows", "/web", None, "NAMESPACE/NAME"),
    ("flows", "default/", None, "NAMESPACE/NAME"),
    ("flows", "a/b/c", None, "NAMESPACE/NAME"),
    ("flows", None, "10.0.0.1:80", "--address"),
    ("drops", "default/web", None, "--service"),
    ("maps", None, "10.0.0.1", "--address"),
]


@pytest.mark.parametrize(("what", "service", "address", "said"), WRONG)
def test_what_cannot_be_asked(
    what: str, service: str | None, address: str | None, said: str
) -> None:
    """Neither a service nor an address, or rows that have none: the flag is named."""
    with pytest.raises(BadInput, match=said):
        narrowed(what, [], service, address)
