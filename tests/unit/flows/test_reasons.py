"""What people give as a reason is written down, so it has to be text."""

import pytest
from click.testing import CliRunner

from flows.cli import cli


@pytest.mark.parametrize("arguments", [["promote", "3"], ["rollback"], ["approve", "3"], ["reject", "3"], ["run"]])
def test_a_reason_that_is_no_text_is_wrong_usage(arguments):
    done = CliRunner().invoke(cli, [*arguments, "--reason", "\udcff\udcfe"])
    assert done.exit_code == 2 and "expected text in UTF-8" in done.output


def test_a_name_that_is_no_text_is_wrong_usage():
    done = CliRunner().invoke(cli, ["approve", "3", "--reason", "good", "--name", "\udcff"])
    assert done.exit_code == 2 and "expected text in UTF-8" in done.output
