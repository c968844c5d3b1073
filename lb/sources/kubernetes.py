"""A Kubernetes API server as a source: Services, EndpointSlices and the own Node.

The only importer of the `kubernetes` package, which is asked for configuration, credentials and
TLS and nothing else: objects are never its models. Which objects are asked for, by which
selectors, is kube-proxy's choice. Each resource is followed by one thread, a `Reflector`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import urllib3
import yaml

from bpf.slim import later, slim
from lb.errors import BadInput
from lb.model import ALL_PODS, Refused
from lb.sources import Asked, Inbox, feed
from lb.sources.joint import Faring, Gate
from lb.sources.reflector import Failed, Listener, Reflector, Resource, Timing
from lb.sources.stream import TRANSPORT, Stream, explain, is_of_tls, one_line

slim("kubernetes")
later("kubernetes.client.api_client", "ApiClient")  # pydantic and all models
later("requests_oauthlib", "OAuth2Session")  # both for tokens of OpenID Connect alone

from kubernetes import client, config  # noqa: E402
from kubernetes.client.rest import RESTClientObject  # noqa: E402

log = logging.getLogger("tidegate.source")

FRESH_SECONDS = 60.0
"""How long files of credentials are not read again; tokens are rotated well ahead."""
OK, CREATED, UNAUTHORIZED = 200, 201, 401
_BAD_CONFIGURATION = (
    config.ConfigException, OSError, yaml.YAMLError,
    ValueError, TypeError, KeyError, AttributeError,
)  # fmt: skip
"""What the package raises for a kubeconfig that is not there, does not parse or is odd."""

SERVICES = Resource(
    "services", "/api/v1/services", "v1", "Service",
    {"labelSelector": "!service.kubernetes.io/service-proxy-name"},
    {"fieldSelector": "spec.clusterIP!=None"},
)  # fmt: skip
SLICES = Resource(
    "endpointslices", "/apis/discovery.k8s.io/v1/endpointslices",
    "discovery.k8s.io/v1", "EndpointSlice",
    {"labelSelector": "!service.kubernetes.io/headless"},
)  # fmt: skip

SERVICE_CIDRS = Resource(
    "servicecidrs", "/apis/networking.k8s.io/v1/servicecidrs",
    "networking.k8s.io/v1", "ServiceCIDR", {}, may_be_missing=True,
)  # fmt: skip


def own_node(name: str) -> Resource:
    """The Node of that name and no other."""
    selectors = {"fieldSelector": f"metadata.name={name}"}
    return Resource("node", "/api/v1/nodes", "v1", "Node", selectors)


ALL_NODES = Resource("nodes", "/api/v1/nodes", "v1", "Node", {})


def own_pods(node: str) -> Resource:
    """The pods of that node: for bandwidth limits, host ports and names."""
    return Resource("pods", "/api/v1/pods", "v1", "Pod", {"fieldSelector": f"spec.nodeName={node}"})


class KubernetesSource:
    """Raises BadInput when the configuration cannot be used."""

    def __init__(  # noqa: PLR0913
        self,
        *,
        kubeconfig: str,
        master: str,
        node_name: str,
        all_nodes: bool = False,
        pods: bool = False,
        host_ports: bool = False,
        timing: Timing | None = None,
    ) -> None:
        self._timing = timing or Timing()
        self._access = self.api = Access(kubeconfig, master, self._timing)
        self._node = ALL_NODES if all_nodes else own_node(node_name)
        self._all_nodes = (ALL_NODES.name,) if all_nodes else ()
        self._pods = (own_pods(node_name),) if pods else ()
        self._needs_pods = host_ports

    def run(self, inbox: Inbox, stop: Event) -> None:
        """Deliver until `stop` is set."""
        faring = Faring(inbox, "kubernetes", self._access.location)
        gate = Gate(
            inbox,
            # Without the other nodes, packets that they hand over would be turned away.
            needed=(SERVICES.name, SLICES.name, *self._all_nodes),
            wished=(self._node.name, SERVICE_CIDRS.name),
            patience=self._timing.node,
        )
        running: list[tuple[Reflector, threading.Thread]] = []
        for resource in (self._node, SERVICE_CIDRS, SERVICES, SLICES, *self._pods):
            name = resource.name
            listener = Listener(
                inbox.changed,
                partial(_listed, inbox, gate, name),
                partial(self._tell, faring, name),
            )
            reflector = Reflector(resource, self._access, listener, self._timing)
            thread = threading.Thread(target=reflector.run, name=name, daemon=True)
            thread.start()
            running.append((reflector, thread))
        stop.wait()
        gate.close()
        for reflector, _ in running:
            reflector.stop()
        for _, thread in running:
            thread.join(1.0)  # longer only while it connects, which nothing interrupts

    def _tell(self, faring: Faring, name: str, error: str, problems: tuple[Refused, ...]) -> None:
        """An account without the right to read pods is kube-proxy's own: there are no limits then.

        Who asked for host ports is told.
        """
        usual = name == "pods" and not self._needs_pods and error.startswith("403 ")
        faring.tell(name, "" if usual else error, problems)


def _listed(inbox: Inbox, gate: Gate, name: str) -> None:
    if name == "pods":
        inbox.changed([ALL_PODS])
    gate.listed(name)


class Access:
    """The way to the API server: configuration, credentials, TLS, connections.

    All files are read anew once they are `FRESH_SECONDS` old and a request is due, and after a 401
    or a fault of TLS: so tokens, client certificates and authorities may be replaced on disk at any
    time.
    """

    def __init__(self, kubeconfig: str, master: str, timing: Timing) -> None:
        self._kubeconfig, self._master, self._timing = kubeconfig, master, timing
        self.asked = Asked()
        self._lock = threading.Lock()
        self._load()

    @property
    def location(self) -> str:
        """The server's URL."""
        return str(self._configuration.host)

    def get(self, path: str, query: Mapping[str, str], *, patience: float) -> Stream:
        """Ask; `patience` is the longest silence in seconds. Raises Failed."""
        return self._request("GET", path, {}, patience, fields=query)

    def send(self, method: str, path: str, body: bytes) -> None:
        """Create by POST, or change by PATCH (RFC 7396), from JSON. Raises Failed."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        more = {"Content-Type": kind}
        with self._request(method, path, more, self._timing.answer, body=body) as stream:
            stream.whole()

    def _request(
        self, method: str, path: str, more: Mapping[str, str], patience: float, **content: Any
    ) -> Stream:
        began, code = time.monotonic(), 0
        try:
            pools, headers, host = self._present()
            response = pools.request(
                method,
                host + path,
                headers=headers | dict(more),
                timeout=urllib3.Timeout(connect=self._timing.connect, read=patience),
                retries=False,
                preload_content=False,
                **content,
            )
            code = response.status
        except TRANSPORT as error:
            if is_of_tls(error):
                self._read_at = -math.inf
            raise Failed(explain(error)) from error
        finally:
            self.asked.note(method, code, time.monotonic() - began)
        stream = Stream(response)
        if response.status in (OK, CREATED):
            return stream
        if response.status == UNAUTHORIZED:
            self._read_at = -math.inf
        with stream:
            raise _refusal(response, stream.whole())

    def _present(self) -> tuple[urllib3.PoolManager, dict[str, str], str]:
        """What a request needs; where the files cannot be read anew, what they held last."""
        with self._lock:
            if time.monotonic() - self._read_at > FRESH_SECONDS:
                try:
                    self._load()
                except BadInput as error:
                    log.warning("%s; the last good credentials are used", error)
                    self._read_at = time.monotonic()
            return self._pools, self._headers, self.location

    def _load(self) -> None:
        """Raises BadInput."""
        found, token = _configuration(self._kubeconfig, self._master)
        self._headers = {"Accept": "application/json", "User-Agent": "tidegate"}
        if token:
            self._headers["Authorization"] = token
        self._pools: urllib3.PoolManager = RESTClientObject(found).pool_manager
        self._configuration = found
        self._read_at = time.monotonic()


def _configuration(kubeconfig: str, master: str) -> tuple[Any, str]:
    """As client-go finds it: the kubeconfig, its server overruled; else the pod's own account.

    And the Authorization header, empty for none. Raises BadInput.
    """
    found = client.Configuration()
    found.keep_alive = True
    token = ""
    try:
        if kubeconfig:
            with Path(kubeconfig).open("rb"):
                pass  # the package takes a file that is not there for an empty one
            load: Any = config.load_kube_config
            load(kubeconfig, client_configuration=found, persist_config=False)
        elif not master:
            load = config.load_incluster_config
            load(client_configuration=found)
        # Asking for the token sets the host anew, so `master` comes after it.
        token = found.get_api_key_with_prefix("BearerToken", alias="authorization") or ""
    except _BAD_CONFIGURATION as error:
        if kubeconfig:
            raise BadInput(f"--kubeconfig {kubeconfig}: {_fault(error)}") from error
        raise BadInput(
            "no API server: this is no pod of a cluster; give --kubeconfig, --master or "
            f"--manifests ({_fault(error)})"
        ) from error
    if master:
        found.host = master.rstrip("/")
    return found, token.strip()


def _fault(error: Exception) -> str:
    match error:
        case OSError():
            return explain(error)
        case config.ConfigException() | yaml.YAMLError():
            return one_line(str(error))
        case _:
            return one_line(f"is no kubeconfig: {error}")


def _refusal(response: urllib3.BaseHTTPResponse, body: bytes) -> Failed:
    try:
        message = feed.status.decode(body).message
    except msgspec.DecodeError:
        message = ""
    asked = response.headers.get("Retry-After", "")
    return Failed(
        one_line(f"{response.status} {message or response.reason or ''}"),
        response.status,
        float(asked) if asked.isascii() and asked.isdigit() else 0.0,
    )
