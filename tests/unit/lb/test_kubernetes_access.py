"""How a source gets to its API server: kubeconfig, certificates, tokens, a pod's own account."""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from kubernetes.config import incluster_config

from lb.errors import BadInput
from lb.sources.kubernetes import KubernetesSource
from tests.bed.apiroles import NODE_PROXIER, allowed, asked
from tests.bed.apiserver import ApiServer
from tests.bed.authority import Authority
from tests.bed.manifests import port, service
from tests.unit.lb.conftest import PATIENCE, QUICK, Recorder, Start

WEB = service("web", cluster_ips=["10.96.0.10"], ports=[port(80)])


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def _run(source: KubernetesSource) -> Iterator[Recorder]:
    """The source runs while the caller looks."""
    inbox, stop = Recorder(), threading.Event()
    thread = threading.Thread(target=source.run, args=(inbox, stop))
    thread.start()
    try:
        yield inbox
    finally:
        stop.set()
        thread.join(PATIENCE)


def test_a_token_that_is_replaced_on_disk(api: ApiServer, start: Start, tmp_path: Path) -> None:
    """The old one is refused, the file is read anew, and the watch goes on."""
    token = tmp_path / "token"
    token.write_text("first\n")
    api.tokens = {"first"}
    inbox = start(tokenFile=str(token))
    token.write_text("second\n")
    api.tokens = {"second"}
    api.drop("services")
    api.store.put(WEB)
    inbox.until(lambda: inbox.names() == {"web"} and not inbox.report_now.error)
    assert api.requests[-1].token == "second"
    assert api.count("services", watch=False) == 1


def test_a_token_that_is_wrong(api: ApiServer, start: Start) -> None:
    """Nothing is delivered, and the error says which answer came."""
    api.tokens = {"right"}
    inbox = start(synced=False, token="wrong")
    inbox.until(lambda: "services: 401" in inbox.report_now.error.replace("node, ", ""))
    assert not inbox.changes


def test_a_client_certificate(api: ApiServer, start: Start, tmp_path: Path) -> None:
    """A server that demands one is shown the kubeconfig's."""
    api.authority.context.verify_mode = ssl.CERT_REQUIRED
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"
    certificate.write_bytes(api.authority.client.cert_chain_pems[0].bytes())
    key.write_bytes(api.authority.client.private_key_pem.bytes())
    api.store.put(WEB)
    inbox = start(client_certificate=str(certificate), client_key=str(key))
    assert inbox.names() == {"web"}


def write_client(folder: Path, authority: trustme.CA) -> tuple[Path, Path]:
    """A client's certificate and key, in files."""
    issued = authority.issue_cert("client@example.org", common_name="client")
    certificate, key = folder / "client.pem", folder / "client.key"
    certificate.write_bytes(issued.cert_chain_pems[0].bytes())
    key.write_bytes(issued.private_key_pem.bytes())
    return certificate, key


def test_a_client_certificate_that_is_replaced_on_disk(
    api: ApiServer, start: Start, tmp_path: Path
) -> None:
    """The old one is refused, the files are read anew, and the watch goes on."""
    first, second = trustme.CA(), trustme.CA()
    api.authority.demand_clients_of(first)
    certificate, key = write_client(tmp_path, first)
    inbox = start(client_certificate=str(certificate), client_key=str(key))
    api.authority.demand_clients_of(second)
    api.drop("services")
    inbox.until(lambda: bool(inbox.report_now.error))
    write_client(tmp_path, second)
    api.store.put(WEB)
    inbox.until(lambda: inbox.names() == {"web"} and not inbox.report_now.error)
    assert api.count("services", watch=False) == 1


def test_an_authority_that_is_replaced_on_disk(
    api: ApiServer, start: Start, tmp_path: Path
) -> None:
    """A server with a certificate of the new one is trusted as soon as the file says so."""
    authority = tmp_path / "ca.pem"
    authority.write_bytes(api.authority.pem)
    inbox = start(authority=authority)
    api.authority = Authority(api.address)
    api.drop("services")
    inbox.until(lambda: "certificate verify failed" in inbox.report_now.error)
    authority.write_bytes(api.authority.pem)
    api.store.put(WEB)
    inbox.until(lambda: inbox.names() == {"web"} and not inbox.report_now.error)
    assert api.count("services", watch=False) == 1


def test_the_role_of_a_node_proxy_is_enough(api: ApiServer, start: Start) -> None:
    """Nothing that is asked for is refused; and the server does refuse what is beyond the role."""
    assert api.rules == NODE_PROXIER
    api.store.put(WEB)
    inbox = start()
    assert (inbox.names(), inbox.report_now.error) == ({"web"}, "")
    for path, verb in (
        ("/api/v1/pods", "list"),
        ("/api/v1/secrets", "watch"),
        ("/api/v1/namespaces/default/services/web", "get"),
        ("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/web", "get"),
    ):
        query = {"watch": "true"} if verb == "watch" else {}
        assert asked("GET", path, query)[2] == verb
        assert not allowed(NODE_PROXIER, "GET", path, query)
    assert not allowed(NODE_PROXIER, "DELETE", "/api/v1/nodes/n1", {})
    assert allowed(NODE_PROXIER, "POST", "/apis/events.k8s.io/v1/namespaces/default/events", {})


def test_a_role_that_lacks_a_kind_is_told(api: ApiServer, start: Start) -> None:
    """The first state waits; once the role is mended it comes by itself."""
    api.rules = {key: verbs for key, verbs in NODE_PROXIER.items() if key != ("", "services")}
    api.store.put(WEB)
    inbox = start(synced=False)
    inbox.until(lambda: "services: 403" in inbox.report_now.error)
    assert not inbox.synced_after
    api.rules = NODE_PROXIER
    inbox.until(lambda: bool(inbox.synced_after) and inbox.names() == {"web"})


def test_a_server_of_another_authority(api: ApiServer, tmp_path: Path) -> None:
    """Its certificate is not accepted; the error says so."""
    with ApiServer() as other:
        path = api.kubeconfig(tmp_path / "kubeconfig")
        source = KubernetesSource(
            kubeconfig=str(path), master=other.url, node_name="n1", timing=QUICK
        )
        with _run(source) as inbox:
            inbox.until(lambda: "certificate verify failed" in inbox.reports[-1].error)
            assert inbox.report_now.location == other.url
        assert not other.requests


def test_master_wins_over_the_kubeconfig(api: ApiServer, tmp_path: Path) -> None:
    """The URL is the flag's; credentials and authority stay the file's."""
    path = api.kubeconfig(tmp_path / "kubeconfig", token="right")
    path.write_text(path.read_text().replace(str(api.port), "1"))
    api.tokens = {"right"}
    api.store.put(WEB)
    source = KubernetesSource(
        kubeconfig=str(path), master=api.url + "/", node_name="n1", timing=QUICK
    )
    with _run(source) as inbox:
        inbox.until(lambda: inbox.names() == {"web"})
        assert inbox.report_now.location == api.url


def test_the_account_of_a_pod(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without flags the pod's own token and authority are used."""
    (tmp_path / "token").write_text("pod\n")
    (tmp_path / "ca.crt").write_bytes(api.authority.pem)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", api.address)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
    api.store.put(WEB)
    with _run(KubernetesSource(kubeconfig="", master="", node_name="n1", timing=QUICK)) as inbox:
        inbox.until(lambda: inbox.names() == {"web"})
    assert {request.token.removeprefix("bearer ") for request in api.requests} == {"pod"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "No such file or directory"),
        ("", "file is empty"),
        ("{", "expected"),
        ("[]", "is no kubeconfig"),
        ("clusters: 5", "is no kubeconfig"),
        ("current-context: x\ncontexts: []\nclusters: []\n", "Expected object with name x"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used(tmp_path: Path, text: str | None, reason: str) -> None:
    """It is refused at the start, in one line that names the file and the fault."""
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInput) as caught:
        KubernetesSource(kubeconfig=str(path), master="", node_name="n1")
    assert str(caught.value).startswith(f"--kubeconfig {path}: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_outside_of_a_cluster() -> None:
    """Without any flag, and without a pod's account, the error says what to give."""
    with pytest.raises(BadInput, match="give --kubeconfig, --master or --manifests"):
        KubernetesSource(kubeconfig="", master="", node_name="n1")


def test_who_reads_manifests_pays_nothing() -> None:
    """The package is loaded for this source only."""
    source = (
        "import sys, lb.agent_command, lb.sources.manifests; print('kubernetes' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
