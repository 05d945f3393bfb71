"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler as local processes, on loopback.

A control plane keeps everything in one folder. Several run beside each other, and a killed one starts again with its
objects.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from llmops.errors import ClusterCannot
from llmops_sandbox.cluster.binaries import Binaries
from llmops_sandbox.cluster.pki import Identity, write_accounts_key, write_pki
from llmops_sandbox.processes import Daemon

FRONT_PROXY = "front-proxy-client"
IDENTITIES = (
    Identity(
        "apiserver",
        "kube-apiserver",
        hosts=("127.0.0.1", "localhost", "kubernetes", "kubernetes.default.svc"),
    ),
    Identity("kubelet", "llmops-sandbox-agent", hosts=("127.0.0.1", "localhost")),
    Identity("admin", "llmops-sandbox-admin", group="system:masters"),
    Identity("controller-manager", "system:kube-controller-manager"),
    Identity("scheduler", "system:kube-scheduler"),
    # The API server's identity towards aggregated APIs, such as that of custom metrics.
    Identity("front-proxy", FRONT_PROXY),
)
# etcd holds every Secret and asks for no more than a certificate of its authority: it has one of its own, which signs
# for nobody but itself and the API server.
ETCD_IDENTITIES = (
    Identity("server", "etcd", hosts=("127.0.0.1", "localhost")),
    Identity("client", "kube-apiserver-etcd-client"),
)
KUBECONFIGS = {
    "kubeconfig": "admin",
    "controller-manager.kubeconfig": "controller-manager",
    "scheduler.kubeconfig": "scheduler",
}
PORTS = ("apiserver", "etcd", "etcd-peer", "controller-manager", "scheduler", "hub", "registry")
# Below the kernel's range for outgoing connections, which take ports while nobody listens on them.
FIRST_PORT = 20000
PORTS_PER_SLOT = 32
# The API server takes no loopback address into an EndpointSlice; the node agent routes Services by their selectors.
CONTROLLERS = (
    "*",
    "-endpoints-controller",
    "-endpointslice-controller",
    "-endpointslice-mirroring-controller",
)
# The requests of an installed llmops, whose accounts are in its namespace: tests compare them with its rights.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts:llmops"]}, {"level": "None"}],
}


@dataclass(frozen=True)
class Network:
    """The loopback ranges of one sandbox, and its ports."""

    pods: str
    services: str
    ports: dict[str, int]


@dataclass(frozen=True)
class Setup:
    """Where a control plane serves, and whom; as it stands, the node agent on loopback.

    Args:
        identities: Who gets a certificate.
        kubeconfigs: File names of kubeconfigs, each with the identity that it is for.
        controllers: The controllers that run.
        network: Its ranges and ports; None takes free ones of loopback.
        apiserver: Flags of the API server.
    """

    identities: tuple[Identity, ...] = IDENTITIES
    kubeconfigs: Mapping[str, str] = field(default_factory=lambda: dict(KUBECONFIGS))
    controllers: tuple[str, ...] = CONTROLLERS
    network: Network | None = None
    apiserver: tuple[str, ...] = ("--bind-address=127.0.0.1", "--endpoint-reconciler-type=none")


class ControlPlane:
    """A Kubernetes control plane with its state in one folder.

    Args:
        folder: Keeps certificates, data and logs.
        binaries: The programs to run.
        setup: Where it serves, and whom.
    """

    def __init__(self, folder: Path, binaries: Binaries, setup: Setup | None = None) -> None:
        self.folder = folder.resolve()
        self.binaries = binaries
        self._setup = setup or Setup()
        run = self.folder / "run"
        self.etcd = Daemon("etcd", run)
        self.apiserver = Daemon("kube-apiserver", run)
        self.controller_manager = Daemon("kube-controller-manager", run)
        self.scheduler = Daemon("kube-scheduler", run)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder / "kubeconfig"

    @property
    def daemons(self) -> tuple[Daemon, ...]:
        """The four processes, in the order in which they start."""
        return (self.etcd, self.apiserver, self.controller_manager, self.scheduler)

    @property
    def audit_log(self) -> Path:
        """Requests of the accounts in the namespace `llmops`; one JSON object per line."""
        return self.folder / "run" / "audit.log"

    @property
    def _etcd_pki(self) -> Path:
        return self.folder / "pki" / "etcd"

    def up(self, *, timeout: float = 60) -> None:
        """Start the processes that do not run, and wait until the API answers and the controllers are ready.

        Args:
            timeout: Seconds in all.

        Raises:
            ClusterCannot: ProcessEnded or NotReady; the message has the end of the log.
        """
        deadline = time.monotonic() + timeout
        pki = self.folder / "pki"
        write_pki(pki, self._setup.identities)
        write_accounts_key(pki)
        write_pki(self._etcd_pki, ETCD_IDENTITIES)
        network = self.network()
        for name, identity in self._setup.kubeconfigs.items():
            self._write_kubeconfig(self.folder / name, identity, network)
        self._start_etcd(network)
        self.start_apiserver()
        self.wait_ready(deadline - time.monotonic())
        self._start_controllers(network)
        for daemon, port in ((self.controller_manager, "controller-manager"), (self.scheduler, "scheduler")):
            self._wait(daemon, f"https://127.0.0.1:{network.ports[port]}/healthz", deadline)
        account = f"https://127.0.0.1:{network.ports['apiserver']}/api/v1/namespaces/default/serviceaccounts/default"
        self._wait(self.controller_manager, account, deadline)

    def wait_ready(self, timeout: float) -> None:
        """Wait until the API server answers `/readyz`; raises as `up` does."""
        url = f"https://127.0.0.1:{self.network().ports['apiserver']}/readyz"
        self._wait(self.apiserver, url, time.monotonic() + timeout)

    def down(self) -> None:
        """Stop the processes; the objects stay in the folder."""
        for daemon in reversed(self.daemons):
            daemon.stop()

    def network(self) -> Network:
        """The ranges and ports; the first call chooses them."""
        if self._setup.network:
            return self._setup.network
        path = self.folder / "network.json"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with _slots() as taken:
                slot = next(number for number in range(60) if number not in taken)
                ports = dict(zip(PORTS, _free_ports(slot), strict=True))
                content = {
                    "pods": f"127.{128 + slot}.0.0/16",
                    "services": f"127.{64 + slot}.0.0/16",
                    "ports": ports,
                }
                path.write_text(json.dumps(content))
                taken[slot] = str(self.folder)
        return Network(**json.loads(path.read_text()))

    def start_apiserver(self) -> None:
        """Start the API server, unless it runs."""
        network, pki = self.network(), self.folder / "pki"
        policy = self.folder / "audit-policy.json"
        policy.write_text(json.dumps(AUDIT_POLICY))
        self.apiserver.start([
            self.binaries["kube-apiserver"],
            f"--etcd-servers=https://127.0.0.1:{network.ports['etcd']}",
            f"--etcd-cafile={self._etcd_pki / 'ca.crt'}",
            f"--etcd-certfile={self._etcd_pki / 'client.crt'}",
            f"--etcd-keyfile={self._etcd_pki / 'client.key'}",
            *self._setup.apiserver,
            f"--secure-port={network.ports['apiserver']}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--client-ca-file={pki / 'ca.crt'}",
            f"--service-cluster-ip-range={network.services}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-client-certificate={pki / 'admin.crt'}",
            f"--kubelet-client-key={pki / 'admin.key'}",
            f"--kubelet-certificate-authority={pki / 'ca.crt'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki / 'sa.pub'}",
            f"--service-account-signing-key-file={pki / 'sa.key'}",
            "--enable-aggregator-routing=false",
            f"--proxy-client-cert-file={pki / 'front-proxy.crt'}",
            f"--proxy-client-key-file={pki / 'front-proxy.key'}",
            f"--requestheader-client-ca-file={pki / 'ca.crt'}",
            # One authority signs all certificates here: only this name may pass requests on.
            f"--requestheader-allowed-names={FRONT_PROXY}",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--profiling=false",
            f"--cert-dir={self.folder / 'run'}",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self.audit_log}",
            "--audit-log-maxsize=50", "--audit-log-maxbackup=1",
        ])  # fmt: skip

    def _start_etcd(self, network: Network) -> None:
        pki = self._etcd_pki
        client, peer = (f"https://127.0.0.1:{network.ports[name]}" for name in ("etcd", "etcd-peer"))
        data = self.folder / "etcd"
        data.mkdir(mode=0o700, exist_ok=True)
        self.etcd.start([
            self.binaries["etcd"],
            f"--data-dir={data}",
            # The sandbox survives a killed process, not a crashed machine; syncing would cost seconds.
            "--unsafe-no-fsync",
            "--logger=zap", "--log-level=warn",
            f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--client-cert-auth", f"--trusted-ca-file={pki / 'ca.crt'}",
            f"--cert-file={pki / 'server.crt'}", f"--key-file={pki / 'server.key'}",
            "--peer-client-cert-auth", f"--peer-trusted-ca-file={pki / 'ca.crt'}",
            f"--peer-cert-file={pki / 'server.crt'}", f"--peer-key-file={pki / 'server.key'}",
        ])  # fmt: skip

    def _start_controllers(self, network: Network) -> None:
        pki, run = self.folder / "pki", self.folder / "run"
        common = ["--leader-elect=false", "--bind-address=127.0.0.1", "--profiling=false", "--kube-api-qps=300",
                  "--kube-api-burst=600"]  # fmt: skip
        self.controller_manager.start([
            self.binaries["kube-controller-manager"],
            *common,
            f"--kubeconfig={self.folder / 'controller-manager.kubeconfig'}",
            f"--secure-port={network.ports['controller-manager']}",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={pki / 'sa.key'}",
            f"--root-ca-file={pki / 'ca.crt'}",
            f"--controllers={','.join(self._setup.controllers)}",
            # The default is 15 s.
            "--horizontal-pod-autoscaler-sync-period=2s",
            f"--cert-dir={run / 'controller-manager'}",
        ])  # fmt: skip
        self.scheduler.start([
            self.binaries["kube-scheduler"],
            *common,
            f"--kubeconfig={self.folder / 'scheduler.kubeconfig'}",
            f"--secure-port={network.ports['scheduler']}",
            f"--cert-dir={run / 'scheduler'}",
        ])  # fmt: skip

    def _write_kubeconfig(self, path: Path, identity: str, network: Network) -> None:
        pki = self.folder / "pki"
        cluster = {
            "server": f"https://127.0.0.1:{network.ports['apiserver']}",
            "certificate-authority": str(pki / "ca.crt"),
        }
        user = {
            "client-certificate": str(pki / f"{identity}.crt"),
            "client-key": str(pki / f"{identity}.key"),
        }
        # JSON is YAML.
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "sandbox",
            "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": identity}}],
            "clusters": [{"name": "sandbox", "cluster": cluster}],
            "users": [{"name": identity, "user": user}],
        }
        path.write_text(json.dumps(content, indent=2) + "\n")

    def _wait(self, daemon: Daemon, url: str, deadline: float) -> None:
        pki = self.folder / "pki"
        # The controllers sign the certificates of their health endpoints themselves; only the API server's is verified.
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        if daemon in (self.controller_manager, self.scheduler) and "/healthz" in url:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        answer = "no answer"
        while time.monotonic() < deadline:
            daemon.check()
            try:
                with urllib.request.urlopen(url, context=context, timeout=5):  # noqa: S310 - our own https URL
                    return
            except urllib.error.HTTPError as error:
                answer = f"{error.code} {error.reason}"
            except OSError as error:
                answer = str(error)
            time.sleep(0.05)
        raise ClusterCannot(
            f"{daemon.name} was not ready in time ({url}: {answer}); {daemon.log} ends:\n{daemon.tail()}",
            code="NotReady",
            about=daemon.name,
        )


def _free_ports(slot: int) -> list[int]:
    """Free ports of a slot."""
    first = FIRST_PORT + slot * PORTS_PER_SLOT
    free = [port for port in range(first, first + PORTS_PER_SLOT) if _is_free(port)][: len(PORTS)]
    if len(free) < len(PORTS):
        raise ClusterCannot(
            f"{len(free)} of the ports {first} to {first + PORTS_PER_SLOT - 1} are free; {len(PORTS)} are needed",
            code="PortsTaken",
            about=f"ports {first} to {first + PORTS_PER_SLOT - 1}",
            remedy="Stop the programs that listen there.",
        )
    return free


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def _slots() -> Generator[dict[int, str]]:
    """Lock the table of the slots that this user's sandboxes hold; slots of removed folders are free."""
    home = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/llmops-{os.getuid()}")  # noqa: S108 - owner is checked
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if home.stat().st_uid != os.getuid():
        raise ClusterCannot(
            f"{home} belongs to another user",
            code="FolderNotOwned",
            about=str(home),
            remedy="Set XDG_RUNTIME_DIR to a folder of yours.",
        )
    with (home / "llmops-slots.json").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        held: dict[str, str] = json.loads(file.read() or "{}")
        taken = {int(slot): folder for slot, folder in held.items() if (Path(folder) / "network.json").exists()}
        yield taken
        file.seek(0)
        file.truncate()
        json.dump(taken, file)
