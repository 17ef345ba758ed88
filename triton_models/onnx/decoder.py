"""A decoder-only model in ONNX Runtime, with keys and values in buffers that stay where they are.

The graph is the one that ONNX Runtime GenAI's builder makes. Its attention reads each sequence's length from the mask,
so sequences of different lengths stand in one batch, each at the beginning of its own row, and none is padded.

Legend: n sequences, s new tokens of each, V words.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class Cache:
    """Keys and values of up to `slots` sequences of up to `room` tokens: (slots, heads, room, head size) each."""

    def __init__(self, names: list[str], heads: int, size: int, dtype: type, slots: int, room: int) -> None:
        self.slots, self.room = slots, room
        self.buffers = {name: np.zeros((slots, heads, room, size), dtype) for name in names}

    def copy(self, source: "Cache", from_slot: int, to_slot: int, tokens: int) -> None:
        """Take over the first tokens of a sequence of another cache, or of this one."""
        for name, buffer in self.buffers.items():
            buffer[to_slot, :, :tokens] = source.buffers[name][from_slot, :, :tokens]


class Decoder:
    """One session. Not to be called from two threads at once."""

    def __init__(self, directory: Path, threads: int = 0) -> None:
        """Load the model of a directory that the builder made.

        Args:
            directory: holds genai_config.json and the model it names.
            threads: threads of one operator; 0 takes every processor that this process may use.
        """
        config = json.loads((directory / "genai_config.json").read_text(encoding="utf-8"))["model"]["decoder"]
        options = ort.SessionOptions()
        # The runtime's own choice counts physical cores and took one of two here.
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        model = str(directory / config["filename"])
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        layers = range(config["num_hidden_layers"])
        kinds = (("past_key_names", "present_key_names"), ("past_value_names", "present_value_names"))
        self._present = {
            config["inputs"][past] % layer: config["outputs"][present] % layer
            for layer in layers
            for past, present in kinds
        }
        self._heads, self._head_size = int(config["num_key_value_heads"]), int(config["head_size"])
        types = {each.name: each.type for each in self._session.get_inputs()}
        self._dtype = _TYPES[types[next(iter(self._present))]]
        self._takes_positions = "position_ids" in types

    def cache(self, slots: int, room: int) -> Cache:
        """Return empty keys and values."""
        return Cache(list(self._present), self._heads, self._head_size, self._dtype, slots, room)

    @property
    def bytes_a_token(self) -> int:
        """What a token of a sequence takes in a cache."""
        return len(self._present) * self._heads * self._head_size * np.dtype(self._dtype).itemsize

    def step(self, tokens: Sequence[Sequence[int]], lengths: Sequence[int], cache: Cache) -> NDArray[np.float32]:
        """Read new tokens of the first n sequences of a cache, and return what comes next.

        Args:
            tokens: (n, s), as many of each sequence.
            lengths: tokens that each sequence has in the cache already; s of all but one sequence's is 1.
            cache: takes up the new tokens.

        Returns:
            Logits (n, V) after each sequence's last token.
        """
        ids = np.array(tokens, np.int64)
        count, new = ids.shape
        past = np.array(lengths, np.int64)[:, None]
        # 1 for every token that is there with the new ones, so that a row's sum is its length
        mask = (np.arange(int(past.max()) + new) < past + new).astype(np.int64)
        binding = self._session.io_binding()
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("attention_mask", mask)
        if self._takes_positions:
            binding.bind_cpu_input("position_ids", past + np.arange(new))
        for past_name, present_name in self._present.items():
            buffer = cache.buffers[past_name]
            place = ("cpu", 0, self._dtype, [count, *buffer.shape[1:]], buffer.ctypes.data)
            binding.bind_input(past_name, *place)
            binding.bind_output(present_name, *place)
        binding.bind_output("logits", "cpu")
        self._session.run_with_iobinding(binding)
        logits: NDArray[np.float32] = binding.get_outputs()[-1].numpy()[:, -1]  # bound last
        return logits
