"""A preference in one sentence, for terminals and logs."""

from tasks.contracts.artifacts import Preference


def sentence(preference: Preference) -> str:
    """Say what was found, with its figures."""
    who = "People" if preference.kind == "people" else "The judge"
    by = f"{who} ({', '.join(preference.by)})"
    if preference.problem:
        return f"{by} said nothing that counts: {preference.problem}."
    share, notes = preference.share, []
    if preference.identical:
        notes.append(f"{preference.identical} rows were answered alike and are ties")
    if preference.left_out:
        notes.append(f"{preference.left_out} rows have no verdict and are left out")
    if preference.position_bias is not None and preference.inconsistent is not None:
        bias = preference.position_bias
        notes.append(
            f"position bias {bias.value:+.3f} [{bias.low:+.3f}, {bias.high:+.3f}], "
            f"{preference.inconsistent:.0%} of the rows judged otherwise in the other order"
        )
    if preference.failed or preference.unreadable:
        notes.append(
            f"of {preference.questions} questions {preference.failed} failed, {preference.unreadable} were unreadable"
        )
    if preference.agreement is not None:
        notes.append(f"kappa {preference.agreement:.2f}")
    return (
        f"{by} preferred the candidate to {preference.baseline} on {preference.wins} of {preference.examples} rows, "
        f"lost {preference.losses}, {preference.ties} ties: "
        f"mean {share.value:.3f} [{share.low:.3f}, {share.high:.3f}], "
        f"p {preference.p_better:.2g} of a gain and {preference.p_worse:.2g} of a loss"
        + (f" ({'; '.join(notes)})." if notes else ".")
    )
