"""Nothing is refused or dropped without a reason that is counted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bpf.layout import Reason

BPF = Path(__file__).parents[2] / "bpf"
TELLING = ("reason.h", "types.h", "ctx_skb.h", "ctx_xdp.h")
"""Where the verdicts get their names."""
FILES = sorted(path.name for path in BPF.glob("*.[ch]") if path.name not in TELLING)
FUNCTION = re.compile(
    r"^(?:static __always_inline )?int (\w+)\([^;{]*\)\n\{\n(.*?)^\}", re.MULTILINE | re.DOTALL
)


def code(name: str) -> str:
    """The text without its comments."""
    return re.sub(r"/\*.*?\*/", "", (BPF / name).read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("name", FILES)
def test_no_bare_drop(name: str) -> None:
    """Elsewhere `refuse`, `discard`, `drop` and `decline` say so, with a reason."""
    assert not re.search(
        r"\b(SOCK_FAIL|SKB_DISCARD|XDP_DROP|XDP_ABORTED|TC_ACT_SHOT|PACKET_DROP)\b", code(name)
    )


@pytest.mark.parametrize("name", FILES)
def test_no_verdict_is_a_number(name: str) -> None:
    """A function that answers with a verdict or an outcome answers with its name."""
    for function, body in FUNCTION.findall(code(name)):
        assert not re.search(r"return -?\d+;", body), function


@pytest.mark.parametrize("reason", [one for one in Reason if one], ids=lambda one: one.name)
def test_every_reason_is_given_by_someone(reason: Reason) -> None:
    """A reason that nothing counts is a promise to users that nobody keeps."""
    given = rf"\b(refuse|discard|drop|decline|lose)\([^;]*?REASON_{reason.name}\)"
    assert any(re.search(given, code(name)) for name in FILES)
