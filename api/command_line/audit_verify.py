"""``keyledger audit verify``: show what the checks in `projections.integrity.verify` find."""

from collections.abc import Sequence

import typer
from rich.console import Console
from rich.text import Text

from api.command_line.failures import FAILED
from api.command_line.listing import Column, write_listing
from api.command_line.local_ledger import local_ledger
from api.command_line.options import AsJson, DataDir
from api.command_line.output import standard_output
from api.command_line.progress import ReplayProgress
from api.command_line.terminal import (
    counted,
    one_line,
    stderr_console,
    stdout_console,
    write_json,
)
from api.composition import OpenLedger
from api.formats.as_json import attestation_as_json
from api.jobs.integrity_check import check_without_storing, store_result
from domain.errors import LedgerError, LedgerUnavailable
from projections.integrity.findings import Finding, Findings
from projections.integrity.schema_check import refuse_schema
from projections.integrity.verify import IntegrityReport

_COLUMNS = (
    Column("WHERE", wraps=True),
    Column("PROBLEM", wraps=True),
    Column("WHAT TO DO", wraps=True),
)


def verify(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Run the integrity check: events, entries, key histories, tree, checkpoints, projections.

    The server can keep running. The exit status is 1 if there are findings.
    """
    schema: list[Finding] = []
    findings = Findings()
    try:
        # A changed table is a finding, and must not end the check of the other tables.
        with local_ledger(data_dir, as_json=as_json, on_schema=schema.extend) as ledger:
            try:
                with ReplayProgress() as progress:
                    attestation = check_without_storing(ledger, findings, progress=progress)
            except BaseException:
                # Show what was found before the error.
                if not as_json:
                    write_findings(stdout_console(), findings.listed, findings.not_listed)
                raise
            if as_json:
                write_json(attestation_as_json(attestation))
            else:
                _write(stdout_console(), attestation)
            # After the output, since the database may be slow or refuse.
            standard_output().flush()
            _record(ledger, attestation)
    except LedgerError:
        # Nothing else can be checked in tables of another shape.
        refuse_schema(schema)
        raise
    if attestation.found:
        raise typer.Exit(FAILED)


def _record(ledger: OpenLedger, attestation: IntegrityReport) -> None:
    """Record the result for the console and the metrics; say on stderr if that failed."""
    try:
        store_result(ledger, attestation)
    except LedgerUnavailable as error:
        message = f"The result was not recorded in the database: {error}"
        stderr_console().print(one_line(message), soft_wrap=True)


def write_findings(console: Console, findings: Sequence[Finding], not_listed: int) -> None:
    """Write the findings of an integrity check, if there are any."""
    if not findings:
        return
    rows = [
        [
            Text(one_line(finding.name), style="bold"),
            Text(one_line(finding.wrong), style="red"),
            Text(one_line(finding.remedy)),
        ]
        for finding in findings
    ]
    write_listing(console, _COLUMNS, rows)
    console.print(f"... and {counted(not_listed, 'finding')} more\n" if not_listed else "")


def _write(console: Console, attestation: IntegrityReport) -> None:
    write_findings(console, attestation.findings, attestation.not_listed)
    seen = (
        f"{counted(attestation.events, 'event')} of {counted(attestation.keys, 'key')},"
        f" {counted(attestation.checkpoints, 'checkpoint')}, in {attestation.seconds:.2f} s: "
    )
    if attestation.found:
        verdict = Text(counted(attestation.found, "finding"), "bold red")
    else:
        verdict = Text("no findings", "green")
    console.print(Text.assemble(f"verified {seen}", verdict), soft_wrap=True)
    if not attestation.checkpoints:
        console.print(
            "There is no checkpoint to compare with: a replaced history would not be noticed.",
            soft_wrap=True,
        )
