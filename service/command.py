"""The whole `earmark` command: the commands of `service.cli`, and `serve`, which starts `service.web`.

This is the one module that knows both rooms.
"""

from service.cli.group import (
    EXIT_STATUSES,
    complain,
    current_settings,
    hypotheses_option,
    jobs_option,
    library_option,
    max_e_value_option,
    ray_option,
    setting,
    wrong_per_million_option,
)
from service.cli.main import main


@main.command(short_help="Answer over HTTP.", epilog=EXIT_STATUSES)
@setting(
    "--host",
    metavar="ADDRESS",
    help="A loopback address while there are no keys.  [default: 127.0.0.1]",
)
@setting("--port", metavar="PORT", help="0 takes a free one.  [default: 8000]")
@jobs_option
@max_e_value_option
@wrong_per_million_option
@hypotheses_option
@ray_option
@library_option
def serve() -> None:
    """Answer over HTTP: on this machine only until `earmark keys create` made a first key.

    \b
    Examples:
      earmark serve --port 8080
      curl -F clip=@suspect.mp3 http://127.0.0.1:8080/v1/query

    The routes are described, and can be tried, at /docs. The library is made if it is not there.
    What other processes ingest and remove meanwhile is seen at once. Ctrl-C or SIGTERM stops it
    within 30 s (the setting stop_within): requests in hand get half of that time, then running jobs
    the other half. Jobs that are not done go on with the next server.
    """
    from service.web.server import run

    run(current_settings(), complain)
