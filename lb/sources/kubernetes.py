"""A Kubernetes API server as a source: Services, EndpointSlices and the own Node.

The other Nodes are followed if the node's own setting asks for it, or from the first service on
that does: five thousand nodes that all watch each other are not for nothing.

The only importer of the `kubernetes` package, which is asked for configuration, credentials and
TLS and nothing else: objects are never its models. Which objects are asked for, by which
selectors, is kube-proxy's choice. Each resource is followed by one thread, a `Reflector`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import urllib3
import yaml

from bpf.slim import later, slim
from lb.errors import BadInput
from lb.model import ALL_NODES, ALL_PODS, Change, Refused, Service, Way
from lb.sources import Asked, Inbox, feed
from lb.sources.joint import Faring, Gate
from lb.sources.reflector import MISSING, Failed, Listener, Reflector, Resource, Timing
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


OTHERS = "nodes"
_HIDDEN = tuple(f"{code} " for code in MISSING)


def other_nodes(name: str) -> Resource:
    """All Nodes but that one: for DSR, whose packets are taken from nodes of the cluster alone."""
    selectors = {"fieldSelector": f"metadata.name!={name}"}
    return Resource(OTHERS, "/api/v1/nodes", "v1", "Node", selectors)


def own_pods(node: str, *, may_be_missing: bool) -> Resource:
    """The pods of that node: for bandwidth limits, host ports and names."""
    selectors = {"fieldSelector": f"spec.nodeName={node}"}
    return Resource("pods", "/api/v1/pods", "v1", "Pod", selectors, may_be_missing=may_be_missing)


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
        self._node = own_node(node_name)
        self._others = other_nodes(node_name)
        self._all_nodes = all_nodes
        # kube-proxy's own account may not read pods: there are no limits then.
        self._pods = (own_pods(node_name, may_be_missing=not host_ports),) if pods else ()

    def run(self, inbox: Inbox, stop: Event) -> None:
        """Deliver until `stop` is set."""
        following = _Following(self._access, self._timing, inbox, self._node.name)
        for resource in (self._node, SERVICE_CIDRS, *self._pods):
            following.begin(resource, inbox.changed)
        if self._all_nodes:
            following.begin_others(self._others, required=True)
        following.begin(SLICES, inbox.changed)
        following.begin(SERVICES, partial(self._services, following, inbox))
        stop.wait()
        following.end()

    def _services(self, following: _Following, inbox: Inbox, changes: Sequence[Change]) -> None:
        """In the thread of the services alone."""
        if not self._all_nodes and any(map(_asks_for_dsr, changes)):
            self._all_nodes = True
            log.info("a service asks for direct server return: all nodes are followed from now on")
            following.begin_others(self._others, required=False)
        inbox.changed(changes)


def _asks_for_dsr(change: Change) -> bool:
    return isinstance(change.value, Service) and change.value.forwarding not in {None, Way.SNAT}


class _Following:
    """The reflectors of one source, a thread each, and what they say together."""

    def __init__(self, access: Access, timing: Timing, inbox: Inbox, wished: str) -> None:
        self._access, self._timing, self._inbox = access, timing, inbox
        self._faring = Faring(inbox, "kubernetes", access.location)
        self._gate = Gate(
            inbox,
            needed=(SERVICES.name, SLICES.name),
            wished=(wished, SERVICE_CIDRS.name),
            patience=timing.node,
        )
        self._running: list[tuple[Reflector, threading.Thread]] = []

    def begin(
        self,
        resource: Resource,
        changed: Callable[[Sequence[Change]], None],
        fares: Callable[[str, str, tuple[Refused, ...]], None] | None = None,
    ) -> None:
        """Follow one kind, too."""
        name = resource.name
        listener = Listener(
            changed,
            partial(self._listed, name),
            partial(fares or self._faring.tell, name),
            partial(self._missing, name),
        )
        reflector = Reflector(resource, self._access, listener, self._timing)
        thread = threading.Thread(target=reflector.run, name=name, daemon=True)
        thread.start()
        self._running.append((reflector, thread))

    def begin_others(self, resource: Resource, *, required: bool) -> None:
        """Without the other nodes, packets that they hand over would be turned away.

        Unless `required`, a server that does not show them keeps nothing waiting: SNAT serves.
        """
        self._gate.need(OTHERS)
        self.begin(resource, self._inbox.changed, None if required else self._others_fare)

    def end(self) -> None:
        """Stop all."""
        self._gate.close()
        for reflector, _ in self._running:
            reflector.stop()
        for _, thread in self._running:
            thread.join(1.0)  # longer only while it connects, which nothing interrupts

    def _listed(self, name: str) -> None:
        if name == "pods":
            self._inbox.changed([ALL_PODS])
        if name == OTHERS:
            self._know_nodes()
        self._gate.listed(name)

    def _know_nodes(self) -> None:
        """Whoever serves already lets the other nodes hear of the same service first."""
        if not self._gate.has_passed:
            self._inbox.changed([ALL_NODES])
            return
        later = threading.Timer(self._timing.peers, self._inbox.changed, ([ALL_NODES],))
        later.daemon = True
        later.start()

    def _others_fare(self, name: str, error: str, problems: tuple[Refused, ...]) -> None:
        self._faring.tell(name, error, problems)
        if error.startswith(_HIDDEN):
            self._gate.listed(name)

    def _missing(self, name: str) -> None:
        """No fault, and nothing waits for it."""
        self._faring.tell(name, "", ())
        self._gate.listed(name)


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
