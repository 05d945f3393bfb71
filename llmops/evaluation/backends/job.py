"""Measures by a Job in the cluster: creates or adopts it, follows it, and reads the answer from its log."""

from __future__ import annotations

import datetime
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from llmops.clients.kubernetes.problems import AlreadyExists
from llmops.clients.kubernetes.progress import JOB_NAME, has_condition, owned_by
from llmops.clients.kubernetes.wait import JobOutcome, wait_for_job
from llmops.clients.kubernetes.watch import uid_of
from llmops.config import names
from llmops.config.catalog.spec import Evaluation, SecretKey
from llmops.errors import BadRelease, ClusterCannot, LlmopsError, MeasurementFailed
from llmops.evaluation.backends.base import Replica, Session, Suites, Target
from llmops.evaluation.fidelity.distances import Distances
from llmops.evaluation.fidelity.reference import Reference
from llmops.evaluation.measurements import Measurements
from llmops.evaluation.remote.answer import LONGEST_LOG, Answer, Seal, read_answer
from llmops.evaluation.remote.ending import Ending
from llmops.evaluation.remote.order import KEY_VARIABLES, Engine, Order, pack
from llmops.manifests.evaluation import COMPONENT, LIFETIME, evaluation_job, order_config_maps, ownership
from llmops.releases.release import Release
from llmops.worker.foreign import parse_json

GONE_SECONDS = 60.0
SLACK_SECONDS = 60.0
READS = 5
READ_AGAIN_SECONDS = 1.0
# A run measures an order once. A proof is about the engine now, so it is never reused.
REUSED = ("measure", "compare")


class JobBackend:
    """Asks engines from a pod in their cluster.

    A Job's name is a hash of its run and its order: a run that continues after its process was killed adopts the Job.
    Jobs of other runs would load the engines during the measurement, so the backend deletes them first.
    """

    def __init__(self, session: Session, image: str) -> None:
        self._session = session
        self._image = image
        self._cluster = session.cluster
        self._times_ordered = Counter[str]()

    def prove(self, target: Target, *, timeout: float) -> str:
        """See `Backend`."""
        order = Order(task="prove", engine=self._engine(target, 0), seconds=timeout)
        return self._run(order, target).text

    def watch(self, target: Target, *, seconds: float, check: Callable[[], None]) -> None:
        """See `Backend`. Each completion that the Job asks for calls `check`."""
        order = Order(task="watch", engine=self._engine(target, 0), seconds=seconds)
        try:
            self._run(order, target, check=check)
        except (BadRelease, MeasurementFailed):
            # A dead pod explains more than the connections that it cut or refused.
            check()
            raise
        check()

    def measure(self, target: Target, suites: Suites, spec: Evaluation) -> Measurements:
        """See `Backend`."""
        order = Order(task="measure", engine=self._engine(target, 0), suites=tuple(suites), evaluation=spec)
        (measured,) = self._run(order, target).measurements
        return measured

    def compare(
        self, canary: Target, stable: Target, suites: Suites, spec: Evaluation
    ) -> tuple[Measurements, Measurements]:
        """See `Backend`."""
        order = Order(
            task="compare",
            engine=self._engine(canary, 0),
            other=self._engine(stable, 1),
            suites=tuple(suites),
            evaluation=spec,
        )
        one, other = self._run(order, canary, stable).measurements
        return one, other

    def recognize(
        self, release: Release, replicas: Sequence[Replica], kept: Reference, concurrency: int
    ) -> list[Distances]:
        """See `Backend`."""
        target = Target(release, "stable")
        order = Order(
            task="recognize",
            engine=self._engine(target, 0),
            replicas=tuple(replica.url for replica in replicas),
            reference=kept,
            evaluation=Evaluation(concurrency=concurrency),
        )
        return list(self._run(order, target).distances)

    def _engine(self, target: Target, place: int) -> Engine:
        return Engine(
            base_url=self._cluster.endpoint(target.service, names.ENGINE_PORT),
            model=target.release.model,
            key_variable=KEY_VARIABLES[place] if target.release.access.api_key else None,
        )

    def _run(self, order: Order, *targets: Target, check: Callable[[], None] = lambda: None) -> Answer:
        started = time.monotonic()
        parts = pack(order)
        job = self._manifest(order, parts, targets)
        name: str = job["metadata"]["name"]
        self._remove_others(job)
        self._ensure(job, parts, reuse=order.task in REUSED)
        with self._deleted_on_error(name):
            lines = _Lines(self._session.log, check)
            outcome = wait_for_job(
                self._cluster, name, timeout=LIFETIME.total_seconds() + SLACK_SECONDS, on_line=lines.see
            )
            answer = self._answer(name, outcome)
        seconds = time.monotonic() - started
        beside = seconds - answer.seconds
        self._session.log(f"Job {name} took {seconds:.1f} s, {beside:.1f} s of it to start and to read the answer")
        return answer

    def _manifest(self, order: Order, parts: list[tuple[str, bytes]], targets: tuple[Target, ...]) -> dict[str, Any]:
        release = targets[0].release
        run = self._session.run
        content = order.model_dump_json()
        # A stage that repeats an order wants it measured again.
        self._times_ordered[content] += 1
        digest = hashlib.sha256(f"{run} {self._image} {self._times_ordered[content]} {content}".encode()).hexdigest()[
            :10
        ]
        keys: dict[str, SecretKey] = {
            variable: target.release.access.api_key
            for variable, target in zip(KEY_VARIABLES, targets, strict=False)
            if target.release.access.api_key
        }
        return evaluation_job(
            names.job_name(release.model, "evaluation", f"{order.task}-{digest}"),
            names.labels(release.model, release.id, COMPONENT, run=run),
            len(parts),
            keys,
            self._image,
            self._session.settings,
            datetime.datetime.now(datetime.UTC) + LIFETIME,
        )

    def _remove_others(self, job: dict[str, Any]) -> None:
        wanted: dict[str, str] = job["metadata"]["labels"]
        labels = {key: wanted[key] for key in (names.MODEL_LABEL, names.COMPONENT_LABEL)}
        for kind in ("Job", "ConfigMap"):
            for existing in self._cluster.list(kind, labels=labels):
                name, run = existing["metadata"]["name"], existing["metadata"]["labels"].get(names.RUN_LABEL)
                if run != wanted[names.RUN_LABEL]:
                    self._session.log(f"{kind} {name} is left over from run {run}: deleting it")
                    self._cluster.delete(kind, name, propagation="Foreground", wait=GONE_SECONDS)

    def _ensure(self, job: dict[str, Any], parts: list[tuple[str, bytes]], *, reuse: bool) -> None:
        """Create the Job with its order, or adopt one that runs or has run."""
        name: str = job["metadata"]["name"]
        orders = order_config_maps(job, parts)
        existing = self._cluster.get("Job", name)
        if existing is not None and not self._is_usable(existing, reuse=reuse):
            self._cluster.delete("Job", name, propagation="Foreground", wait=GONE_SECONDS)
            existing = None
        if existing is None:
            for order in orders:
                # An existing ConfigMap belongs to a Job that is gone; the garbage collector is about to delete it.
                self._cluster.delete("ConfigMap", order["metadata"]["name"], wait=GONE_SECONDS)
                self._create(order)
            existing = self._create(job)
            self._session.log(f"Job {name} created")
        else:
            self._session.log(f"Job {name} exists from before this run was interrupted: adopting it")
        for order in orders:
            self._cluster.patch("ConfigMap", order["metadata"]["name"], ownership(existing))

    def _create(self, wanted: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._cluster.create(wanted)
        except AlreadyExists:
            # This very call created it, and the API server's first answer got lost.
            kind, name = wanted["kind"], wanted["metadata"]["name"]
            if (existing := self._cluster.get(kind, name)) is None:
                raise ClusterCannot(
                    f"{kind} {name} was deleted as soon as it was created",
                    code="DeletedWhileCreating",
                    about=f"{kind} {name}",
                ) from None
            return existing

    def _is_usable(self, job: dict[str, Any], *, reuse: bool) -> bool:
        if "deletionTimestamp" in job["metadata"] or has_condition(job, "Failed"):
            return False
        if not has_condition(job, "Complete"):
            return True
        # The answer is in the pod's log, and gone with the pod.
        return reuse and any(_seal(pod) for pod in self._pods(job))

    @contextmanager
    def _deleted_on_error(self, name: str) -> Generator[None]:
        """Delete the Job if anything but its own end ends the wait, so that it stops loading the engines."""
        try:
            yield
        except BaseException:
            try:
                self._cluster.delete("Job", name)
            except LlmopsError as error:
                self._session.log(f"Job {name} cannot be deleted, and goes on until its own end: {error}")
            raise

    def _answer(self, name: str, outcome: JobOutcome) -> Answer:
        for message in outcome.failures.values():
            ending = _parse_ending(message)
            if ending is not None and (error := ending.error()) is not None:
                raise error
        outcome.raise_for_failure()
        job = self._cluster.get("Job", name)
        pods = [] if job is None else self._pods(job)
        sealed = next(((pod["metadata"]["name"], seal) for pod in pods if (seal := _seal(pod)) is not None), None)
        if sealed is None:
            raise MeasurementFailed(
                f"Job {name} is complete, but the pod with its answer is gone", code="AnswerGone", about=f"Job {name}"
            )
        pod, seal = sealed
        for attempt in range(READS):
            log = self._cluster.logs(pod, container=names.EVALUATION_CONTAINER, limit=2 * LONGEST_LOG)
            try:
                return read_answer(log, seal)
            except MeasurementFailed as error:
                if attempt == READS - 1:
                    raise MeasurementFailed(
                        f"Job {name}: {error.message}", code=error.code, about=f"Job {name}", remedy=error.remedy
                    ) from error
                time.sleep(READ_AGAIN_SECONDS)
        raise AssertionError("the last read returns or raises")

    def _pods(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        pods = self._cluster.list("Pod", labels={JOB_NAME: job["metadata"]["name"]})
        return [pod for pod in pods if owned_by(pod, uid_of(job))]


class _Lines:
    """Passes a Job's log on, and calls `check` for each completion that the Job asks for."""

    def __init__(self, log: Callable[[str], None], check: Callable[[], None]) -> None:
        self._log = log
        self._check = check

    def see(self, line: str) -> None:
        """Take one line of the log."""
        try:
            event: Any = parse_json(line.encode())
            kind = event.get("event")
        except (ValueError, AttributeError):
            self._log(line)
            return
        if kind == "log":
            self._log(str(event.get("message")))
        elif kind == "asking":
            self._check()


def _seal(pod: dict[str, Any]) -> Seal | None:
    """The seal of a pod's answer; None if the pod gave no answer."""
    if (pod.get("status") or {}).get("phase") != "Succeeded":
        return None
    for container in pod["status"].get("containerStatuses") or ():
        if container.get("name") != names.EVALUATION_CONTAINER:
            continue
        terminated: dict[str, Any] = (container.get("state") or {}).get("terminated") or {}
        ending = _parse_ending(str(terminated.get("message")))
        if ending is not None and ending.seal is not None:
            return ending.seal
    return None


def _parse_ending(message: str) -> Ending | None:
    try:
        return Ending.model_validate_json(message)
    except ValidationError:
        return None
