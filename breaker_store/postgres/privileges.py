"""Who may do what in the database: three roles (DESIGN rule 9), of which this list is all that they may.

- The *owner* owns the tables and functions: it migrates, and can do everything but change the log (the triggers).
- The *application* is what bots, API and commands connect as: it appends to the log and reads it.
- *Maintenance* reads, says for how long things are kept, and calls the functions that act in the owner's place on what the
  application may not touch.

A new table or function belongs here, else nobody but the owner gets at it. A partition of one day is read and written
through its parent alone, whose rights then hold; so it has none of its own, and one that is made later needs none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from breaker_store.errors import ConfigurationError

DEFAULT_APPLICATION: Final = "breaker_store_application"
DEFAULT_MAINTENANCE: Final = "breaker_store_maintenance"

_NAME: Final = re.compile(r"[A-Za-z0-9_.@-]{1,63}")


@dataclass(frozen=True, slots=True)
class Grants:
    """What two of the roles may do with a table or a function; the third owns it.

    Each is a privilege as GRANT takes it, such as `SELECT`, or `UPDATE (last_used_at)` for some columns alone.
    """

    application: tuple[str, ...] = ()
    maintenance: tuple[str, ...] = ()


_READ: Final = ("SELECT",)
_APPENDED: Final = Grants(("SELECT", "INSERT"), _READ)
_KEPT: Final = Grants(("SELECT", "INSERT", "UPDATE"), _READ)
_OPERATIONAL: Final = Grants(("SELECT", "INSERT", "UPDATE", "DELETE"), _READ)
_CALLED: Final = Grants(("EXECUTE",))
_CALLED_BY_BOTH: Final = Grants(("EXECUTE",), ("EXECUTE",))

TABLES: Final[dict[str, Grants]] = {
    "access_tokens": Grants(("SELECT", "UPDATE (last_used_at)"), ("SELECT", "INSERT", "UPDATE")),
    "breaker_events": _APPENDED,
    # What is appended comes in through the parent.
    "breaker_outcomes": Grants(_READ, _READ),
    "breaker_states": _KEPT,
    "breaker_store_alembic_version": Grants(_READ, _READ),
    "breaker_transitions": Grants(_READ, _READ),
    "day_rollups": _OPERATIONAL,
    # Written by the function that drops them.
    "dropped_partitions": Grants(_READ, _READ),
    "dropped_rollups": Grants(_READ, _READ),
    "fleet_health": Grants(("SELECT", "UPDATE"), _READ),
    "fleet_rollups": _OPERATIONAL,
    "hour_rollups": _OPERATIONAL,
    "imported_lines": _APPENDED,
    "log_gaps": _APPENDED,
    "log_position": Grants(("SELECT", "UPDATE"), _READ),
    "minute_rollups": _OPERATIONAL,
    "recorders": _OPERATIONAL,
    # Written by the function that erases a person.
    "resealed_batches": Grants(_READ, _READ),
    "retention": Grants(_READ, ("SELECT", "INSERT", "UPDATE", "DELETE")),
    "rollup_marks": _OPERATIONAL,
    "rollup_progress": Grants(("SELECT", "UPDATE"), _READ),
    "staged_reset_breakers": _KEPT,
    "staged_resets": _KEPT,
    "unsealed_batches": _APPENDED,
    "unhealthy_bots": _OPERATIONAL,
    "webhooks": _OPERATIONAL,
    # When and by which transaction a batch was stored is the server's to say: the age of what is kept counts from it.
    "writer_batches": Grants(
        (
            "SELECT",
            (
                "INSERT (writer_id, batch_no, first_seq, last_seq, event_count, format, source, digest, previous_digest, "
                "earliest, latest, seal)"
            ),
        ),
        _READ,
    ),
}

FUNCTIONS: Final[dict[str, Grants]] = {
    "append_batch": _CALLED,
    "apply_changes": _CALLED,
    "breakers_owing": _CALLED_BY_BOTH,
    "chain_transition": _CALLED,
    # These two see to the policies themselves, which the application can't change.
    "drop_outcomes": _CALLED_BY_BOTH,
    "drop_rollups": _CALLED_BY_BOTH,
    "due_spans": _CALLED_BY_BOTH,
    "ensure_outcome_partitions": _CALLED_BY_BOTH,
    "ensure_rollup_partitions": _CALLED_BY_BOTH,
    "erase_person": Grants((), ("EXECUTE",)),
    # What that function calls, it calls as the owner.
    "erased_details": Grants(),
    # Called by erase_person.
    "erase_rollups": Grants(),
    "finish_batch": _CALLED,
    "has_contents": Grants(),
    "is_trip": _CALLED_BY_BOTH,
    "open_batch": _CALLED,
    "private_transition_digest": _CALLED,
    "recount_breakers": _CALLED,
    # A trigger's: it is called whoever fires it.
    "refuse_log_change": Grants(),
    "restore_breaker_state": _CALLED,
    "uncounted_of": _CALLED_BY_BOTH,
}


@dataclass(frozen=True, slots=True)
class Roles:
    """The names of the two roles beside the owner.

    Raises:
        ConfigurationError: a name has other characters than letters, digits and `_.@-`, or is one that Postgres keeps to
            itself, or both are the same.

    """

    application: str = DEFAULT_APPLICATION
    maintenance: str = DEFAULT_MAINTENANCE

    def __post_init__(self) -> None:
        for name in (self.application, self.maintenance):
            if not _NAME.fullmatch(name) or name.startswith("pg_") or name in {"public", "none"}:
                raise ConfigurationError(
                    f"{name!r} can't be the name of a role: up to 63 letters, digits and _.@- can, unless they begin "
                    "with pg_"
                )
        if self.application == self.maintenance:
            raise ConfigurationError("application and maintenance are two roles: give them two names")


class Right(NamedTuple):
    """One privilege on one table, or on one column of it."""

    table: str
    privilege: str
    column: str | None = None

    def __str__(self) -> str:
        return f"{self.privilege} on {self.table}" + ("" if self.column is None else f" ({self.column})")


def rights(role: Literal["application", "maintenance"]) -> Iterator[Right]:
    """Give what a role may do with the tables: one right for each column, where some are named."""
    for table, grants in TABLES.items():
        for grant in getattr(grants, role):
            privilege, _, columns = grant.partition(" (")
            for column in columns.rstrip(")").split(", ") if columns else (None,):
                yield Right(table, privilege, column)


_STATEMENTS: Final = """\
-- The roles of breaker-store: {application} for bots, API and commands, {maintenance} for retention and erasure.
-- To be run by the owner of the tables, who must be allowed to create roles unless these are there; again after each
-- migration, and as often as one likes. A role that is made here has no password yet.
BEGIN;

DO $roles$
DECLARE
    log regclass := 'breaker_events';
    place text;
    owner text;
    role text;
    leaf regclass;
BEGIN
    SELECT relnamespace::regnamespace, pg_get_userbyid(relowner) INTO place, owner FROM pg_class WHERE oid = log;
    FOREACH role IN ARRAY ARRAY['{names}'] LOOP
        IF role = owner THEN
            RAISE EXCEPTION 'the role "%" owns the tables, and so can be neither application nor maintenance', role;
        END IF;
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I LOGIN', role);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;  -- it was made at the same time from another database of this server
            END;
        END IF;
        EXECUTE format('GRANT USAGE ON SCHEMA %s TO %I', place, role);
        -- The days are reached through their parent. This takes away what a hand, or a default, has given on them.
        FOR leaf IN
            SELECT pg_class.oid FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
            WHERE inhparent = 'breaker_outcomes'::regclass AND relacl IS NOT NULL
        LOOP
            EXECUTE format('REVOKE ALL ON %s FROM PUBLIC, %I', leaf, role);
        END LOOP;
    END LOOP;
END
$roles$;

{grants}

COMMIT;
"""


def roles_sql(roles: Roles) -> str:
    """Write the SQL that makes the roles, where they are missing, and gives them what the list says and no more.

    It finds the tables by the search path. If anything of it fails, nothing is changed.
    """
    return _STATEMENTS.format(
        application=roles.application,
        maintenance=roles.maintenance,
        names=f"{roles.application}', '{roles.maintenance}",
        grants="\n".join(_grants(f'"{roles.application}"', f'"{roles.maintenance}"')),
    )


def _grants(application: str, maintenance: str) -> Iterator[str]:
    everybody = f"PUBLIC, {application}, {maintenance}"
    yield f"REVOKE ALL ON {', '.join(TABLES)} FROM {everybody};"
    yield f"REVOKE ALL ON FUNCTION {', '.join(FUNCTIONS)} FROM {everybody};"
    functions = {f"FUNCTION {name}": grants for name, grants in FUNCTIONS.items()}
    for name, grants in (TABLES | functions).items():
        for role, privileges in ((application, grants.application), (maintenance, grants.maintenance)):
            if privileges:
                yield f"GRANT {', '.join(privileges)} ON {name} TO {role};"
