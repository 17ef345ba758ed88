"""Plans of trainings on a tiny model, with as much free memory as a test says."""

from tasks.training.loop.examples import Example


def example(tokens, answers):
    """Return a row of so many tokens, some of which are its answer."""
    return Example(tuple(range(3, 3 + tokens - answers)), tuple(range(3, 3 + answers)))


def work(rows=16, tokens=300):
    """Return rows of one length."""
    from tasks.training.plan.plan import Work

    return Work([example(tokens, 40) for _ in range(rows)], rows)


def planner(base, place, free):
    """Return a planner that sees `free` bytes."""
    from tasks.training.plan.plan import Planner

    made = Planner(base, place)
    made._free = free
    return made


def planned(base, place, training, free, rows=None):
    """Return the plan of a training where `free` bytes can be taken."""
    from tasks.training.plan.rehearsal import Rehearsal

    return planner(base, place, free).plan(training, rows or work(), Rehearsal(base, training, place))
