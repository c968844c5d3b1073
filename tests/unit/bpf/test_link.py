"""Attaching: once, replaced in one step, on a dead cgroup anew, and others left alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bpf import libbpf
from bpf.link import SOCKET_HOOKS, attach, is_attached
from bpf.pins import Pins
from lb.tables import SIZES

pytestmark = pytest.mark.bpf

SMALL = {name: min(size, 64) for name, size in SIZES.items()}
HOOK = SOCKET_HOOKS[0]


def built(folder: Path, **defines: str) -> tuple[Pins, Path]:
    """One program."""
    made = Pins(folder)
    return made, made.build("sock.c", (HOOK,), SMALL, {"HAVE_SET_RETVAL": "0"} | defines)


def link_of(made: Pins) -> libbpf.LinkInfo:
    """What the kernel says of the pinned link."""
    fd = libbpf.open_pin(str(made.links / HOOK.name))
    try:
        return libbpf.link_info(fd)
    finally:
        os.close(fd)


def test_attaching_twice_is_once(bpffs: Path, own_cgroup: Path) -> None:
    """The second time finds it there."""
    made, programs = built(bpffs)
    assert not is_attached(HOOK, made.links, own_cgroup)
    assert attach(HOOK, programs, made.links, own_cgroup) is True
    assert attach(HOOK, programs, made.links, own_cgroup) is False
    assert is_attached(HOOK, made.links, own_cgroup)


def test_a_new_program_replaces_the_old_in_one_step(bpffs: Path, own_cgroup: Path) -> None:
    """The link stays, its program changes."""
    made, programs = built(bpffs)
    attach(HOOK, programs, made.links, own_cgroup)
    before = link_of(made)
    _, newer = built(bpffs, SOMETHING="1")
    assert attach(HOOK, newer, made.links, own_cgroup) is True
    after = link_of(made)
    assert (after.id, after.cgroup) == (before.id, before.cgroup)
    assert after.program != before.program


def test_a_dead_cgroup_is_attached_anew(bpffs: Path, own_cgroup: Path) -> None:
    """A cgroup that was removed and made again is another one."""
    made, programs = built(bpffs)
    attach(HOOK, programs, made.links, own_cgroup)
    own_cgroup.rmdir()
    assert not is_attached(HOOK, made.links, own_cgroup)
    own_cgroup.mkdir()
    assert not is_attached(HOOK, made.links, own_cgroup)
    assert attach(HOOK, programs, made.links, own_cgroup) is True
    assert link_of(made).cgroup == own_cgroup.stat().st_ino


def test_looking_at_a_link_leaves_no_descriptor(bpffs: Path, own_cgroup: Path) -> None:
    """Status looks every time it is asked, also while the cgroup is gone."""
    made, programs = built(bpffs)
    attach(HOOK, programs, made.links, own_cgroup)
    before = len(list(Path("/proc/self/fd").iterdir()))
    is_attached(HOOK, made.links, own_cgroup)
    own_cgroup.rmdir()
    is_attached(HOOK, made.links, own_cgroup)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_programs_of_others_stay(bpffs: Path, own_cgroup: Path) -> None:
    """Another link on the same cgroup and hook outlives ours."""
    made, programs = built(bpffs)
    others = bpffs / "others"
    others.mkdir()
    attach(HOOK, programs, others, own_cgroup)
    attach(HOOK, programs, made.links, own_cgroup)
    made.remove()
    assert is_attached(HOOK, others, own_cgroup)
    (others / HOOK.name).unlink()
    others.rmdir()
