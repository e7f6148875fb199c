"""``keyledger audit export`` and ``verify-pack``: audit packs, and their offline verification."""

from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.console import Console
from rich.text import Text
from sqlalchemy import Connection

from api.command_line.failures import FAILED, CommandFailed
from api.command_line.listing import Column, write_listing
from api.command_line.local_ledger import local_ledger
from api.command_line.options import AsJson, DataDir
from api.command_line.terminal import counted, one_line, stdout_console, write_json
from api.formats.access_csv import to_csv
from domain.errors import HistoryInDoubt, Invalid
from projections.audit_log.pack_export import export_pack
from projections.queries.access_report import ALL_KEYS, Review, list_access, reviewed
from projections.store.private_files import new_private_file
from projections.tlog.checkpoint import Checkpoint
from projections.tlog.offline_verifier import PublicKey, Report, verify_pack

_SOON = timedelta(days=30)
_LONG = timedelta(days=90)
_COLUMNS = (
    Column("WHERE", wraps=True),
    Column("PROBLEM", wraps=True),
    Column("WHAT TO DO", wraps=True),
)

PackFile = Annotated[Path, typer.Argument(metavar="PACK", help="Audit pack, a ZIP file.")]


def export(pack: PackFile, *, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Export the signed log to an audit pack, a ZIP file that can be verified offline.

    The pack also has the current keys and lists for an access review.
    """
    with local_ledger(data_dir, as_json=as_json) as ledger:
        # The newest events belong into the pack, and no pack is made of a log in doubt.
        ledger.signer.sign()
        signed = ledger.signer.check_log().last
        public_key = str(ledger.signer.key.verifier_key)
        _check_new(pack)
        with new_private_file(pack, ledger.database.owner) as (target, written):
            with ledger.database.read() as connection:
                checkpoint = export_pack(
                    connection,
                    target,
                    signed=signed,
                    key=ledger.signer.key,
                    reports=_reports(connection, ledger.clock()),
                )
            target.flush()
            _check_sound(written, public_key)
    if as_json:
        write_json(_exported(pack, checkpoint, public_key))
        return
    console = stdout_console()
    entries = f"{checkpoint.size:,} {'entry' if checkpoint.size == 1 else 'entries'}"
    console.print(one_line(f"{pack}: {entries}"), soft_wrap=True)
    console.print(f"Public key, to send separately: {public_key}", soft_wrap=True)


def check_pack(
    pack: PackFile,
    *,
    public_key: Annotated[
        str,
        typer.Option(
            help="Public key of the ledger, NAME+KEYID+BASE64, or a file with it. Get it from the"
            " ledger's owner, not from the pack.",
            metavar="KEY|FILE",
        ),
    ],
    previous: Annotated[
        Path | None,
        typer.Option(help="Earlier checkpoints that you have kept.", metavar="FILE"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify an audit pack offline, with a public key. The exit status is 1 on findings."""
    key = _public_key(public_key)
    kept = None if previous is None else _text_of("previous", previous)
    try:
        report = verify_pack(pack, public_key=key, previous=kept)
    except ValueError as error:
        raise Invalid("previous", str(error)) from error
    if as_json:
        write_json(_report_as_json(report))
    else:
        _write(stdout_console(), report, kept=kept is not None)
    if report.findings:
        raise typer.Exit(FAILED)


def _check_sound(written: Path, public_key: str) -> None:
    """Verify a new pack.

    Raises:
        CommandFailed: there are findings.
    """
    report = verify_pack(written, public_key=public_key)
    if report.findings:
        first = report.findings[0]
        raise CommandFailed(
            FAILED,
            HistoryInDoubt.code,
            f"this log cannot be exported: {first.where}: {first.wrong};"
            " run: keyledger audit verify",
        )


def _reports(connection: Connection, now: datetime) -> Mapping[str, Iterable[bytes]]:
    reports = {"keys.csv": to_csv(list_access(connection, ALL_KEYS, at=now))}
    review: Review
    for review in get_args(Review):
        selection = reviewed(review, now, within=_SOON, since=now - _LONG, older_than=_LONG)
        reports[f"review-{review}.csv"] = to_csv(list_access(connection, selection, at=now))
    return reports


def _check_new(path: Path) -> None:
    """Refuse to overwrite a file.

    Raises:
        CommandFailed: the file exists.
    """
    if path.exists():
        raise CommandFailed(FAILED, "FILE_EXISTS", f"{path} exists already: name another file")


def _public_key(given: str) -> str:
    try:
        return PublicKey(given.strip()).text
    except ValueError as error:
        if not Path(given).exists():
            raise Invalid("public_key", f"{error}; give the key or a file with it") from None
    try:
        return PublicKey(_text_of("public_key", Path(given)).strip()).text
    except ValueError as error:
        raise Invalid("public_key", f"in {given}: {error}") from None


def _text_of(field: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Invalid(field, f"{path} is not UTF-8 text") from None


def _exported(pack: Path, checkpoint: Checkpoint, public_key: str) -> dict[str, object]:
    return {
        "pack": str(pack),
        "origin": checkpoint.origin,
        "entries": checkpoint.size,
        "root": b64encode(checkpoint.root).decode(),
        "public_key": public_key,
    }


def _report_as_json(report: Report) -> dict[str, object]:
    return {
        "sound": not report.findings,
        "origin": report.origin,
        "entries": report.entries,
        "keys": report.keys,
        "checkpoints": report.checkpoints,
        "root": b64encode(report.root).decode() or None,
        "findings": [asdict(finding) for finding in report.findings],
        "not_listed": report.not_listed,
    }


def _write(console: Console, report: Report, *, kept: bool) -> None:
    if report.findings:
        rows = [
            [
                Text(one_line(finding.where), style="bold"),
                Text(one_line(finding.wrong), style="red"),
                Text(one_line(finding.remedy)),
            ]
            for finding in report.findings
        ]
        write_listing(console, _COLUMNS, rows)
        unsaid = report.not_listed
        console.print(f"... and {counted(unsaid, 'finding')} more\n" if unsaid else "")
    entries = f"{report.entries:,} {'entry' if report.entries == 1 else 'entries'}"
    seen = (
        f"{one_line(report.origin)}: {entries} of {counted(report.keys, 'key')},"
        f" {counted(report.checkpoints, 'checkpoint')}: "
    )
    found = len(report.findings) + report.not_listed
    verdict = Text(counted(found, "finding"), "bold red") if found else Text("sound", "green")
    console.print(Text.assemble(seen, verdict), soft_wrap=True)
    if not kept:
        console.print(
            "Without an earlier checkpoint (--previous) this cannot show whether the ledger's"
            " owner has signed another history before.",
            soft_wrap=True,
        )
