"""The read model: what scripts and pages read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_args

import pytest
from pydantic import BaseModel

from schema import status
from schema.observed import (
    Drift,
    DriftKind,
    JobState,
    RepositoryStatistics,
    RunProgress,
    StateReport,
    Trigger,
)
from schema.status import RunStatus, Shown

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def reachable() -> list[type[BaseModel]]:
    """Every model that a model of the read model may hold, itself included."""
    waiting: list[type[BaseModel]] = []
    waiting += [one for one in vars(status).values() if isinstance(one, type) and issubclass(one, Shown)]
    found: dict[str, type[BaseModel]] = {}
    while waiting:
        model = waiting.pop()
        if model.__name__ not in found:
            found[model.__name__] = model
            waiting += [inner for one in model.model_fields.values() for inner in models_in(one.annotation)]
    return [found[name] for name in sorted(found)]


@pytest.mark.parametrize("model", reachable(), ids=lambda model: model.__name__)
def test_no_key_that_is_printed_has_an_underscore(model: type[BaseModel]):
    keys = [one.serialization_alias or name for name, one in model.model_fields.items()]

    assert [key for key in keys if "_" in key] == []


def test_the_walk_reaches_what_clients_report():
    assert {"Drift", "RunProgress", "RepositoryStatistics", "Versions", "Refusal", "Problem"} <= {
        model.__name__ for model in reachable()
    }


def test_what_a_client_reported_is_printed_in_the_words_of_the_read_model():
    run = RunStatus(
        id="a" * 32,
        client="web-1",
        backup="files",
        trigger=Trigger.SCHEDULE,
        started=NOW,
        progress=RunProgress(at=NOW, run="a" * 32, backup="files", original_size=7),
        statistics=(RepositoryStatistics(repository="nas", deduplicated_size=5),),
    )

    printed = run.model_dump(mode="json", by_alias=True)

    assert printed["progress"]["originalSize"] == 7
    assert printed["statistics"][0]["deduplicatedSize"] == 5


def test_the_wire_and_the_store_keep_the_names_of_the_fields():
    report = StateReport(
        at=NOW,
        jobs=(JobState(backup="files", next_due=NOW),),
        drift=(Drift(kind=DriftKind.CHANGED, subject="a", message="b", detected=NOW),),
    )

    sent = report.model_dump_json()

    assert '"next_due"' in sent
    assert '"dropped_events"' in sent
    assert StateReport.model_validate_json(sent) == report


def test_a_peer_that_sends_the_names_of_the_read_model_says_nothing():
    report = StateReport.model_validate({"at": NOW, "jobs": [{"backup": "files", "nextDue": NOW}]})

    assert report.jobs[0].next_due is None
