"""Running commands as a user would."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from mnnpy.cli.main import app


def invoke(*arguments: object) -> Result:
    """Run a command; anything but an exit is a failure of the test."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def succeed(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout
