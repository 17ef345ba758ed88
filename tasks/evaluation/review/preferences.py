"""Whose answers were preferred, as a page shows it."""

from collections.abc import Iterable

from tasks.contracts.artifacts import Preference


def preference_tables(preferences: Iterable[Preference]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return a heading, and label and figure of each line, for each preference."""
    return [(_heading(said), _lines(said)) for said in preferences]


def _heading(said: Preference) -> str:
    return f"{'Preferred by the judge' if said.kind == 'judge' else 'Preferred by people'}: {', '.join(said.by)}"


def _lines(said: Preference) -> list[tuple[str, str]]:
    if said.problem:
        return [("nothing that counts", said.problem)]
    lines = [
        (f"rows: candidate, tie, {said.baseline}", f"{said.wins}, {said.ties}, {said.losses}"),
        ("mean preference (0.5: neither)", f"{said.share.value:.3f} [{said.share.low:.3f}, {said.share.high:.3f}]"),
        ("p of a gain, of a loss (sign test)", f"{said.p_better:.2g}, {said.p_worse:.2g}"),
        ("rows answered alike, which are ties", str(said.identical)),
        ("rows left out", str(said.left_out)),
    ]
    if said.position_bias is not None and said.inconsistent is not None:
        bias = said.position_bias
        lines += [
            (
                "position bias (0: none, 0.5: always the first)",
                f"{bias.value:+.3f} [{bias.low:+.3f}, {bias.high:+.3f}]",
            ),
            ("rows judged otherwise in the other order", f"{said.inconsistent:.1%}"),
        ]
    if said.kind == "judge":
        spelled = f"{said.questions}, {said.failed}, {said.unreadable}"
        lines.append(("questions, failed, unreadable", spelled))
    if said.agreement is not None:
        lines.append(("agreement of people (kappa)", f"{said.agreement:.2f}"))
    return lines
