"""A Kubernetes API server as a source: Services, EndpointSlices and this node's own Node.

The `kubernetes` package gives credentials, TLS and proxies, and is imported nowhere else, and only
when a connection is made (0.14 s, 30 MB). Its models are not used: objects are decoded straight
into `lb.sources.objects`. One thread for each resource; what they do is in `lb.sources.reflector`.
The selectors are kube-proxy's.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from urllib3 import HTTPResponse, Timeout

from lb.errors import BadInput
from lb.sources import Inbox, Report
from lb.sources.reflector import Reflector, Resource

if TYPE_CHECKING:
    from urllib3 import PoolManager

CONNECT_SECONDS = 5.0

SERVICES = Resource(
    "/api/v1/services",
    "v1",
    "Service",
    label_selector="!service.kubernetes.io/service-proxy-name",
    field_selector="spec.clusterIP!=None",
    may_drop_field=True,
)
SLICES = Resource(
    "/apis/discovery.k8s.io/v1/endpointslices",
    "discovery.k8s.io/v1",
    "EndpointSlice",
    label_selector="!service.kubernetes.io/headless",
)
NODES = Resource("/api/v1/nodes", "v1", "Node")


class HttpConnection:
    """A pool of connections to one server, and the headers that open it."""

    def __init__(self, pool: PoolManager, url: str, headers: Mapping[str, str]) -> None:
        self._pool, self._url, self._headers = pool, url, headers

    def get(self, path: str, query: Mapping[str, str], silence: float) -> HTTPResponse:
        """The answer, its body unread. Raises urllib3's HTTPError, OSError."""
        response = self._pool.request(
            "GET",
            f"{self._url}{path}?{urlencode(query)}",
            headers=self._headers,
            preload_content=False,
            retries=False,
            redirect=False,
            timeout=Timeout(connect=CONNECT_SECONDS, read=silence),
        )
        assert isinstance(response, HTTPResponse)  # noqa: S101 - for the type checker
        return response

    def close(self) -> None:
        """Close idle connections."""
        self._pool.clear()


class Server:
    """Finds the API server as kube-proxy does: `--kubeconfig`, `--master`, else in-cluster."""

    def __init__(self, kubeconfig: str, master: str) -> None:
        self._kubeconfig, self._master = kubeconfig, master
        self._lock = Lock()
        self.location = master or kubeconfig or "in-cluster"

    def connect(self) -> HttpConnection:
        """A connection with credentials read now. Raises BadInput.

        The client reads a kubeconfig's `tokenFile` and certificates only once; they rotate, so
        each list and each watch starts from the files.
        """
        # The client keeps global state, and no configuration error may end the agent.
        with self._lock:
            try:
                return self._connect()
            except Exception as error:
                text = " ".join(str(error).split()) or type(error).__name__
                where = self._kubeconfig or "in-cluster configuration"
                raise BadInput(f"{where}: {text}") from error

    def _connect(self) -> HttpConnection:
        import kubernetes.config as untyped  # noqa: PLC0415 - heavy; see the module
        from kubernetes.client import Configuration  # noqa: PLC0415
        from kubernetes.client.rest import RESTClientObject  # noqa: PLC0415

        config: Any = untyped
        found: Any = Configuration()
        if self._kubeconfig:
            config.load_kube_config(
                self._kubeconfig, client_configuration=found, persist_config=False
            )
        elif not self._master:
            config.load_incluster_config(client_configuration=found)
        if self._master:
            found.host = self._master
        self.location = found.host.rstrip("/")
        headers = {"Accept": "application/json", "User-Agent": "tidegate"}
        for setting in found.auth_settings().values():
            if setting["in"] == "header" and setting["value"]:
                headers[setting["key"]] = setting["value"].strip()
        return HttpConnection(RESTClientObject(found).pool_manager, self.location, headers)


class KubernetesSource:
    """Lists and watches; the API server may be away for any time."""

    def __init__(self, kubeconfig: str, master: str, node_name: str) -> None:
        self._server = Server(kubeconfig, master)
        own = NODES._replace(field_selector=f"metadata.name={node_name}")
        self._resources = {"services": SERVICES, "slices": SLICES, "node": own}
        self._lock = Lock()
        self._errors: dict[str, str] = {}
        self._report: Report | None = None
        self._waited_for = set(self._resources)

    def run(self, inbox: Inbox, stop: Event) -> None:
        """Deliver until `stop` is set."""
        reflectors, threads = [], []
        for name, resource in self._resources.items():
            reflector = Reflector(
                resource,
                self._server.connect,
                inbox.changed,
                lambda error, name=name: self._tell(inbox, name, error),  # type: ignore[misc]
            )
            listed = lambda name=name: self._listed(inbox, name)  # noqa: E731
            reflectors.append(reflector)
            threads.append(
                Thread(target=reflector.run, args=(stop, listed), name=f"watch-{name}", daemon=True)
            )
        for thread in threads:
            thread.start()
        stop.wait()
        for reflector in reflectors:
            reflector.interrupt()
        for thread in threads:
            thread.join(CONNECT_SECONDS)

    def _listed(self, inbox: Inbox, name: str) -> None:
        """Services and slices are waited for; the node until its first answer, good or bad."""
        with self._lock:
            before = bool(self._waited_for)
            self._waited_for.discard(name)
            if before and not self._waited_for:
                inbox.synced()

    def _tell(self, inbox: Inbox, name: str, error: str) -> None:
        if name == "node":
            self._listed(inbox, name)
        with self._lock:
            self._errors[name] = error
            first = next((text for text in self._errors.values() if text), "")
            report = Report("kubernetes", self._server.location, first)
            if report != self._report:
                self._report = report
                inbox.report(report)
