"""ONNX Runtime GenAI: greedy decoding of the model in `genai/`."""

import json
import os
from pathlib import Path
from typing import Any

import onnxruntime_genai as og

from .prompt import Answer, PromptFormat


class Engine:
    """One loaded model. Not to be called from two threads at once."""

    def __init__(self, directory: Path, threads: int = 0) -> None:
        """Load the model of a Triton version directory.

        Args:
            directory: holds servable.json, tokenizer.json and genai/.
            threads: threads of one operator; 0 takes every processor that this process may use.
        """
        self._format = PromptFormat(directory)
        config = og.Config(str(directory / "genai"))
        # The runtime ends a sequence by itself at its own end tokens; they must be the ones the servable declares.
        settings: dict[str, Any] = {"eos_token_id": sorted(self._format.stop_token_ids)}
        # The runtime's own choice counts physical cores and took one of two here.
        threads = threads or len(os.sched_getaffinity(0))
        settings["decoder"] = {"session_options": {"intra_op_num_threads": threads}}
        config.overlay(json.dumps({"model": settings}))
        self._model = og.Model(config)

    def generate(self, messages: list[dict[str, str]], max_new_tokens: int | None = None) -> Answer:
        """Answer one conversation.

        One sequence at a time: in a padded batch the attention kernels round differently, and 44 of 64 greedy
        answers changed.

        Raises:
            ValueError: the conversation does not fit the template or the context.
        """
        prompt, limit = self._format.encode(messages, max_new_tokens)
        parameters = og.GeneratorParams(self._model)
        # The model's own generation defaults may sample or penalise; evaluation and serving are plain greedy.
        parameters.set_search_options(
            max_length=len(prompt) + limit,
            batch_size=1,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            min_length=0,
        )
        generator = og.Generator(self._model, parameters)
        generator.append_tokens(prompt)
        new_tokens: list[int] = []
        stopped = False
        while len(new_tokens) < limit and not stopped:
            generator.generate_next_token()
            token = int(generator.get_next_tokens()[0])
            stopped = token in self._format.stop_token_ids
            if not stopped:
                new_tokens.append(token)
        return self._format.answer(len(prompt), new_tokens, stopped)
