"""The catalog's entries as triggers compare them: by hashes, each computed once until the code location is loaded."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property

from llmops.config.catalog.spec import ModelSpec
from llmops.errors import BadInput
from llmops.evaluation.suites import load_suites
from llmops.releases.ledger import declaration, terms
from llmops.rollout.platform import Platform


class Declarations:
    """Entries, and the hashes of what a rollout acts on.

    Args:
        platform: The installation.
    """

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._suites: dict[str, str] = {}
        self._terms: dict[str, str] = {}
        self._entries: dict[str, str] = {}

    @cached_property
    def followed(self) -> list[ModelSpec]:
        """Entries that triggers roll out: those with `automation.follow`."""
        return [spec for spec in self._platform.catalog.values() if spec.automation.follow]

    def terms(self, spec: ModelSpec) -> str:
        """See `llmops.releases.ledger.terms`.

        Raises:
            BadInput: A suite of the model cannot be read.
        """
        if spec.name not in self._terms:
            self._terms[spec.name] = terms(spec, self._suites_of(spec))
        return self._terms[spec.name]

    def entry_hash(self, spec: ModelSpec) -> str:
        """See `llmops.releases.ledger.declaration`.

        Raises:
            BadInput: A suite of the model cannot be read.
        """
        if spec.name not in self._entries:
            self._entries[spec.name] = declaration(spec, self._suites_of(spec))
        return self._entries[spec.name]

    @cached_property
    def catalog_hash(self) -> str:
        """Hash of all followed entries and their suites; of an entry alone if its suites cannot be read."""
        entries: list[tuple[str, str]] = []
        for spec in self.followed:
            try:
                entries.append((spec.name, self.entry_hash(spec)))
            except BadInput:
                entries.append((spec.name, spec.model_dump_json()))
        return hashlib.sha256(json.dumps(entries).encode()).hexdigest()[:16]

    def _suites_of(self, spec: ModelSpec) -> dict[str, str]:
        names = spec.evaluation.suites
        for name in names:
            if name not in self._suites:
                settings = self._platform.settings
                (suite,) = load_suites(settings.evals_dir, [name], settings.catalog_allows)
                self._suites[name] = suite.sha256
        return {name: self._suites[name] for name in names}
