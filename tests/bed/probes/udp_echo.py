"""A UDP server for both families: NAME PORT [ADDRESS...]. Answers with JSON about who asked whom.

With addresses it answers there only: a server with several has to answer from the right one.
"""

import json
import selectors
import socket
import sys

pod, port = sys.argv[1], int(sys.argv[2])
SO_RCVBUFFORCE = 33  # include/uapi/asm-generic/socket.h; Python has no name for it
selector = selectors.DefaultSelector()
for address in sys.argv[3:] or ("0.0.0.0", "::"):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
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
