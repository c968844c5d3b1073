"""Certificates for the stand-in API server, and its side of TLS."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme


class Authority:
    """Who signs: kept in a folder, so that a server that comes back is still trusted."""

    def __init__(self, address: str, folder: Path | None = None) -> None:
        kept = folder / "server.pem" if folder else None
        if kept is None or not kept.exists():
            authority = trustme.CA()
            certificate = authority.issue_cert(address)
            text = b"".join(
                [certificate.private_key_pem.bytes()]
                + [pem.bytes() for pem in certificate.cert_chain_pems]
            )
            self.client = authority.issue_cert("client@example.org", common_name="client")
            self.pem = authority.cert_pem.bytes()
            if folder is not None and kept is not None:
                (folder / "ca.pem").write_bytes(self.pem)
                kept.write_bytes(text)
        elif folder is not None:
            text, self.pem = kept.read_bytes(), (folder / "ca.pem").read_bytes()
        self._text = text
        self.context = self._serving(self.pem)

    def demand_clients_of(self, authority: trustme.CA) -> None:
        """From the next connection on a client has to show a certificate of that authority."""
        self.context = self._serving(authority.cert_pem.bytes())
        self.context.verify_mode = ssl.CERT_REQUIRED

    def _serving(self, clients: bytes) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_verify_locations(cadata=clients.decode())
        with _file(self._text) as path:
            context.load_cert_chain(path)
        return context


@contextmanager
def _file(text: bytes) -> Iterator[str]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(text)
        file.flush()
        yield file.name
