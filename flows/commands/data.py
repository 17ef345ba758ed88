"""`llm-retrain data`: build a data version without training on it, look into versions, and take a record out."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.commands.options import config_options, json_option, terminal
from tasks.contracts.config import RetrainConfig, load_config
from tasks.contracts.home import Home
from tasks.contracts.jsonl import digest_of_file
from tasks.contracts.store import Entry, Store, entry_at, spelled_time

if TYPE_CHECKING:
    from tasks.contracts.artifacts import DatasetRef
    from tasks.data.records.sightings import Sighting
    from tasks.data.records.traces import Traces

_plot_option = click.option(
    "--plot", type=click.Path(path_type=Path), help="Draw slices and lengths into a .png, .svg or .pdf."
)


@click.group()
def data() -> None:
    """Build data versions and look into them."""


@data.command()
@config_options
@json_option
def build(preset: str | None, file: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Read, clean and divide the rows, and account for each; nothing is trained."""
    config, home = load_config(preset, file, overrides), Home.from_environment()
    with terminal(home, as_json) as console:
        from flows.terminal.data import render_built, render_version

        store = Store(home.store)
        before = {entry.path: entry.made_at for entry in store.entries("dataset")}
        # Not by its digest: another build may have made the same files by other steps.
        version = entry_at(build_version(config, home, store).path)
        is_new = before.get(version.path) != version.made_at  # a damaged one is made again at its old place
        if as_json:
            _say({**_facts(version), "made_anew": is_new, "made_at": spelled_time(version.made_at)})
            return
        render_version(console, version)
        render_built(console, version, is_new)


@data.command()
@click.argument("version", default="")
@_plot_option
@click.option("--rows", type=click.IntRange(min=0), default=3, show_default=True, help="Rows of each split to show.")
@json_option
def show(version: str, plot: Path | None, rows: int, as_json: bool) -> None:
    """Show what VERSION (the beginning of a digest; by default the one made last) holds, and what others there are."""
    home = Home.from_environment()
    with terminal(home, as_json) as console:
        from flows.terminal.data import render_profile, render_rows, render_version, render_versions
        from tasks.data.plot import write_plot
        from tasks.data.versions import SPLITS, chosen_version, data_versions, profile, sample_rows

        store = Store(home.store)
        chosen = chosen_version(store, version)
        shape = profile(chosen)
        samples = {split: sample_rows(chosen, split, rows) for split in SPLITS}
        if plot:
            write_plot(plot, [chosen.digest[:12]], [shape])
        if as_json:
            _say({**_facts(chosen), "profile": asdict(shape), "rows": samples})
            return
        render_versions(console, data_versions(store), chosen)
        render_version(console, chosen)
        render_profile(console, [chosen.digest[:12]], [shape])
        render_rows(console, samples)


@data.command()
@click.argument("first")
@click.argument("second", default="")
@_plot_option
@json_option
def diff(first: str, second: str, plot: Path | None, as_json: bool) -> None:
    """Show how version FIRST and version SECOND (by default the one made last) differ."""
    home = Home.from_environment()
    with terminal(home, as_json) as console:
        from flows.terminal.data import render_difference
        from tasks.data.plot import write_plot
        from tasks.data.versions import chosen_version, compare

        store = Store(home.store)
        one, other = chosen_version(store, first), chosen_version(store, second)
        names = [one.digest[:12], other.digest[:12]]
        difference = compare(one, other)
        if plot:
            write_plot(plot, names, list(difference.profiles))
        if as_json:
            _say({"first": one.digest, "second": other.digest, **asdict(difference)})
        else:
            render_difference(console, names, difference)


@data.command()
@click.argument("record")
@config_options
@json_option
def why(record: str, preset: str | None, file: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Say where each version has RECORD (the beginning of a row's id, or text in it), why, and which models saw it."""
    config, home = load_config(preset, file, overrides), Home.from_environment()
    with terminal(home, as_json) as console:
        from flows.terminal.data import render_sightings
        from tasks.data.records.as_read import find
        from tasks.data.records.erasure import erased_before
        from tasks.data.records.sightings import with_lines
        from tasks.data.versions import data_versions

        store = Store(home.store)
        sightings = with_lines(find(store, record), data_versions(store), store)
        erased = erased_before(home, (seen.record_id for seen in sightings), record)
        models = _models_by_version(config, home)
        if as_json:
            _say({"sightings": _with_models(sightings, models), "erased": erased})
        else:
            render_sightings(console, sightings, models, erased)


@data.command()
@click.argument("record")
@click.option("--reason", required=True, help="Why; stands on the list of erased records.")
@config_options
@json_option
def erase(
    record: str, reason: str, preset: str | None, file: Path | None, overrides: tuple[str, ...], as_json: bool
) -> None:
    """Leave RECORD (the beginning of an id, or text in it) out of all future versions, and name what still holds it.

    RECORD is one row, or one piece that never became a row. What was made before keeps it until it is deleted.
    """
    config, home = load_config(preset, file, overrides), Home.from_environment()
    with terminal(home, as_json) as console:
        from flows.terminal.data import render_erased_before, render_holders, render_sightings
        from tasks.data.records.as_read import find_one
        from tasks.data.records.erasure import erase as put_on_the_list
        from tasks.data.records.erasure import erased_before
        from tasks.data.records.sightings import NotOneRecord
        from tasks.data.records.traces import traces_of

        store = Store(home.store)
        try:
            found, sightings = find_one(store, record)
        except NotOneRecord as error:
            listed = erased_before(home, error.ids, record)
            if not listed or not error.ids <= listed.keys():
                raise
            if as_json:
                _say({"erased": {"before": True, "marks": sorted(listed), **next(iter(listed.values()))}})
            else:
                render_erased_before(console, record, listed)
            return
        traces = traces_of(found, home, store)
        erased = put_on_the_list(home, traces.marks, reason)
        models = _models_by_version(config, home)
        holders = _holders(traces, models, store)
        if as_json:
            _say({"erased": erased, "sightings": _with_models(sightings, models), "held_by": holders})
            return
        render_sightings(console, sightings, models, {})
        render_holders(console, sightings[0].record_id, erased, holders)


def build_version(config: RetrainConfig, home: Home, store: Store) -> "DatasetRef":
    """Build the data version that a configuration describes, or find it."""
    from tasks.contracts.cleaning_config import LengthStep
    from tasks.data.build import build_dataset, warn_of_few
    from tasks.data.ingest import Place, ingest
    from tasks.training.base_model import prepare_base_model

    place = Place(home, store, config.serving)
    rows = ingest(config.data, place, config.data.sources)
    held_out = config.data.evaluation_sources
    evaluation_rows = ingest(config.data, place, held_out) if held_out else None
    # After the sources: a base model takes half a minute to prepare, and they may not be readable.
    needs_tokenizer = any(isinstance(step, LengthStep) for step in config.data.cleaning)
    base = prepare_base_model(config.base_model, home, store) if needs_tokenizer else None
    dataset = build_dataset(rows, evaluation_rows, config.data, place, base)
    warn_of_few(dataset, evaluation_rows, config.data)
    return dataset


def _facts(version: Entry) -> dict[str, Any]:
    trained_on = version.facts["train_rows"] + version.facts.get("made_rows", 0)  # versions of before made none
    return {"digest": version.digest, "path": str(version.path), "trained_on": trained_on, **version.facts}


def _models_by_version(config: RetrainConfig, home: Home) -> dict[str, list[int]]:
    """Return the registered versions of the model that were trained or judged on each data version."""
    from tasks.registry.versions import list_versions

    found: dict[str, list[int]] = {}
    for version in list_versions(config.registry, home):
        found.setdefault(version.dataset_digest, []).append(version.version)
    return found


def _with_models(sightings: "list[Sighting]", models: dict[str, list[int]]) -> list[dict[str, Any]]:
    return [{**asdict(seen), "models": models.get(seen.version, [])} for seen in sightings]


def _holders(traces: "Traces", models: dict[str, list[int]], store: Store) -> dict[str, list[Any]]:
    """Return what still holds a record, by kind; models are the registered versions that were made with it.

    Trainings that are not finished do not say on which rows: all are named.
    """
    from tasks.training.adapter import adapters_of_rows, unfinished_trainings

    learned = [entry.path / "train.jsonl" for entry in store.entries("dataset") if entry.digest in traces.learned]
    learned += [entry.path / "train.jsonl" for entry in store.entries("replay") if entry.digest in traces.results]
    rows = {digest_of_file(path) for path in learned if path.is_file()}
    return {
        "versions": traces.versions,
        "row_sets": traces.row_sets,
        "results": traces.results,
        "ratings": traces.ratings,
        "unfinished": traces.unfinished,
        "sources": traces.sources,
        "adapters": [str(path) for path in adapters_of_rows(store, rows)],
        "unfinished_trainings": [str(path) for path in unfinished_trainings(store)],
        "models": sorted({number for version in traces.learned for number in models.get(version, [])}),
    }


def _say(facts: dict[str, Any]) -> None:
    click.echo(json.dumps(facts, ensure_ascii=False))
