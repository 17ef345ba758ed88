"""Data versions as a person reads them in a terminal."""

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.outcome import one_line
from tasks.contracts.store import Entry, spelled_time
from tasks.data.records.as_read import READ
from tasks.data.records.sightings import Sighting
from tasks.data.rows import Row, answer_of, prompt_of
from tasks.data.versions import KINDS, LENGTH_EDGES, Difference, Profile, slices_of

_BAR_CHARS = 30
_SHOWN = 10
_KEPT = {"train": "kept, for training", "eval": "kept, for evaluation"}


def render_versions(console: Console, versions: list[Entry], chosen: Entry) -> None:
    """Show the newest data versions; the chosen one is marked."""
    table = Table(title="Data versions", title_justify="left")
    for column in ("version", "made at", "read", "training", "made", "evaluation", ""):
        table.add_column(column)
    for version in versions[-_SHOWN:]:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(version.made_at))
        counts = (f"{version.facts.get(key, 0):,}" for key in ("rows_read", "train_rows", "made_rows", "eval_rows"))
        table.add_row(version.digest[:12], made, *counts, "shown below" if version.digest == chosen.digest else "")
    console.print(table)


def render_version(console: Console, version: Entry) -> None:
    """Show a version's digest and its whole accounting."""
    facts = version.facts
    table = Table(title=f"Data version {version.digest[:12]}", title_justify="left")
    for column in ("rows", *facts["origins"]):
        table.add_column(column, justify="left" if column == "rows" else "right")
    reasons = sorted({reason for account in facts["origins"].values() for reason in account["rejected"]})
    for title, key in (("read", "rows_read"), ("training", "train_rows"), ("evaluation", "eval_rows")):
        table.add_row(title, *(f"{account[key]:,}" for account in facts["origins"].values()))
    for reason in reasons:
        cells = (f"{account['rejected'].get(reason, 0):,}" for account in facts["origins"].values())
        table.add_row(f"rejected: {escape(reason)}", *cells)
    console.print(table)
    made = facts.get("made_rows", 0)
    console.print(
        f"Trained on in all: {facts['train_rows'] + made:,} rows, {facts['train_rows']:,} that were read and {made:,} "
        "that were made of them.",
        highlight=False,
    )
    steps = Table(title="Cleaning steps", title_justify="left")
    for column in ("step", "changed", "dropped"):
        steps.add_column(column, justify="left" if column == "step" else "right")
    for each in facts["steps"]:
        steps.add_row(escape(each["step"]), f"{each['changed']:,}", f"{each['dropped']:,}")
    console.print(steps)
    for method, counts in facts["augmentation"].items():
        said = ", ".join(f"{number:,} {reason}" for reason, number in sorted(counts.items()))
        steps = facts.get("augmentation_steps", {}).get(method, [])  # versions of before have none
        changed = "".join(f"; {each['changed']:,} changed by {each['step']}" for each in steps if each["changed"])
        console.print(f"Rows made by {method}: {said}{changed}", highlight=False, markup=False)
    removed = facts["contamination"]
    own = removed.get("own_records", 0)  # versions of before did not count them
    console.print(
        f"{facts['clusters']:,} clusters of prompts, the largest of {facts['largest_cluster']:,} rows; "
        f"{removed['twins']:,} twins and {removed['near_twins']:,} near twins of evaluation rows are not trained on"
        + (f"; {own:,} of the twins are those rows' own records, read again." if own else "."),
        highlight=False,
    )
    console.print(f"Digest {version.digest}", highlight=False, soft_wrap=True)
    console.print(f"Files  {version.path}", highlight=False, soft_wrap=True, markup=False)


def render_built(console: Console, version: Entry, is_new: bool) -> None:
    """Say whether a build made its version or found it, and how to look into it."""
    if not is_new:
        made = spelled_time(version.made_at)
        console.print(f"Found, made at {made} of the same rows and settings: nothing was made anew.", highlight=False)
    console.print(f"Look into it: llm-retrain data show {version.digest[:12]}", highlight=False, soft_wrap=True)


def render_profile(console: Console, names: list[str], profiles: list[Profile]) -> None:
    """Show how rows are distributed over slices and lengths, one or two versions side by side."""
    slices = slices_of(profiles)
    hidden = len(slices) - _SHOWN
    _slices(console, "Slices" + (f" (the {_SHOWN} largest; {hidden} more)" if hidden > 0 else ""), names, profiles)
    classes = [*(f"up to {edge:,}" for edge in LENGTH_EDGES), f"over {LENGTH_EDGES[-1]:,}"]
    for title, key in (("Prompts, characters", "prompt_chars"), ("Answers, characters", "answer_chars")):
        counts = zip(*(getattr(each, key) for each in profiles), strict=True)
        lines = {label: list(values) for label, values in zip(classes, counts, strict=True)}
        _distribution(console, title, names, {label: values for label, values in lines.items() if any(values)})


def render_rows(console: Console, samples: dict[str, list[Row]]) -> None:
    """Show some rows of each split."""
    table = Table(title="Rows", title_justify="left", show_lines=True)
    for column, ratio in (("split", 1), ("id", 2), ("slice", 2), ("prompt (end)", 6), ("answer", 5)):
        table.add_column(column, ratio=ratio)
    for split, rows in samples.items():
        for row in rows:
            prompt = " ".join(message["content"] for message in prompt_of(row))
            cells = (row["id"][:12], row["slice"], one_line(prompt[-160:], 160), one_line(answer_of(row), 160))
            table.add_row(split, *map(escape, cells))
    console.print(table)


def render_difference(console: Console, names: list[str], difference: Difference) -> None:
    """Show how two versions differ: counts, some ids, and both distributions."""
    table = Table(title=f"From {names[0]} to {names[1]}", title_justify="left")
    for column in ("rows", "count", "for example"):
        table.add_column(column, justify="right" if column == "count" else "left")
    changed = [f"{old[:12]} → {new[:12]}" for old, new in difference.changed]
    for title, rows in (
        (f"added ({difference.added_made:,} of them made)", [row[:12] for row in difference.added]),
        ("removed", [row[:12] for row in difference.removed]),
        ("changed (same prompt, another answer)", changed),
        ("moved between training and evaluation", [row[:12] for row in difference.moved]),
    ):
        table.add_row(title, f"{len(rows):,}", ", ".join(rows[:4]))
    table.add_row("the same", f"{difference.same:,}", "")
    console.print(table)
    render_profile(console, names, list(difference.profiles))


def render_sightings(
    console: Console, sightings: list[Sighting], models: dict[str, list[int]], erased: dict[str, dict[str, str]]
) -> None:
    """Show where each version has a record and why, and which registered versions were made with that data.

    Args:
        console: where to.
        sightings: of the record, or of several.
        models: digest of a data version → registered versions that were made with it.
        erased: mark → what the list of erased records says of it.
    """
    for said in sorted({_erased_on(each) for each in erased.values()}):
        console.print(f"On the list of erased records: {said}", highlight=False, markup=False)
    if not sightings:
        if erased:
            console.print("No data version shows it, and what was read does not, either.")
            return
        console.print("No data version has such a record, and none was read.")
        return
    table = Table(title=f"{len(sightings)} sightings" if len(sightings) > 1 else "1 sighting", title_justify="left")
    for column in ("data version", "row", "where", "why", "models", "record"):
        table.add_column(column)
    for seen in sightings[: 5 * _SHOWN]:
        seen_by = ", ".join(map(str, models.get(seen.version, []))) or "–"
        where = f"{seen.where}, {seen.source} {_lines(seen.lines)}" if seen.lines else seen.where
        why = f"{seen.reason}: {seen.detail}" if seen.reason else _KEPT.get(seen.where, "")
        if seen.record_id in erased:
            why = f"{_erased_on(erased[seen.record_id])}{'; here ' if why else ''}{why}"
        version = f"rows {seen.version[:12]}" if seen.where == READ else seen.version[:12]
        table.add_row(
            *(version, seen.record_id[:12] or "–", escape(where), escape(one_line(why, 120)), seen_by),
            escape(_shown_record(seen)),
        )
    console.print(table)
    if len(sightings) > 5 * _SHOWN:
        console.print(f"… and {len(sightings) - 5 * _SHOWN} more (--json has all)")


def render_erased_before(console: Console, record: str, listed: dict[str, dict[str, str]]) -> None:
    """Say that all of what was asked for was erased before."""
    said = " and ".join(sorted({_erased_on(each) for each in listed.values()}))
    console.print(
        f"{record} was erased before ({said}); nothing was changed. llm-retrain data why says where it still is.",
        highlight=False,
        markup=False,
    )


def render_holders(console: Console, record_id: str, erased: dict[str, Any], holders: dict[str, list[Any]]) -> None:
    """Say that a record is erased, and what still holds it: nothing that exists is changed.

    Args:
        console: where to.
        record_id: what it is called here.
        erased: what the list says of it.
        holders: kind → what holds it.
    """
    fate = "is erased: no future version will have it."
    if erased["before"]:
        fate = f"was erased before ({_erased_on(erased)}); nothing was changed."
    console.print(f"{record_id[:12]} {fate}", highlight=False, markup=False)
    said = {
        "Data versions": [digest[:12] for digest in holders["versions"]],
        "Rows as they were read": [digest[:12] for digest in holders["row_sets"]],
        "Answers, reports and review pages": [digest[:12] for digest in holders["results"]],
        "Rating sheets": holders["ratings"],
        "Fetched sources": holders["sources"],
        "Unfinished or damaged": holders["unfinished"],
        "Adapters trained on these versions": [Path(path).name[:12] for path in holders["adapters"]],
        "Unfinished trainings, of any rows": holders["unfinished_trainings"],
        "Models that have seen it": [str(number) for number in holders["models"]],
    }
    table = Table(title="What still holds it", title_justify="left")
    table.add_column("what")
    table.add_column("which", overflow="fold")
    for what, which in said.items():
        table.add_row(what, escape(", ".join(which)) or "none")
    console.print(table)
    console.print("The sources that you named, and copies made elsewhere, are not looked at.", highlight=False)
    if holders["models"]:
        console.print("Retrain and promote to be rid of it in what is served.", highlight=False)


def _lines(numbers: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, numbers[:_SHOWN]))
    return f"line{'s' if numbers[1:] else ''} {shown}{', …' if numbers[_SHOWN:] else ''}"


def _erased_on(listed: dict[str, str]) -> str:
    return f"erased on {listed['time']}, reason: {listed['reason']}"


def _shown_record(seen: Sighting) -> str:
    """Return the part of a record that says most: where the text was found, or the beginning."""
    if seen.where == READ:
        return "found as it was read; store/rows keeps it"
    if seen.found_in == READ:
        return f"found as it was read; here: {_beginning(seen, 100)}"
    if seen.found_in == "rejected" or seen.found_in.startswith("meta"):
        name = "answer not chosen" if seen.found_in == "rejected" else seen.found_in
        return one_line(f"{name}: {seen.passage}", 160)
    if seen.found_in in ("messages", "excerpt"):
        return one_line(seen.passage, 160)
    return _beginning(seen, 120)


def _beginning(seen: Sighting, chars: int) -> str:
    text = " ".join(message["content"] for message in seen.row["messages"]) if seen.row else seen.excerpt
    return one_line(text, chars)


def _slices(console: Console, title: str, names: list[str], profiles: list[Profile]) -> None:
    """Show the rows of each slice by what they are there for, and its share of those that are trained on."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in names:
        for column in (*KINDS, "share of training"):
            table.add_column(f"{name} {column}" if len(names) > 1 else column, justify="right")
    for key in slices_of(profiles)[:_SHOWN]:
        cells = []
        for each in profiles:
            counts = each.slices.get(key, dict.fromkeys(KINDS, 0))
            trained, all_trained = (rows["training"] + rows["made"] for rows in (counts, each.rows))
            cells += [*(f"{counts[kind]:,}" for kind in KINDS), f"{trained / max(1, all_trained):.1%}"]
        table.add_row(escape(one_line(key, 40)), *cells)
    console.print(table)


def _distribution(console: Console, title: str, names: list[str], lines: dict[str, list[int]]) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
        table.add_column("")
    most = max((value for values in lines.values() for value in values), default=0) or 1
    for label, values in lines.items():
        cells = [
            cell for value in values for cell in (f"{value:,}", "█" * round(_BAR_CHARS * value / most / len(names)))
        ]
        table.add_row(label, *cells)
    console.print(table)
