"""The personal-data scan against presidio: speed on one core, precision and recall on the labelled file.

    python benchmarks/personal_data.py

presidio (pip install presidio-analyzer) runs its own recognizers of the kinds both know, called directly: no language
model, nothing of what its engine adds to them, and telephone numbers of ten regions, China among them, in place of its
eight. Without presidio its columns stay empty.
"""

import argparse
import importlib.util
import json
import logging
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import personal_texts

from tasks.data.personal.scanner import PersonalScanner

KINDS = ("email", "phone", "china_id", "bank_card", "ip_address", "mac_address", "secret", "name_with_age")
SHARED_KINDS = ("email", "phone", "bank_card", "ip_address", "mac_address")
PRESIDIO_KINDS = {
    "EMAIL_ADDRESS": "email",
    "PHONE_NUMBER": "phone",
    "CREDIT_CARD": "bank_card",
    "IP_ADDRESS": "ip_address",
    "MAC_ADDRESS": "mac_address",
}
PRESIDIO_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "CH", "SE", "NL", "CN")
Found = list[tuple[str, int, int]]
Finder = Callable[[list[str]], list[Found]]


def product_finder(kinds: Iterable[str] = KINDS) -> Finder:
    """Return the scan of this project, warmed up: its automata grow with the first megabyte they see."""
    scanner = PersonalScanner(kinds, {})
    scanner.find(personal_texts.mixed_rows(1_000, seed=1))
    return lambda texts: [[(span.kind, span.start, span.end) for span in spans] for spans in scanner.find(texts)]


def has_presidio() -> bool:
    """Tell whether the peer is installed."""
    return importlib.util.find_spec("presidio_analyzer") is not None


def presidio_finder() -> Finder:
    """Return presidio's recognizers of the shared kinds, warmed up."""
    from presidio_analyzer import predefined_recognizers as recognizers

    # Its e-mail recognizer tries to fetch the list of public suffixes, and says so at length where it cannot.
    logging.getLogger("tldextract").setLevel(logging.CRITICAL)
    wanted = [
        recognizers.EmailRecognizer(),
        recognizers.PhoneRecognizer(supported_regions=PRESIDIO_REGIONS),
        recognizers.CreditCardRecognizer(),
        recognizers.IpRecognizer(),
        recognizers.MacAddressRecognizer(),
    ]

    def find(texts: list[str]) -> list[Found]:
        return [
            [
                (PRESIDIO_KINDS[result.entity_type], result.start, result.end)
                for recognizer in wanted
                for result in recognizer.analyze(text, recognizer.supported_entities, None) or ()
            ]
            for text in texts
        ]

    find(["a@example.com 10.1.2.3 +44 20 7946 0958"])
    return find


def mb_per_s(find: Finder, texts: list[str]) -> float:
    """Return megabytes of UTF-8 that one core scans in a second of processor time."""
    size = sum(len(text.encode()) for text in texts)
    start = time.process_time()
    find(texts)
    return size / 1e6 / (time.process_time() - start)


def speeds(texts: list[str], peer_texts: int = 300, runs: int = 3) -> dict[str, list[float]]:
    """Return MB/s of the product and, if it is installed, of presidio, in interleaved runs.

    Args:
        texts: what the product scans.
        peer_texts: presidio scans so many of them, and the product scans all; it is some hundred times slower.
        runs: how often.
    """
    finders: dict[str, tuple[Finder, list[str]]] = {"product": (product_finder(), texts)}
    if has_presidio():
        finders["presidio"] = (presidio_finder(), texts[:: max(1, len(texts) // peer_texts)])
    result: dict[str, list[float]] = {name: [] for name in finders}
    for _ in range(runs):
        for name, (find, own) in finders.items():
            result[name].append(mb_per_s(find, own))
    return result


def labelled_records() -> list[dict[str, Any]]:
    """Read the labelled file."""
    with personal_texts.LABELLED_FILE.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def accuracy(find: Finder, exact: bool = False) -> dict[tuple[str, str], dict[str, float]]:
    """Return precision and recall by kind and language on the labelled file.

    Args:
        find: what is judged.
        exact: bounds must be the same; else a span of the same kind that overlaps is right.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    records = labelled_records()
    for record, found in zip(records, find([record["text"] for record in records]), strict=True):
        marked = [tuple(span) for span in record["spans"]]
        for name, ours, theirs in (("missed", marked, found), ("wrong", found, marked)):
            for span in ours:
                hit = span in theirs if exact else any(_overlap(span, other) for other in theirs)
                counts[span[0], record["language"], f"{name} hit" if hit else name] += 1
    keys = sorted({key[:2] for key in counts})
    return {
        key: {
            "recall": _share(counts[*key, "missed hit"], counts[*key, "missed"]),
            "precision": _share(counts[*key, "wrong hit"], counts[*key, "wrong"]),
        }
        for key in keys
    }


def recall_on_shared_kinds(find: Finder) -> float:
    """Return recall over all values of the kinds both know."""
    marked = hits = 0
    records = labelled_records()
    for record, found in zip(records, find([record["text"] for record in records]), strict=True):
        for span in record["spans"]:
            if span[0] in SHARED_KINDS:
                marked += 1
                hits += any(_overlap(tuple(span), other) for other in found)
    return hits / marked


def _overlap(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return one[0] == other[0] and one[1] < other[2] and other[1] < one[2]


def _share(hits: int, others: int) -> float:
    return hits / (hits + others) if hits + others else float("nan")


def figures(rows: int) -> dict[str, Any]:
    """Return what is printed, for scripts: MB/s of each run, and recall on the kinds both know."""
    recall = {"product": recall_on_shared_kinds(product_finder())}
    if has_presidio():
        recall["presidio"] = recall_on_shared_kinds(presidio_finder())
    by_kind = {"/".join(key): score for key, score in accuracy(product_finder(), exact=True).items()}
    speed = speeds(personal_texts.mixed_rows(rows))
    return {"mb_per_s_per_core": speed, "recall_on_shared_kinds": recall, "labelled_file": by_kind}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=8_000, help="texts of about 500 characters")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object and nothing else")
    arguments = parser.parse_args()
    if arguments.json:
        print(json.dumps(figures(arguments.rows)))
        return
    ours = accuracy(product_finder(), exact=True)
    peer = accuracy(presidio_finder()) if has_presidio() else {}
    print(f"{'kind':14} {'':3} {'recall':>7} {'precision':>9}   presidio: recall precision (any overlap)")
    for key, score in ours.items():
        other = peer.get(key) if key[0] in SHARED_KINDS else None
        tail = f"{other['recall']:17.3f} {other['precision']:9.3f}" if other else ""
        print(f"{key[0]:14} {key[1]:3} {score['recall']:7.3f} {score['precision']:9.3f} {tail}")
    for name, values in speeds(personal_texts.mixed_rows(arguments.rows)).items():
        print(f"{name:9} {statistics.median(values):8.3f} MB/s a core  ({min(values):.3f} to {max(values):.3f})")
    print(f"recall on the shared kinds: {recall_on_shared_kinds(product_finder()):.3f}", end="")
    print(f", presidio {recall_on_shared_kinds(presidio_finder()):.3f}" if has_presidio() else "")


if __name__ == "__main__":
    main()
