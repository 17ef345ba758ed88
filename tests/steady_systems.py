"""Systems that said the same when they were asked again, without which the gate promotes nothing."""

from tasks.contracts.artifacts import Served

STEADY = {name: Served(100_000_000, 1.0, 1.0, 8, 0, {}) for name in ("base", "champion", "candidate")}
