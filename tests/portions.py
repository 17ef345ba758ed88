"""What one process runs as a whole when several run tests, and which of these portions begin."""

LONGEST_FIRST = (
    "integration/test_the_loop.py",
    "integration/test_memory_estimate.py",
    "integration/test_mlflow_faults.py",
    "integration/test_services.py",
    "integration/test_approval.py",
    "integration/test_without_triton.py",
    "integration/test_judge_in_the_loop.py",
    "integration/test_interrupted_commands.py",
    "integration/test_rollout_contest.py",
    "integration/test_real_model.py",
    "integration/test_killed_registration.py",
    "integration/test_sweep.py",
    "integration/test_rollout_undo.py",
    "integration/test_rollback.py",
    "integration/test_training_process.py",
    "integration/test_training_processes.py",
    "integration/test_training_methods.py",
    "integration/test_long_runs.py",
    "integration/test_generation_through_triton.py",
    "integration/test_new_tokens.py",
    "integration/test_servable_build.py",
    "integration/test_data_clusters.py",
    "integration/test_triton_serving.py",
    "integration/test_many_at_once.py",
    "integration/test_sources_postgresql.py",
    "integration/test_sources_s3.py",
    "unit/flows",
    "unit/training",
    "unit/data",
    "unit/data/sources",
    "unit/evaluation",
    "unit/data/cleaning",
    "unit/monitoring",
)
"""From minutes to seconds; what is not here is short. `pytest --durations=0` says how long each test takes."""


def portion_of(nodeid):
    """Return a file with real servers, or a folder of unit tests: these import the same heavy libraries, so once."""
    file = nodeid.partition("::")[0].removeprefix("tests/")
    return file.rpartition("/")[0] if file.startswith("unit/") else file


def place_in_order(portion):
    """Return what portions are sorted by: real servers before unit tests, and of each the longest at the beginning."""
    place = LONGEST_FIRST.index(portion) if portion in LONGEST_FIRST else len(LONGEST_FIRST)
    return portion.startswith("unit"), place
