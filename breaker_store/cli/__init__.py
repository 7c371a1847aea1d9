"""The command line: `breaker-store`.

Each module brings one group of commands. What a command needs is imported when it is called, so that `--help` is
quick, and works without the extras.
"""

from __future__ import annotations

import typer

from breaker_store.cli import deliver, demo, history, imports, migrate, recorders, serve, state, webhooks
from breaker_store.cli.ending import CommandGroup

app = typer.Typer(
    name="breaker-store",
    help="Circuit breakers whose every success, failure and transition is an event in Postgres.",
    cls=CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.show_demo)
app.command("serve")(serve.serve)
app.add_typer(migrate.app, name="migrate")
# A user id may be negative: "-10" is no option.
app.command("state", context_settings={"ignore_unknown_options": True})(state.show_state)
app.command("history", context_settings={"ignore_unknown_options": True})(history.show_history)
app.command("recorders")(recorders.list_recorders)
app.add_typer(webhooks.app, name="webhooks")
app.command("deliver")(deliver.deliver_spool)
app.command("import")(imports.import_file)


def main() -> None:
    """Run the command that the process's arguments name, and exit."""
    app()
