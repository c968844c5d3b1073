"""The real servers that a host of the bed can run."""

from __future__ import annotations

import json
import re
import sys

from tests.bed.host import PROBES, Host
from tests.bed.process import Process

WHOAMI = "whoami.test"
"""What `ServerHost.dns` answers for: A and AAAA with the host's addresses, TXT with its name."""

_NGINX = """
daemon off;
master_process off;
user root;
pid nginx.pid;
error_log stderr warn;
events {{ }}
http {{
    access_log off;
    # A connection goes on for as long as its client wants: nginx would end it after 1,000 requests
    # or an hour, in the midst of a test where an emulated agent takes its time.
    keepalive_requests 1000000;
    keepalive_time 24h;
    keepalive_timeout 1h;
    default_type application/json;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen {port} backlog=4096;
        listen [::]:{port} backlog=4096;
        location / {{
            return 200 '{text}\\n';
        }}
        location /files/ {{
            root {folder};
            dav_methods PUT;
            client_max_body_size 64m;
        }}
    }}
}}
"""


class ServerHost(Host):
    """A host that can serve. Each server is started when its sockets are open, in both families.

    Answers name the host as `pod`, whatever it is.
    """

    def nginx(self, port: int = 8080, text: str | None = None) -> Process:
        """Debian's nginx. Answers `text`, or JSON: pod, client, client_port, local, local_port.

        Below /files/ it keeps what is PUT there, and gives it back.
        """
        seen = {"pod": self.name, "client": "$remote_addr", "client_port": "$remote_port"}
        local = {"local": "$server_addr", "local_port": "$server_port"}
        folder = self.directory / f"nginx-{port}"
        (folder / "files").mkdir(parents=True)
        config = folder / "nginx.conf"
        # Ports are numbers in JSON, so nginx's variables for them stand bare.
        answer = re.sub(r'"(\$\w+_port)"', r"\1", json.dumps(seen | local))
        answer = answer if text is None else text
        config.write_text(_NGINX.format(port=port, text=answer, folder=folder))
        return self.spawn(
            "nginx", "-p", str(folder), "-c", str(config), "-e", "stderr",
            ready=lambda process: self.listens(process, port, "tcp", "tcp6"),
        )  # fmt: skip

    def dns(self, port: int = 5353) -> Process:
        """Debian's dnsmasq, UDP and TCP; it answers for `WHOAMI`."""
        return self.spawn(
            "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--log-facility=-",
            "--user=root", "--pid-file=", "--no-resolv", "--no-hosts", f"--port={port}",
            f"--host-record={WHOAMI},{self.ipv4},{self.ipv6}", f"--txt-record={WHOAMI},{self.name}",
            ready=lambda process: self.listens(process, port, "tcp", "tcp6", "udp", "udp6"),
        )  # fmt: skip

    def udp_echo(self, port: int = 5000, *addresses: str) -> Process:
        """A UDP server whose answer is JSON: pod, client, client_port, text.

        Where it is to answer from other addresses than the host's own, one of each family.
        """
        return self.spawn(
            sys.executable, "-IS", str(PROBES / "udp_echo.py"), self.name, str(port), *addresses,
            ready=lambda process: self.listens(process, port, "udp", "udp6"),
        )  # fmt: skip

    def line_echo(self, port: int = 7000) -> Process:
        """A TCP server for long connections: answers each line with its name and the line."""
        return self.spawn(
            sys.executable, "-IS", str(PROBES / "line_echo.py"), self.name, str(port),
            ready=lambda process: self.listens(process, port, "tcp", "tcp6"),
        )  # fmt: skip

    def iperf(self, port: int = 5201) -> Process:
        """An iperf3 server, one test at a time."""
        return self.spawn(
            "iperf3", "--server", "--port", str(port),
            ready=lambda process: self.listens(process, port, "tcp6"),
        )  # fmt: skip
