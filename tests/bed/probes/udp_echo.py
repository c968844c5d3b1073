"""A UDP server for both families: NAME PORT. Answers with JSON about who asked whom."""

import json
import selectors
import socket
import sys

pod, port = sys.argv[1], int(sys.argv[2])
SO_RCVBUFFORCE = 33  # include/uapi/asm-generic/socket.h; Python has no name for it
selector = selectors.DefaultSelector()
for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    server = socket.socket(family, socket.SOCK_DGRAM)
    # Room for what hundreds of clients send while this process waits for a processor.
    server.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    if family is socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    server.bind((address, port))
    selector.register(server, selectors.EVENT_READ, server)
while True:
    for key, _ in selector.select():
        text, client = key.data.recvfrom(65536)
        seen = {"pod": pod, "client": client[0], "client_port": client[1]}
        key.data.sendto(json.dumps(seen | {"text": text.decode(errors="replace")}).encode(), client)
