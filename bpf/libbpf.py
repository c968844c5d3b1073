"""A thin ctypes binding of libbpf: the calls that the agent lives on, errno turned into OSError.

libbpf comes with bcc and loads in under a megabyte, where bcc itself costs 64 (and 120 once it
has compiled). Objects are file descriptors here; who opens one closes it (`os.close`).
Not for compiling or loading programs: that is `bpf.module`, in a process of its own.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from ctypes import c_uint32, c_uint64
from pathlib import Path
from typing import NamedTuple

_lib: ctypes.CDLL | None = None


def _call(name: str, *arguments: object, what: str) -> int:
    """Calls libbpf; a negative result is an errno (libbpf 1.x). Raises OSError naming `what`."""
    global _lib  # noqa: PLW0603 - loaded at first use: `plan` and `--help` need no libbpf
    if _lib is None:
        _lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    result: int = getattr(_lib, name)(*arguments)
    if result < 0:
        code = ctypes.get_errno() or -result
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def open_pin(path: str) -> int:
    """The object pinned at `path`. Raises OSError."""
    return _call("bpf_obj_get", path.encode(), what=f"open {path}")


def pin(fd: int, path: str) -> None:
    """Pins an object. Raises OSError, FileExistsError included."""
    _call("bpf_obj_pin", fd, path.encode(), what=f"pin {path}")


class _MapOptions(ctypes.Structure):
    """struct bpf_map_create_opts (libbpf 1.x, bpf.h)."""

    _fields_ = (
        ("size", ctypes.c_size_t), ("btf_fd", c_uint32), ("btf_key_type_id", c_uint32),
        ("btf_value_type_id", c_uint32), ("btf_vmlinux_value_type_id", c_uint32),
        ("inner_map_fd", c_uint32), ("map_flags", c_uint32), ("map_extra", c_uint64),
        ("numa_node", c_uint32), ("map_ifindex", c_uint32),
    )  # fmt: skip


class MapKind(NamedTuple):
    """What a map is made of: enum bpf_map_type, BPF_F_* flags, sizes of key and value in bytes."""

    kind: int
    flags: int
    key_size: int
    value_size: int


def create_map(name: str, made_of: MapKind, entries: int, *, btf: int | None = None) -> int:
    """A new map; its name is cut to 15 characters. Raises OSError.

    `btf` is a descriptor whose type 1 is the key and type 2 the value.
    """
    options = _MapOptions(size=ctypes.sizeof(_MapOptions), map_flags=made_of.flags)
    if btf is not None:
        options.btf_fd, options.btf_key_type_id, options.btf_value_type_id = btf, 1, 2
    return _call(
        "bpf_map_create", made_of.kind, name[:15].encode(), made_of.key_size, made_of.value_size,
        entries, ctypes.byref(options), what=f"create map {name}",
    )  # fmt: skip


def load_btf(data: bytes) -> int:
    """Types for the kernel. Raises OSError."""
    return _call("bpf_btf_load", data, ctypes.c_size_t(len(data)), None, what="load types")


class MapInfo(NamedTuple):
    """What the kernel says of a map; sizes in bytes."""

    kind: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str


class LinkInfo(NamedTuple):
    """What the kernel says of a cgroup link."""

    id: int
    program: int
    cgroup: int
    attach_type: int


def _info(fd: int, size: int) -> bytes:
    buffer = ctypes.create_string_buffer(size)
    length = c_uint32(size)
    _call("bpf_obj_get_info_by_fd", fd, buffer, ctypes.byref(length), what="object info")
    return buffer.raw


def map_info(fd: int) -> MapInfo:
    """What the kernel says of a map (struct bpf_map_info)."""
    raw = _info(fd, 96)
    kind, number, key, value, entries, flags = struct.unpack_from("=6I", raw)
    name = raw[24:40].rstrip(b"\0").decode()
    return MapInfo(kind, number, key, value, entries, flags, name)


def object_id(fd: int) -> int:
    """The kernel's id of a map, program or link, each kind with ids of its own."""
    return int.from_bytes(_info(fd, 64)[4:8], "little")  # the second word of all three structs


def program_id(fd: int) -> int:
    """The kernel's id of a program."""
    return int.from_bytes(_info(fd, 232)[4:8], "little")


def link_info(fd: int) -> LinkInfo:
    """What it says of a cgroup link (struct bpf_link_info).

    `cgroup` is the inode of its folder, 0 once it is dead.
    """
    raw = _info(fd, 64)
    word = [int.from_bytes(raw[i : i + 4], "little") for i in range(0, 12, 4)]
    cgroup = int.from_bytes(raw[16:24], "little")
    return LinkInfo(word[1], word[2], cgroup, int.from_bytes(raw[24:28], "little"))


class _LoadOptions(ctypes.Structure):
    """struct bpf_prog_load_opts (libbpf 1.x, bpf.h)."""

    _fields_ = (
        ("size", ctypes.c_size_t), ("attempts", ctypes.c_int), ("attach_type", c_uint32),
        ("btf", c_uint32), ("flags", c_uint32), ("device", c_uint32), ("kernel", c_uint32),
        ("attach_btf_id", c_uint32), ("attach_program", c_uint32), ("attach_btf_object", c_uint32),
        ("descriptors", ctypes.c_void_p), ("functions", ctypes.c_void_p),
        ("function_count", c_uint32), ("function_size", c_uint32), ("lines", ctypes.c_void_p),
        ("line_count", c_uint32), ("line_size", c_uint32), ("log_level", c_uint32),
        ("log_size", c_uint32), ("log", ctypes.c_void_p),
    )  # fmt: skip


_LOG_SIZE = 16 << 20
"""Of what the verifier says of a program that it refuses, octets."""


def load(name: str, kind: int, attach_type: int, licence: str, instructions: bytes) -> int:
    """A program in the kernel; `attach_type` -1: none.

    Raises OSError, with what the verifier said in a note.
    """
    options = _LoadOptions(size=ctypes.sizeof(_LoadOptions), attach_type=max(attach_type, 0))
    given = (kind, name.encode(), licence.encode(), instructions, len(instructions) // 8)
    try:
        return _call("bpf_prog_load", *given, ctypes.byref(options), what=f"load {name}")
    except OSError as error:
        # Once more, with a log this time: it costs the verifier a multiple.
        log = ctypes.create_string_buffer(_LOG_SIZE)
        options.log_level, options.log_size = 1, len(log)
        options.log = ctypes.addressof(log)
        try:
            return _call("bpf_prog_load", *given, ctypes.byref(options), what=f"load {name}")
        except OSError:
            error.add_note(log.value.decode(errors="replace"))
            raise error from None


class XdpLinkInfo(NamedTuple):
    """What it says of a device's link."""

    program: int
    device: int
    """0: it is gone."""


def xdp_link_info(fd: int) -> XdpLinkInfo:
    """Which program, on which device (struct bpf_link_info)."""
    raw = _info(fd, 64)
    return XdpLinkInfo(*(int.from_bytes(raw[i : i + 4], "little") for i in (8, 16)))


class _LinkOptions(ctypes.Structure):
    """struct bpf_link_create_opts, up to what all versions of libbpf 1 have."""

    _fields_ = (
        ("size", ctypes.c_size_t), ("flags", c_uint32), ("iterator", ctypes.c_void_p),
        ("iterator_size", c_uint32), ("btf_id", c_uint32),
    )  # fmt: skip


def link_create(program: int, target: int, attach_type: int, *, flags: int = 0) -> int:
    """Attaches a program to a cgroup (Linux 5.7) or a device (5.9): BPF_LINK_CREATE.

    Raises OSError.
    """
    options = _LinkOptions(size=ctypes.sizeof(_LinkOptions), flags=flags)
    return _call(
        "bpf_link_create", program, target, attach_type, ctypes.byref(options), what="attach"
    )


def link_update(link: int, program: int) -> None:
    """Replaces a link's program in one step: no connect meets neither or both. Raises OSError."""
    _call("bpf_link_update", link, program, None, what="replace program")


class _TestRun(ctypes.Structure):
    """struct bpf_test_run_opts (libbpf 1.x, bpf.h)."""

    _fields_ = (
        ("size", ctypes.c_size_t), ("data_in", ctypes.c_char_p), ("data_out", ctypes.c_void_p),
        ("data_size_in", c_uint32), ("data_size_out", c_uint32),
        ("ctx_in", ctypes.c_char_p), ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", c_uint32), ("ctx_size_out", c_uint32), ("verdict", c_uint32),
        ("repeat", ctypes.c_int), ("duration", c_uint32), ("flags", c_uint32), ("cpu", c_uint32),
        ("batch_size", c_uint32),
    )  # fmt: skip


class Ran(NamedTuple):
    """What a program made of a packet. `duration` is ns a run, on average."""

    verdict: int
    packet: bytes
    duration: int


def test_run(program: int, packet: bytes, *, device: int = 0, repeat: int = 1) -> Ran:  # noqa: PT028
    """Runs a tc program on a packet that no device ever sees (BPF_PROG_TEST_RUN).

    `packet` is an Ethernet frame of 15 to some 3500 bytes. `device` is the index of the device
    that it seems to be on, in this thread's network namespace; 0: its loopback. Of `repeat` runs
    each gets what the one before made of the packet. Raises OSError.
    """
    context = struct.pack("=11I", *[0] * 9, device, device)  # struct __sk_buff, up to ifindex
    return _test_run(program, packet, context, repeat)


def test_run_xdp(program: int, packet: bytes, *, device: int, repeat: int = 1) -> Ran:  # noqa: PT028
    """The same for an XDP program; `device` has to be one that runs native XDP. Raises OSError."""
    context = struct.pack("=6I", 0, len(packet), 0, device, 0, 0)  # struct xdp_md
    return _test_run(program, packet, context, repeat)


def _test_run(program: int, packet: bytes, context: bytes, repeat: int) -> Ran:
    made = ctypes.create_string_buffer(len(packet) + 256)
    options = _TestRun(
        size=ctypes.sizeof(_TestRun),
        data_in=packet,
        data_size_in=len(packet),
        data_out=ctypes.addressof(made),
        data_size_out=len(made),
        ctx_in=context,
        ctx_size_in=len(context),
        repeat=repeat,
    )
    _call("bpf_prog_test_run_opts", program, ctypes.byref(options), what="test run")
    return Ran(options.verdict, made.raw[: options.data_size_out], options.duration)


def lookup(fd: int, key: bytes, size: int) -> bytes | None:
    """One value of `size` bytes (all CPUs' values for a per-CPU map); None: no such key."""
    value = ctypes.create_string_buffer(size)
    try:
        _call("bpf_map_lookup_elem", fd, key, value, what="lookup")
    except FileNotFoundError:
        return None
    return value.raw


def update(fd: int, key: bytes, value: bytes) -> None:
    """Writes one entry. Raises OSError (E2BIG or ENOMEM: full)."""
    _call("bpf_map_update_elem", fd, key, value, c_uint64(0), what="update")


def delete(fd: int, key: bytes) -> None:
    """Removes one entry, if it is there. Raises OSError."""
    try:
        _call("bpf_map_delete_elem", fd, key, what="delete")
    except FileNotFoundError:
        return


class _Options(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("elem_flags", c_uint64), ("flags", c_uint64))


def _options() -> _Options:
    return _Options(ctypes.sizeof(_Options), 0, 0)


def update_batch(fd: int, keys: bytes, values: bytes, count: int) -> bool:
    """Writes `count` entries given end to end; False: not all, and nobody knows which."""
    done = c_uint32(count)
    options = _options()
    try:
        _call(
            "bpf_map_update_batch", fd, keys, values, ctypes.byref(done), ctypes.byref(options),
            what="update",
        )  # fmt: skip
    except OSError:
        return False
    return True


def each(fd: int, info: MapInfo, value_size: int) -> Iterator[tuple[bytes, bytes]]:
    """Every entry, key by key: slow but right for all kinds of map, also while it changes."""
    key: bytes | None = None
    for _ in range(2 * info.max_entries + 1):
        following = ctypes.create_string_buffer(info.key_size)
        try:
            _call("bpf_map_get_next_key", fd, key, following, what="next key")
        except FileNotFoundError:
            return
        key = following.raw
        value = lookup(fd, key, value_size)
        if value is not None:
            yield key, value


def each_batch(fd: int, info: MapInfo, *, at_once: int = 4096) -> Iterator[tuple[bytes, bytes]]:
    """Every entry of a hash map, thousands in a call. Raises OSError where batches do not work."""
    key, value = info.key_size, info.value_size
    for keys, values in batches(fd, info, at_once=at_once):
        for i in range(len(keys) // key):
            yield keys[i * key : (i + 1) * key], values[i * value : (i + 1) * value]


def batches(fd: int, info: MapInfo, *, at_once: int) -> Iterator[tuple[bytes, bytes]]:
    """The same, up to `at_once` keys end to end and their values at a time. Raises likewise."""
    keys = ctypes.create_string_buffer(info.key_size * at_once)
    values = ctypes.create_string_buffer(info.value_size * at_once)
    # Where a batch ends is a number in a hash, and a whole key in an LPM trie.
    here, there = (ctypes.create_string_buffer(max(8, info.key_size)) for _ in range(2))
    options, started, more = _options(), False, True
    while more:
        count = c_uint32(at_once)
        try:
            _call(
                "bpf_map_lookup_batch", fd, here if started else None, there, keys, values,
                ctypes.byref(count), ctypes.byref(options), what="read",
            )  # fmt: skip
        except FileNotFoundError:
            more = False  # the last batch; it may be a short one
        yield keys.raw[: count.value * info.key_size], values.raw[: count.value * info.value_size]
        here, there, started = there, here, True


def has_helper(program_type: int, helper: int) -> bool | None:
    """May programs of this type call the helper? None: could not find out."""
    return _probe("libbpf_probe_bpf_helper", program_type, helper, None)


def has_program_type(program_type: int) -> bool | None:
    """Does the kernel know the program type? None: could not find out."""
    return _probe("libbpf_probe_bpf_prog_type", program_type, None)


def has_map_type(map_type: int) -> bool | None:
    """Does the kernel know the map type? None: could not find out."""
    return _probe("libbpf_probe_bpf_map_type", map_type, None)


def _probe(name: str, *arguments: object) -> bool | None:
    try:
        return bool(_call(name, *arguments, what="probe"))
    except OSError:
        return None


def cpus() -> int:
    """How many values an entry of a per-CPU map holds."""
    return _call("libbpf_num_possible_cpus", what="count CPUs")


def close(fd: int) -> None:
    """The descriptor goes; the object stays while it is pinned or used."""
    os.close(fd)


def locked_memory(fd: int) -> int:
    """Bytes that a map takes now, by the kernel's own account."""
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "memlock":
            return int(value)
    return 0
