"""Rows are divided among processes evenly and alike, and the end of one process is explained by what ended it."""

import itertools
import json
import random
import signal

import pytest

from tasks.contracts.training_config import TrainingSection
from tasks.training.adapter import TrainingJob, takes_several_processes
from tasks.training.distributed.group import ALONE, Group, _buckets
from tasks.training.distributed.joining import LOST_PEER, lost_a_peer
from tasks.training.distributed.launch import Machines, arguments, explain_ends
from tasks.training.distributed.shares import passes, shares_of
from tasks.training.loop.batches import micro_batches


def test_every_row_is_one_process_s_and_the_tokens_are_about_as_many():
    draw = random.Random(3)
    lengths = [draw.randint(5, 400) for _ in range(64)]
    shares = shares_of(range(64), lengths, 4)
    assert sorted(itertools.chain.from_iterable(shares)) == list(range(64))
    tokens = [sum(lengths[row] for row in share) for share in shares]
    assert max(tokens) < 1.02 * min(tokens)


def test_one_process_takes_the_rows_as_they_are():
    assert shares_of([5, 2, 9], [0] * 10, 1) == [[5, 2, 9]]


def test_fewer_rows_than_processes_leave_some_without():
    assert shares_of([4], [7] * 5, 3) == [[4], [], []]


def test_sharded_processes_call_the_model_equally_often_and_repetitions_count_nothing():
    lengths = [100, 1, 1, 1]
    parts = [micro_batches(share, lengths, 1) for share in shares_of(range(4), lengths, 2)]
    assert [len(share) for share in parts] == [1, 3]
    taken = [passes(parts, lengths, Group(rank=rank, size=2, sharded=True)) for rank in range(2)]
    assert taken == [[([0], 1.0), ([1], 0.0), ([1], 0.0)], [([1], 1.0), ([2], 1.0), ([3], 1.0)]]
    assert passes(parts, lengths, Group(rank=0, size=2)) == [([0], 1.0)]


def test_turns_are_as_many_for_every_process_and_count_each_thing_once():
    turns = [list(Group(rank=rank, size=3).turns(7)) for rank in range(3)]
    assert {len(own) for own in turns} == {3}
    assert sorted(number for own in turns for number, counts in own if counts) == list(range(7))
    assert list(ALONE.turns(3)) == [(0, True), (1, True), (2, True)]


def test_gradients_travel_in_few_messages_that_keep_their_order():
    import torch

    tensors = [torch.zeros(5_000_000) for _ in range(9)]  # 20 MB each
    buckets = list(_buckets(tensors))
    assert [len(bucket) for bucket in buckets] == [3, 3, 3]
    assert [id(tensor) for bucket in buckets for tensor in bucket] == [id(tensor) for tensor in tensors]


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ([(9, 0, LOST_PEER), (9, 1, -signal.SIGKILL)], r"process 1 of 2 was killed \(SIGKILL\), .*memory ran out"),
        ([(9, 0, -signal.SIGTERM), (9, 1, -signal.SIGSEGV)], "process 1 of 2 was ended by SIGSEGV"),
        ([(7, 1, 3), (37, 0, -signal.SIGKILL)], "process 1 of 2 ended with status 3"),
        ([(9, 0, LOST_PEER), (9, 1, LOST_PEER)], "the connection to the processes on another machine was lost"),
        ([(9, 0, LOST_PEER), (9, 1, -signal.SIGTERM)], "process 1 of 2 was ended by SIGTERM"),
    ],
)
def test_the_process_is_named_whose_end_ended_the_others(ends, said):
    import re

    assert re.match(said, explain_ends(ends, 2))


def test_only_errors_about_the_connection_are_another_process_s():
    gone = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:550] Connection closed by peer [::1]:9")
    assert lost_a_peer(gone)
    assert not lost_a_peer(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not lost_a_peer(ValueError("gloo"))


@pytest.mark.parametrize(
    ("settings", "gpus", "several"),
    [
        ({}, 0, False),
        ({}, 1, False),
        ({}, 2, True),
        ({"device": "cpu"}, 2, False),
        ({"processes": 1}, 2, False),
        ({"processes": 2}, 0, True),
        ({"processes": 1, "nodes": 2, "main_address": "10.0.0.1"}, 1, True),
        ({"nodes": 2, "main_address": "10.0.0.1", "device": "cpu"}, 0, True),
    ],
)
def test_a_launcher_is_started_only_for_several_processes(settings, gpus, several, monkeypatch):
    monkeypatch.setattr("tasks.training.adapter.gpus_at_hand", lambda: gpus)
    assert takes_several_processes(TrainingSection(**settings)) is several


def test_accelerate_understands_what_it_is_started_with(tmp_path):
    from accelerate.commands.launch import launch_command_parser

    machines = Machines(processes=4, nodes=2, node=1, address="10.0.0.1", port=29_500, on_cpu=False)
    parsed = launch_command_parser().parse_args(arguments(machines, tmp_path / "order.json", tmp_path / "a.json"))
    assert (parsed.num_processes, parsed.num_machines, parsed.machine_rank) == (8, 2, 1)
    assert (parsed.main_process_ip, parsed.main_process_port) == ("10.0.0.1", 29_500)
    assert parsed.module
    assert (parsed.training_script, parsed.training_script_args) == (
        "tasks.training.process",
        [str(tmp_path / "order.json")],
    )


REFUSED = [
    ({"sharding": "fsdp", "processes": 1}, "expected several processes"),
    ({"sharding": "fsdp", "method": "qlora"}, "packed 4-bit weights"),
    ({"sharding": "fsdp", "method": "prefix"}, "trains little beside"),
    ({"sharding": "fsdp", "method": "lora_prefix"}, "trains little beside"),
    ({"sharding": "fsdp", "method": "pissa"}, "difference of whole matrices"),
    ({"sharding": "fsdp", "new_tokens": ["⟦"]}, "single rows of a matrix"),
    ({"sharding": "fsdp", "precision": "fp16"}, "loss scaling"),
    ({"sharding": "fsdp", "method": "full", "replay": "01234567", "ewc_weight": 1}, "copy of the weights"),
    ({"nodes": 2}, "expected an address"),
    ({"main_address": "10.0.0.1"}, "expected an address"),
    ({"processes": 16}, "training.batch_rows is 8"),
    ({"processes": 3, "nodes": 3, "main_address": "10.0.0.1"}, "training.batch_rows is 8"),
]


@pytest.mark.parametrize(("settings", "reason"), REFUSED, ids=[json.dumps(settings) for settings, _ in REFUSED])
def test_what_several_processes_cannot_do_is_refused_with_a_reason(settings, reason):
    with pytest.raises(ValueError, match=reason):
        TrainingSection(**settings)


def test_a_run_may_go_on_with_another_number_of_processes(tmp_path):
    from tasks.contracts.artifacts import BaseModelRef, DatasetRef

    (tmp_path / "train.jsonl").write_text("{}\n")
    base = BaseModelRef(tmp_path, "base", "dir:tiny")
    rows = DatasetRef(tmp_path, "rows", rows_read=1, train_rows=1, eval_rows=0, rejected={}, eval_digest="none")
    several = {"processes": 2, "sharding": "fsdp", "nodes": 2, "main_address": "10.0.0.1", "main_port": 3_000}
    one, many = (TrainingJob(base, rows, TrainingSection(**settings)) for settings in ({}, several))
    assert one.store_inputs() == many.store_inputs()
