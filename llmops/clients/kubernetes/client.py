"""The cluster, as the rest of llmops sees it: objects are plain dicts, errors are told apart."""

from __future__ import annotations

import base64
import copy
import datetime as dt
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, cast

from llmops.clients.kubernetes.kinds import Kind, kind_of
from llmops.clients.kubernetes.logs import follow
from llmops.clients.kubernetes.problems import AlreadyExists, Call, Conflict, Expired, NotFound, TimedOut
from llmops.clients.kubernetes.transport import PATIENCE_SECONDS, Transport, in_pod
from llmops.clients.kubernetes.watch import Event, Object, Watch, uid_of
from llmops.config.names import FIELD_MANAGER, REPLICAS_MANAGER
from llmops.config.redaction import as_header
from llmops.config.settings import Settings
from llmops.errors import BadInput, ClusterCannot

PAGE = 500
LIST_SECONDS = 5.0
CONNECT_SECONDS = 25.0

Objects = list[Object]
Propagation = Literal["Background", "Foreground", "Orphan"]


class Cluster:
    """A connection to one namespace of one cluster; safe to use from several threads.

    Every call has a time limit of its own and goes on for up to a minute against an API server that is away
    for a moment. Calls raise `Unavailable` after that, and `ClusterCannot` or `BadInput`, or a subclass of
    `llmops.clients.kubernetes.problems`, for what the API server refuses.
    """

    def __init__(self, transport: Transport, namespace: str) -> None:
        self._transport = transport
        self.namespace = namespace

    @classmethod
    def connect(cls, settings: Settings, *, patience: float = PATIENCE_SECONDS) -> Cluster:
        """Find the cluster of the settings and make sure that it answers.

        Args:
            settings: Which kubeconfig, context and namespace.
            patience: Seconds that each call goes on against an API server that does not answer.

        Raises:
            BadInput: The kubeconfig or its context cannot be used.
            Unavailable: The API server does not answer.
        """
        cluster = cls(Transport(settings, patience=patience), settings.namespace)
        # A wrong address is told soon; what comes later bears with an API server that is away for longer.
        cluster.patient(min(patience, CONNECT_SECONDS)).version()
        return cluster

    @property
    def settings(self) -> Settings:
        """The settings that the cluster was found by."""
        return self._transport.settings

    @property
    def is_around(self) -> bool:
        """Whether this process runs in a pod of this very cluster, by whose account it talks to it."""
        return self.settings.kubeconfig is None and in_pod()

    def patient(self, seconds: float) -> Cluster:
        """The same connection with calls that give up after `seconds` against an API server that is away."""
        other = copy.copy(self._transport)
        other.patience = seconds
        return Cluster(other, self.namespace)

    def guarded(self, guard: Callable[[], None]) -> Cluster:
        """The same connection, which asks before each attempt at a change; what `guard` raises keeps it from it."""
        other = copy.copy(self._transport)
        other.guard = guard
        return Cluster(other, self.namespace)

    def version(self) -> str:
        """Version of the API server, such as `v1.37.2`."""
        answer = self._transport.request("GET", "/version", call=Call("ask", "the version"))
        return str(json.loads(answer)["gitVersion"])

    def resources(self, api: str) -> frozenset[str] | None:
        """Plural names of what the cluster serves of an API, such as `monitoring.coreos.com/v1`; None if not at all.

        Everybody who is known to the cluster may ask this.
        """
        try:
            answer = self._transport.request("GET", f"/apis/{api}", call=Call("ask for", f"the API {api}"))
        except NotFound:
            return None
        return frozenset(str(each["name"]) for each in json.loads(answer)["resources"])

    def get(self, kind: str, name: str, *, namespace: str | None = None) -> Object | None:
        """Read an object; None if it is not there."""
        found = kind_of(kind)
        try:
            return self._ask("GET", "get", found, name, namespace=namespace)
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
            labels: Labels they carry.
            fields: Field selectors, such as `{"involvedObject.name": "x"}`.
            namespace: None means the cluster's own, empty means all.
        """
        return self._list(kind_of(kind), _selectors(labels, fields), self._place(kind_of(kind), namespace))[0]

    def apply(self, obj: Object, *, force: bool = False, dry_run: bool = False, manager: str = FIELD_MANAGER) -> Object:
        """Make an object be as given (server-side apply), and return it as the cluster has it now.

        Args:
            obj: What is desired; fields that are left out are left alone, or removed if llmops had set them.
            force: Take over fields that somebody else owns.
            dry_run: Have everything checked and defaulted, and nothing stored.
            manager: In whose name: what it had set before and `obj` leaves out is removed.

        Raises:
            Conflict: Somebody else owns a field; says who and which.
            Forbidden: The account lacks a right (the remedy says which), or an admission rule or quota refuses.
            Invalid: The content is not accepted; the remedy names the fields.
        """
        try:
            return self._apply(obj, force=force, dry_run=dry_run, manager=manager)
        except Conflict as conflict:
            # To the API server our own `patch` (a scale, say) is another owner than our apply: no one else to ask.
            if conflict.managers and set(conflict.managers) <= {FIELD_MANAGER, REPLICAS_MANAGER}:
                return self._apply(obj, force=True, dry_run=dry_run, manager=manager)
            raise

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
            AlreadyExists: One of that name is there, perhaps from this very call when its answer got lost.
        """
        kind, _, namespace = self._address(obj)
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        return self._ask("POST", "create", kind, None, namespace=namespace, query=query, body=obj)

    def patch(self, kind: str, name: str, patch: Mapping[str, Any], *, subresource: str | None = None) -> Object:
        """Change fields of an object (JSON merge patch).

        With `metadata.resourceVersion` in the patch it is done only if the object is still at that version.

        Raises:
            Conflict: It is not.
            NotFound: There is no such object.
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
        """Delete an object, and what it owns.

        Args:
            kind: Kind of the object.
            name: Its name.
            propagation: What becomes of what it owns: see the Kubernetes API.
            wait: Seconds to wait until it is really gone; None does not wait.
            uid: Delete only this very object, not a new one of the same name.

        Returns:
            Whether it was there.

        Raises:
            TimedOut: It was still there after `wait` seconds.
        """
        found = kind_of(kind)
        options: Object = {"propagationPolicy": propagation}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        before = self.get(kind, name) if wait is not None else None
        try:
            self._ask("DELETE", "delete", found, name, body=options)
        except NotFound as error:
            if error.object_absent:
                return False
            raise
        except Conflict:
            # A successor of the same name has another uid.
            if uid is not None:
                return False
            raise
        if wait is not None and before is not None:
            self._await_absence(kind, name, uid_of(before), wait)
        return True

    def watch(
        self,
        kind: str,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: float,
    ) -> Iterator[Event]:
        """Yield what is there as ADDED, then each change as it happens, for `timeout` seconds.

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
        """Like `watch`, for waiting: can be closed from another thread, and tells when it is SYNCED."""
        found = kind_of(kind)
        place = self._place(found, None)
        query = _selectors(labels, {**(fields or {}), **({"metadata.name": name} if name else {})})
        # The watch itself bears with an API server that is away; its calls are short, so that it can be closed.
        brief = self.patient(min(LIST_SECONDS, self._transport.patience))
        return Watch(self._transport, found, place, query, lambda: brief._list(found, query, place), timeout)

    def logs(
        self,
        pod: str,
        *,
        container: str | None = None,
        tail: int | None = None,
        previous: bool = False,
        limit: int | None = None,
    ) -> str:
        """Read what a container wrote.

        Args:
            pod: Name of the pod.
            container: None means the pod's only one.
            tail: Only so many last lines.
            previous: Of the container's instance before this one.
            limit: Only so many bytes.
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
        """Yield the lines of a container as it writes them, until its pod has ended or `stop()`.

        Reconnects after a lost connection and goes on after the last line told, by the lines' timestamps.
        """
        call = Call("follow logs of", "Pod", self.namespace, pod)
        path = kind_of("Pod").path(self.namespace, pod, "log")
        return follow(self._transport, path, call, container, lambda: self.get("Pod", pod), stop)

    def secret_text(self, name: str, key: str) -> str | None:
        """One value of a Secret without white space around it; None if the Secret or the key is not there.

        Raises:
            BadInput: It is no text. The message does not show it.
        """
        secret = self.get("Secret", name)
        value = ((secret or {}).get("data") or {}).get(key)
        try:
            return None if value is None else base64.b64decode(value).decode("utf-8").strip()
        except UnicodeDecodeError:
            raise BadInput(
                f"{self._secret(name, key)} is no text in UTF-8", remedy="Put the secret alone there."
            ) from None

    def secret_value(self, name: str, key: str) -> str | None:
        """A token or key out of a Secret, as a header takes it; None if the Secret or the key is not there.

        Raises:
            BadInput: It is empty, or no header takes it. The message does not show it.
        """
        text = self.secret_text(name, key)
        return None if text is None else as_header(text, self._secret(name, key))

    def _secret(self, name: str, key: str) -> str:
        return f"key {key} of Secret {name} in namespace {self.namespace}"

    def event(
        self,
        regarding: Object,
        reason: str,
        message: str,
        type: Literal["Normal", "Warning"] = "Normal",  # noqa: A002
    ) -> None:
        """Leave an Event on an object, where `kubectl describe` shows it.

        Args:
            regarding: The object, as the cluster gave it.
            reason: One word in CamelCase.
            message: A sentence; cut at 1 kB.
            type: Normal or Warning.
        """
        meta: Mapping[str, Any] = regarding["metadata"]
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        about = {
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
            # A name of its own, so that a repeated request does not make a second event.
            "metadata": {"name": f"{meta['name'][:200]}.{secrets.token_hex(8)}", "namespace": self.namespace},
            "involvedObject": {key: value for key, value in about.items() if value},
            "reason": reason,
            "message": message[:1024],
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
        """Base URL of a Service by its cluster address, which needs no DNS.

        Raises:
            ClusterCannot: There is no such Service, or it has no address.
        """
        service = self.get("Service", service_name)
        address = ((service or {}).get("spec") or {}).get("clusterIP")
        if address in (None, "", "None"):
            why = "is not there" if service is None else "has no cluster address"
            raise ClusterCannot(f"Service {service_name} in namespace {self.namespace} {why}")
        return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"

    def _place(self, kind: Kind, namespace: str | None) -> str | None:
        """The namespace a call goes to; None for kinds that have none."""
        if not kind.namespaced:
            return None
        return self.namespace if namespace is None else namespace

    def _address(self, obj: Object) -> tuple[Kind, str, str | None]:
        kind = kind_of(str(obj.get("kind")))
        meta: Mapping[str, Any] = obj.get("metadata") or {}
        name = str(meta.get("name") or meta.get("generateName") or "")
        if obj.get("apiVersion") != kind.api:
            raise BadInput(f"{kind.name} {name}: apiVersion is {obj.get('apiVersion')!r}; expected {kind.api}")
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
        """All pages of a list, and its version; begins anew if the list changes so long that its pages expire."""
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
            # Items of a list come without their kind; whoever gets one should not have to know where from.
            items += [{"apiVersion": kind.api, "kind": kind.name, **item} for item in page.get("items") or ()]
            more = page["metadata"].get("continue") or ""
            if not more:
                return items, str(page["metadata"]["resourceVersion"])

    def _await_absence(self, kind: str, name: str, uid: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        watch = self.open_watch(kind, name=name, timeout=seconds)
        there: set[str] = set()
        for event in watch:
            if event.type in ("ADDED", "MODIFIED"):
                there.add(uid_of(event.object))
            elif event.type == "DELETED":
                there.discard(uid_of(event.object))
            if event.type != "ADDED" and uid not in there:
                return
        current = self.get(kind, name)
        if current is None or uid_of(current) != uid:
            return
        held = ", ".join(current["metadata"].get("finalizers") or ()) or "none"
        raise TimedOut(
            f"delete {kind} {name} in namespace {self.namespace}: still there after"
            f" {seconds + time.monotonic() - deadline:.0f} s (finalizers: {held})"
        )


def _selectors(labels: Mapping[str, str] | None, fields: Mapping[str, str] | None) -> dict[str, str]:
    given = {"labelSelector": labels, "fieldSelector": fields}
    return {
        key: ",".join(f"{name}={value}" for name, value in selected.items())
        for key, selected in given.items()
        if selected
    }
