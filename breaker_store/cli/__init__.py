"""The command line: `breaker-store`.

Each module brings one command, or one group of them. What a command needs is imported when it is called, so that
`--help` is quick, and works without the extras. Output is for people; with `--json` it is for programs.
"""

from __future__ import annotations

from typing import Annotated, Final

import typer

from breaker_store.cli import (
    breaker_list,
    control,
    deliver,
    demo,
    doctor,
    embedded_program,
    erase,
    export,
    follow,
    health,
    history,
    imports,
    maintain,
    migrate,
    policy,
    recorders,
    retention,
    retries,
    roles,
    serve,
    staged_resets,
    state,
    stats,
    token,
    transitions,
    verify,
    webhooks,
    why,
)
from breaker_store.cli.ending import EXIT_CODES, CommandGroup

ASK: Final = "Ask"
ACT: Final = "Act"
RUN: Final = "Run"
KEEP: Final = "Keep"

# A user id may be negative: "-10" is no option.
NEGATIVE_USER_ID: Final = {"ignore_unknown_options": True}

# What stands behind the program's name is the program's.
PROGRAM_AND_ITS_OPTIONS: Final = {"allow_interspersed_args": False, "ignore_unknown_options": True}

app = typer.Typer(
    name="breaker-store",
    help="Circuit breakers whose every success, failure and transition is an event in Postgres.",
    epilog=EXIT_CODES,
    cls=CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# In the order in which `--help` shows them.
app.command("why", rich_help_panel=ASK, context_settings=NEGATIVE_USER_ID)(why.explain_transition)
app.command("state", rich_help_panel=ASK, context_settings=NEGATIVE_USER_ID)(state.show_state)
app.command("history", rich_help_panel=ASK, context_settings=NEGATIVE_USER_ID)(history.show_history)
app.command("health", rich_help_panel=ASK, context_settings=NEGATIVE_USER_ID)(health.show_health)
app.command("retries", rich_help_panel=ASK, context_settings=NEGATIVE_USER_ID)(retries.show_retries)
app.command("list", rich_help_panel=ASK)(breaker_list.list_breakers)
app.command("transitions", rich_help_panel=ASK)(transitions.list_transitions)
app.command("follow", rich_help_panel=ASK)(follow.follow)
app.command("recorders", rich_help_panel=ASK)(recorders.list_recorders)

app.command("reset", rich_help_panel=ACT, context_settings=NEGATIVE_USER_ID)(control.reset)
app.command("force-open", rich_help_panel=ACT, context_settings=NEGATIVE_USER_ID)(control.force_open)
app.command("release", rich_help_panel=ACT, context_settings=NEGATIVE_USER_ID)(control.release)
app.command("suspend", rich_help_panel=ACT, context_settings=NEGATIVE_USER_ID)(control.suspend)
app.command("resume", rich_help_panel=ACT, context_settings=NEGATIVE_USER_ID)(control.resume)
app.command("policy", rich_help_panel=ACT, context_settings=NEGATIVE_USER_ID)(policy.show_or_set_policy)

app.command("demo", rich_help_panel=RUN)(demo.show_demo)
app.command("serve", rich_help_panel=RUN)(serve.serve)
app.add_typer(token.app, name="token", rich_help_panel=RUN)
app.add_typer(webhooks.app, name="webhooks", rich_help_panel=RUN)
app.add_typer(staged_resets.app, name="staged-resets", rich_help_panel=RUN)

app.add_typer(migrate.app, name="migrate", rich_help_panel=KEEP)
app.command("postgres", rich_help_panel=KEEP, context_settings=PROGRAM_AND_ITS_OPTIONS)(
    embedded_program.run_program
)
app.command("doctor", rich_help_panel=KEEP)(doctor.examine_everything)
app.add_typer(roles.app, name="roles", rich_help_panel=KEEP)
app.command("import", rich_help_panel=KEEP)(imports.import_file)
app.command("export", rich_help_panel=KEEP, context_settings=NEGATIVE_USER_ID)(export.export_events)
app.command("stats", rich_help_panel=KEEP)(stats.show_stats)
app.add_typer(retention.app, name="retention", rich_help_panel=KEEP)
app.command("maintain", rich_help_panel=KEEP)(maintain.maintain_log)
app.command("verify", rich_help_panel=KEEP)(verify.verify_log)
app.command("erase", rich_help_panel=KEEP, context_settings=NEGATIVE_USER_ID)(erase.erase_user)
app.command("deliver", rich_help_panel=KEEP)(deliver.deliver_spool)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - slow to import, and rarely asked

        typer.echo(version("breaker-store"))
        raise typer.Exit


@app.callback()
def take_options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command that the process's arguments name, and exit."""
    app()
