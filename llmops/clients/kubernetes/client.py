"""The client of the Kubernetes API: objects are plain dicts, refusals are errors with codes."""

from __future__ import annotations

import base64
import copy
import datetime as dt
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, cast

from llmops.clients.kubernetes.absence import await_absence
from llmops.clients.kubernetes.kinds import Kind, kind_of
from llmops.clients.kubernetes.logs import follow
from llmops.clients.kubernetes.ownership import without_rivals
from llmops.clients.kubernetes.problems import AlreadyExists, Call, Conflict, Expired, NotFound
from llmops.clients.kubernetes.transport import PATIENCE_SECONDS, Transport, in_pod
from llmops.clients.kubernetes.watch import Event, Object, Watch, uid_of
from llmops.config.names import FIELD_MANAGER, REPLICAS_MANAGER
from llmops.config.redaction import as_header, withheld
from llmops.config.settings import Settings
from llmops.errors import BadInput, ClusterCannot

PAGE = 500
LIST_SECONDS = 5.0
CONNECT_SECONDS = 25.0
TAKE_OVER_ATTEMPTS = 10

Objects = list[Object]
Propagation = Literal["Background", "Foreground", "Orphan"]


class Cluster:
    """A connection to one namespace of one cluster; safe to use from several threads.

    Each call has its own time limit, and retries for up to a minute while the API server does not answer. It then
    raises `Unavailable`. A refusal is `ClusterCannot` or `BadInput`, mostly a subclass of
    `llmops.clients.kubernetes.problems`.
    """

    def __init__(self, transport: Transport, namespace: str) -> None:
        self._transport = transport
        self.namespace = namespace

    @classmethod
    def connect(cls, settings: Settings, *, patience: float = PATIENCE_SECONDS) -> Cluster:
        """Connect to the cluster of the settings, and check that it answers.

        Args:
            settings: Kubeconfig, context and namespace.
            patience: Seconds for which each call retries while the API server does not answer.

        Raises:
            BadInput: The kubeconfig or its context is not usable.
            Unavailable: The API server does not answer.
        """
        cluster = cls(Transport(settings, patience=patience), settings.namespace)
        # Shorter than the patience of later calls: a wrong address fails soon.
        cluster.patient(min(patience, CONNECT_SECONDS)).version()
        return cluster

    @property
    def settings(self) -> Settings:
        """Settings of the connection."""
        return self._transport.settings

    @property
    def is_around(self) -> bool:
        """Whether this process runs in a pod of the cluster, with the pod's service account."""
        return self.settings.kubeconfig is None and in_pod()

    def patient(self, seconds: float) -> Cluster:
        """The same connection with calls that retry for `seconds` only."""
        other = copy.copy(self._transport)
        other.patience = seconds
        return Cluster(other, self.namespace)

    def guarded(self, guard: Callable[[], None]) -> Cluster:
        """The same connection, which calls `guard` before every write; if it raises, the write is not sent."""
        other = copy.copy(self._transport)
        other.guard = guard
        return Cluster(other, self.namespace)

    def version(self) -> str:
        """Version of the API server, such as `v1.37.2`."""
        answer = self._transport.request("GET", "/version", call=Call("ask", "the version"))
        return str(json.loads(answer)["gitVersion"])

    def resources(self, api: str) -> frozenset[str] | None:
        """Plural names of the resources of an API, such as `monitoring.coreos.com/v1`; None if it is not served.

        Every account of the cluster may ask this.
        """
        try:
            answer = self._transport.request("GET", f"/apis/{api}", call=Call("ask for", f"the API {api}"))
        except NotFound:
            return None
        return frozenset(str(resource["name"]) for resource in json.loads(answer)["resources"])

    def get(self, kind: str, name: str, *, namespace: str | None = None) -> Object | None:
        """Read an object; None if it does not exist."""
        try:
            return self._ask("GET", "get", kind_of(kind), name, namespace=namespace)
        except NotFound as error:
            if error.object_absent:
                return None
            raise

    def list(
        self,
        kind: str,
        *,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        namespace: str | None = None,
    ) -> Objects:
        """List objects.

        Args:
            kind: Kind of the objects.
            labels: Labels of the objects.
            fields: Field selectors, such as `{"involvedObject.name": "x"}`.
            namespace: None means the namespace of the connection, empty means all.
        """
        return self._list(kind_of(kind), _selectors(labels, fields), self._place(kind_of(kind), namespace))[0]

    def apply(self, obj: Object, *, force: bool = False, dry_run: bool = False, manager: str = FIELD_MANAGER) -> Object:
        """Apply an object (server-side apply), and return the object that the cluster stores.

        Args:
            obj: Desired state. The API server removes fields that `manager` set before and `obj` leaves out.
            force: Take over fields that another manager owns, also where it agrees on the value.
            dry_run: Check and default the object, and store nothing.
            manager: Field manager.

        Raises:
            Conflict: Another manager owns a field; the error names both.
            Forbidden: The account lacks a right (the remedy names it), or an admission rule or quota refuses.
            Invalid: The API server rejects the content; the remedy names the fields.
        """
        try:
            applied = self._apply(obj, force=force, dry_run=dry_run, manager=manager)
            return self._take_over(applied, manager) if force and not dry_run else applied
        except Conflict as conflict:
            # The API server takes our own `patch` (such as a scale) for another owner than our apply.
            if conflict.managers and set(conflict.managers) <= {FIELD_MANAGER, REPLICAS_MANAGER}:
                return self._apply(obj, force=True, dry_run=dry_run, manager=manager)
            raise

    def _take_over(self, applied: Object, manager: str) -> Object:
        """Take from others their share in the fields that the manager applies; see `without_rivals`."""
        kind, name, namespace = self._address(applied)
        for _ in range(TAKE_OVER_ATTEMPTS):
            fields = without_rivals(applied, manager, (FIELD_MANAGER, REPLICAS_MANAGER))
            if fields is None:
                break
            metadata = {"resourceVersion": applied["metadata"]["resourceVersion"], "managedFields": fields}
            try:
                return self._ask(
                    "PATCH",
                    "patch",
                    kind,
                    name,
                    namespace=namespace,
                    query={"fieldManager": manager},
                    body={"metadata": metadata},
                    content_type="application/merge-patch+json",
                )
            except Conflict:
                # Controllers write the status meanwhile.
                now = self.get(kind.name, name, namespace=namespace)
                if now is None:
                    break
                applied = now
        return applied

    def _apply(self, obj: Object, *, force: bool, dry_run: bool, manager: str) -> Object:
        kind, name, namespace = self._address(obj)
        query = {"fieldManager": manager, "force": str(force).lower(), "fieldValidation": "Strict"}
        return self._ask(
            "PATCH",
            "apply",
            kind,
            name,
            namespace=namespace,
            query=query | ({"dryRun": "All"} if dry_run else {}),
            body=obj,
            content_type="application/apply-patch+yaml",
        )

    def create(self, obj: Object) -> Object:
        """Create an object.

        Raises:
            AlreadyExists: An object of that name exists, perhaps from this call if its first answer got lost.
        """
        kind, _, namespace = self._address(obj)
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        return self._ask("POST", "create", kind, None, namespace=namespace, query=query, body=obj)

    def patch(self, kind: str, name: str, patch: Mapping[str, Any], *, subresource: str | None = None) -> Object:
        """Change fields of an object (JSON merge patch).

        With `metadata.resourceVersion` in the patch, the object changes only if it is still at that version.

        Raises:
            Conflict: It is at another version.
            NotFound: The object does not exist.
        """
        return self._ask(
            "PATCH",
            "patch",
            kind_of(kind),
            name,
            subresource=subresource,
            query={"fieldManager": FIELD_MANAGER},
            body=patch,
            content_type="application/merge-patch+json",
        )

    def delete(
        self,
        kind: str,
        name: str,
        *,
        propagation: Propagation = "Background",
        wait: float | None = None,
        uid: str | None = None,
    ) -> bool:
        """Delete an object and its dependents.

        Args:
            kind: Kind of the object.
            name: Name of the object.
            propagation: How Kubernetes deletes the dependents.
            wait: Seconds to wait until the object is gone; None does not wait.
            uid: Delete only the object of this uid, not a successor of the same name.

        Returns:
            Whether the object existed.

        Raises:
            TimedOut: The object still exists after `wait` seconds.
        """
        options: Object = {"propagationPolicy": propagation}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        before = self.get(kind, name) if wait is not None else None
        try:
            self._ask("DELETE", "delete", kind_of(kind), name, body=options)
        except NotFound as error:
            if error.object_absent:
                return False
            raise
        except Conflict:
            # The uid does not match: a successor of the same name exists.
            if uid is not None:
                return False
            raise
        if wait is not None and before is not None:
            await_absence(self, kind, name, uid_of(before), wait)
        return True

    def watch(
        self,
        kind: str,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: float,
    ) -> Iterator[Event]:
        """Yield each existing object as ADDED, then each change as it happens, for `timeout` seconds.

        Survives expired versions, dropped connections and restarts of the API server.
        """
        return (event for event in self.open_watch(kind, name=name, labels=labels, timeout=timeout) if event.object)

    def open_watch(
        self,
        kind: str,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        timeout: float,
    ) -> Watch:
        """Like `watch`, but another thread can close it, and it yields SYNCED after the existing objects."""
        watched = kind_of(kind)
        place = self._place(watched, None)
        query = _selectors(labels, {**(fields or {}), **({"metadata.name": name} if name else {})})
        # The watch itself retries while the API server is away. Short calls let another thread close it soon.
        brief = self.patient(min(LIST_SECONDS, self._transport.patience))
        return Watch(self._transport, watched, place, query, lambda: brief._list(watched, query, place), timeout)

    def logs(
        self,
        pod: str,
        *,
        container: str | None = None,
        tail: int | None = None,
        previous: bool = False,
        limit: int | None = None,
    ) -> str:
        """Read the log of a container.

        Args:
            pod: Name of the pod.
            container: Name of the container; None means the pod's only one.
            tail: Number of last lines to read.
            previous: Read the log of the container's previous instance.
            limit: Number of bytes to read at most.
        """
        query = {
            "container": container,
            "tailLines": tail,
            "previous": str(previous).lower(),
            "limitBytes": limit,
        }
        answer = self._transport.request(
            "GET",
            kind_of("Pod").path(self.namespace, pod, "log"),
            call=Call("read logs of", "Pod", self.namespace, pod),
            query={key: str(value) for key, value in query.items() if value is not None},
        )
        return answer.decode("utf-8", "replace")

    def follow_logs(self, pod: str, *, container: str, stop: Callable[[], bool]) -> Iterator[str]:
        """Yield the lines of a container as it writes them, until its pod has ended or `stop()` is true.

        Reconnects after a lost connection, and resumes after the last line by its timestamp.
        """
        call = Call("follow logs of", "Pod", self.namespace, pod)
        path = kind_of("Pod").path(self.namespace, pod, "log")
        return follow(self._transport, path, call, container, lambda: self.get("Pod", pod), stop)

    def secret_text(self, name: str, key: str) -> str | None:
        """One value of a Secret without white space around it; None if the Secret or the key is missing.

        Raises:
            BadInput: The value is not text. The message does not show the value.
        """
        secret = self.get("Secret", name)
        value = ((secret or {}).get("data") or {}).get(key)
        try:
            return None if value is None else base64.b64decode(value).decode("utf-8").strip()
        except UnicodeDecodeError:
            raise BadInput(
                f"{self._secret(name, key)} is not text in UTF-8",
                code="SecretNotText",
                about=f"Secret {name}",
                remedy="Store the secret alone under this key.",
            ) from None

    def secret_value(self, name: str, key: str) -> str | None:
        """A token or key from a Secret, fit for a header; None if the Secret or the key is missing.

        Raises:
            BadInput: The value is empty, or not fit for a header. The message does not show the value.
        """
        text = self.secret_text(name, key)
        return None if text is None else as_header(text, self._secret(name, key))

    def missing_secret(self, name: str, key: str, named_by: str, create: str) -> BadInput:
        """The error for a value that is not there: it tells a Secret without the key from no Secret.

        Args:
            name: The Secret.
            key: The key.
            named_by: What names them, for people.
            create: What creates the Secret: kubectl's arguments after the namespace.
        """
        if self.get("Secret", name) is None:
            return BadInput(
                f"there is no Secret {name} in namespace {self.namespace}; {named_by} names it",
                code="SecretMissing",
                about=f"Secret {name}",
                remedy=f"Create it: kubectl -n {self.namespace} {create}",
            )
        return BadInput(
            f"Secret {name} in namespace {self.namespace} has no key {key}; {named_by} names it",
            code="SecretKeyMissing",
            about=f"Secret {name}",
            remedy=f"Add {key} under stringData: kubectl -n {self.namespace} edit secret {name}",
        )

    def _secret(self, name: str, key: str) -> str:
        return f"key {key} of Secret {name} in namespace {self.namespace}"

    def event(
        self,
        regarding: Object,
        reason: str,
        message: str,
        type: Literal["Normal", "Warning"] = "Normal",  # noqa: A002
    ) -> None:
        """Create an Event on an object; `kubectl describe` shows it.

        Args:
            regarding: The object, as the API server returned it.
            reason: One word in CamelCase.
            message: A sentence; cut at 1 kB.
            type: Normal or Warning.
        """
        meta: Mapping[str, Any] = regarding["metadata"]
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        reference = {
            "apiVersion": regarding["apiVersion"],
            "kind": regarding["kind"],
            "name": meta["name"],
            "namespace": meta.get("namespace"),
            "uid": meta.get("uid"),
            "resourceVersion": meta.get("resourceVersion"),
        }
        event: Object = {
            "apiVersion": "v1",
            "kind": "Event",
            # The name is made here, and not by the API server, so that a repeated request creates one Event.
            "metadata": {"name": f"{meta['name'][:200]}.{secrets.token_hex(8)}", "namespace": self.namespace},
            "involvedObject": {key: value for key, value in reference.items() if value},
            "reason": reason,
            "message": withheld(message)[:1024],
            "type": type,
            "source": {"component": FIELD_MANAGER},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            self.create(event)
        except AlreadyExists:
            return

    def endpoint(self, service_name: str, port: int) -> str:
        """Base URL of a Service by its cluster IP, which needs no DNS.

        Raises:
            ClusterCannot: The Service does not exist, or has no cluster IP.
        """
        service = self.get("Service", service_name)
        address = ((service or {}).get("spec") or {}).get("clusterIP")
        if address in (None, "", "None"):
            where = f"Service {service_name} in namespace {self.namespace}"
            if service is None:
                raise NotFound(f"{where} does not exist", about=f"Service {service_name}", object_absent=True)
            raise ClusterCannot(f"{where} has no cluster IP", code="NoClusterIP", about=f"Service {service_name}")
        return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"

    def _place(self, kind: Kind, namespace: str | None) -> str | None:
        """Namespace of a call; None for kinds without namespaces."""
        if not kind.namespaced:
            return None
        return self.namespace if namespace is None else namespace

    def _address(self, obj: Object) -> tuple[Kind, str, str | None]:
        kind = kind_of(str(obj.get("kind")))
        meta: Mapping[str, Any] = obj.get("metadata") or {}
        name = str(meta.get("name") or meta.get("generateName") or "")
        if obj.get("apiVersion") != kind.api:
            raise BadInput(
                f"{kind.name} {name}: apiVersion is {obj.get('apiVersion')!r}; expected {kind.api}",
                code="WrongApiVersion",
                about=f"{kind.name} {name}",
            )
        return kind, name, meta.get("namespace")

    def _ask(
        self,
        method: str,
        verb: str,
        kind: Kind,
        name: str | None,
        *,
        namespace: str | None = None,
        subresource: str | None = None,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
    ) -> Object:
        place = self._place(kind, namespace)
        shown = name
        if shown is None and isinstance(body, dict):
            shown = cast("Object", body)["metadata"].get("name")
        answer = self._transport.request(
            method,
            kind.path(place, name, subresource),
            call=Call(verb, kind.name, place, shown),
            query=query,
            body=body,
            content_type=content_type,
        )
        return cast("Object", json.loads(answer))

    def _list(self, kind: Kind, query: Mapping[str, str], place: str | None) -> tuple[Objects, str]:
        """All pages of a list, and its version; starts again if a page expires meanwhile."""
        while True:
            try:
                return self._pages(kind, query, place)
            except Expired:
                continue

    def _pages(self, kind: Kind, query: Mapping[str, str], place: str | None) -> tuple[Objects, str]:
        items: Objects = []
        more = ""
        while True:
            answer = self._transport.request(
                "GET",
                kind.path(place),
                call=Call("list", kind.name, place or None),
                query={**query, "limit": str(PAGE), **({"continue": more} if more else {})},
            )
            page: Object = json.loads(answer)
            # The API server leaves out kind and apiVersion of the items of a list.
            items += [{"apiVersion": kind.api, "kind": kind.name, **item} for item in page.get("items") or ()]
            more = page["metadata"].get("continue") or ""
            if not more:
                return items, str(page["metadata"]["resourceVersion"])


def _selectors(labels: Mapping[str, str] | None, fields: Mapping[str, str] | None) -> dict[str, str]:
    selectors = {"labelSelector": labels, "fieldSelector": fields}
    return {
        key: ",".join(f"{name}={value}" for name, value in selected.items())
        for key, selected in selectors.items()
        if selected
    }
