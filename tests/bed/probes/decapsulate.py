"""Takes outer IP headers off, as Linux' ipip and ip6tnl do: DEVICE4 DEVICE6. Runs until ended.

For kernels that have neither. Packets arrive at raw sockets (protocol 4, RFC 2003; protocol 41,
RFC 2473), and what was in them comes in by the tun devices named, which it makes. Says `ready`.
"""
# ruff: noqa: T201 - to print is what a probe is for

import fcntl
import os
import selectors
import socket
import struct
import sys

TUNSETIFF = 0x400454CA  # include/uapi/linux/if_tun.h
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000


def tun(name: str) -> int:
    """A device whose input is what one writes; it goes with the descriptor."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return descriptor


def inner(packet: bytes, family: socket.AddressFamily) -> bytes:
    """A raw socket shows an IPv4 packet with its header, and an IPv6 one without."""
    return packet[(packet[0] & 15) * 4 :] if family is socket.AF_INET else packet


selector = selectors.DefaultSelector()
for device, family, protocol in (
    (sys.argv[1], socket.AF_INET, socket.IPPROTO_IPIP),
    (sys.argv[2], socket.AF_INET6, socket.IPPROTO_IPV6),
):
    outer = socket.socket(family, socket.SOCK_RAW, protocol)
    selector.register(outer, selectors.EVENT_READ, (tun(device), family))
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        device, family = key.data
        try:
            os.write(device, inner(key.fileobj.recv(65536), family))
        except OSError as error:  # the device is down: lost, as with any other
            print(error, flush=True)
