"""The audit log's chain: what is in it can be proved in few steps, and nothing that is not."""

from dataclasses import replace

import pytest
import sqlalchemy as sql
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Connection

from index import audit_log as audit
from index.audit_log import Event, Proof, Step


def log_of(count: int, at_once: int) -> Connection:
    """A log of so many entries, appended so many at a time."""
    connection = sql.create_engine("sqlite://").connect()
    audit.TABLES.create_all(connection)
    for first in range(0, count, at_once):
        numbers = range(first + 1, min(count, first + at_once) + 1)
        events = [Event("ingest", f"recording {n}", {"title": f"Song {n}"}) for n in numbers]
        audit.append(connection, events, "2026-11-30T12:00:00+00:00", None)
    return connection


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_an_entry_is_proved_against_every_later_hash_in_few_steps(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 300))
    log = log_of(count, data.draw(st.integers(1, 50)))
    newest = data.draw(st.integers(1, count))
    number = data.draw(st.integers(1, newest))
    proof = audit.prove(log, number, newest)
    entry = proof.entry(newest, audit.hash_of(log, newest) or "")
    assert (entry.number, entry.recording) == (number, f"recording {number}")
    assert entry in list(audit.entries(log))
    bits = newest.bit_length()
    assert len(proof.steps) <= bits * (bits + 1) // 2


def test_the_chain_does_not_depend_on_how_much_is_appended_at_once() -> None:
    assert audit.newest(log_of(100, 1)) == audit.newest(log_of(100, 37))


def forged(proof: Proof) -> dict[str, Proof]:
    first, *rest = proof.steps
    return {
        "another title": replace(proof, said=proof.said.replace("Song", "Theirs")),
        "another number": replace(proof, said=proof.said.replace("[5,", "[6,")),
        "another step": replace(proof, steps=(replace(first, said="0" * 64), *rest)),
        "a step left out": replace(proof, steps=tuple(rest)),
        "a step too many": replace(proof, steps=(*proof.steps, Step(78, "0" * 64, "0" * 64))),
        "another link": replace(proof, skipped="0" * 64),
        "a link that is none": replace(proof, steps=(replace(first, number=40), *rest)),
    }


@pytest.mark.parametrize("what", forged(Proof("", "", "", (Step(0, "", ""),))))
def test_what_is_not_in_the_log_cannot_be_proved(what: str) -> None:
    log = log_of(77, 10)
    _, hash = audit.newest(log)
    proof = audit.prove(log, 5, 77)
    assert proof.entry(77, hash).number == 5
    with pytest.raises(ValueError, match=r"audit log|of the log"):
        forged(proof)[what].entry(77, hash)


def test_an_entry_is_not_proved_against_another_logs_hash() -> None:
    log = log_of(20, 7)
    with pytest.raises(ValueError, match="not in the audit log"):
        audit.prove(log, 3, 20).entry(20, audit.hash_of(log, 19) or "")
    with pytest.raises(KeyError):
        audit.prove(log, 25, 26)
