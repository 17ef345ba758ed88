"""transformers: greedy decoding of the safetensors model in `hf/`, the reference that other engines are held to."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from .prompt import Answer, Likelihood, PromptFormat

try:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, DynamicCache, GenerationConfig
except ImportError as error:
    raise ImportError(
        f"the transformers engine needs torch and transformers in the serving environment ({error}); "
        "install them there or set serving.engine to onnx"
    ) from error


class Engine:
    """One loaded model. Not to be called from two threads at once."""

    def __init__(self, directory: Path, threads: int = 0) -> None:
        """Load the model of a Triton version directory, on a GPU if there is one.

        Args:
            directory: holds servable.json, tokenizer.json and hf/.
            threads: threads of this process on the CPU; 0 leaves the choice to torch.
        """
        self._format = PromptFormat(directory)
        for function in (torch.cos, torch.sin, torch.exp):  # oneMKL's first call is to be one thread's (DECISIONS.md)
            function(torch.ones(1))
        if threads:
            torch.set_num_threads(threads)
        model = AutoModelForCausalLM.from_pretrained(
            directory / "hf", local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype="auto"
        )
        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        # The model's own generation defaults may sample or penalise; evaluation and serving are plain greedy.
        self._stop_token_ids = sorted(self._format.stop_token_ids)
        self._model.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=self._stop_token_ids, pad_token_id=self._stop_token_ids[0]
        )

        self._prefix = self._read_prefix(directory / "hf" / "prefix.safetensors")

    def generate(self, messages: list[dict[str, str]], max_new_tokens: int | None = None) -> Answer:
        """Answer one conversation.

        Raises:
            ValueError: the conversation does not fit the template or the context.
        """
        prompt, limit = self._format.encode(messages, max_new_tokens)
        # Virtual tokens have keys and values and no ids: any id takes their places, and generate passes over them.
        virtual = self._prefix[0][0].shape[2] if self._prefix else 0
        tokens = torch.tensor([[0] * virtual + prompt], device=self._model.device)  # (1, T)
        settings = {"past_key_values": DynamicCache(self._prefix)} if self._prefix else {}
        with torch.inference_mode():
            output = self._model.generate(
                tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=limit, **settings
            )
        new_tokens = output[0, tokens.shape[1] :].tolist()
        stopped = bool(new_tokens) and new_tokens[-1] in self._format.stop_token_ids
        return self._format.answer(len(prompt), new_tokens[:-1] if stopped else new_tokens, stopped)

    def generate_many(
        self,
        conversations: Sequence[list[dict[str, str]]],
        references: Sequence[str] = (),
        max_new_tokens: int | None = None,
    ) -> Iterator[tuple[int, Answer, Likelihood | None]]:
        """Answer many conversations, and say how likely each reference is, if there are references.

        One after the other: in a padded batch of 16-bit numbers the answers are others.

        Yields:
            A conversation's position, its answer, and the likelihood of its reference.

        Raises:
            ValueError: a conversation does not fit the template or the context.
        """
        for position, messages in enumerate(conversations):
            reference = references[position] if references else None
            likelihood = None if reference is None else self._likelihood(messages, reference)
            yield position, self.generate(messages, max_new_tokens), likelihood

    def _likelihood(self, messages: list[dict[str, str]], reference: str) -> Likelihood:
        prompt, _ = self._format.encode(messages)
        target = self._format.encode_answer(messages, reference)[: self._format.context_tokens - len(prompt)]
        settings = {"past_key_values": DynamicCache(self._prefix)} if self._prefix else {}
        tokens = torch.tensor([prompt + target[:-1]], device=self._model.device)  # (1, T)
        with torch.inference_mode():
            logits = self._model(tokens, logits_to_keep=len(target), **settings).logits[0].float()  # (target, V)
        wanted = torch.tensor(target, device=logits.device)
        nats = torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
        return Likelihood(float(nats), len(target), int((logits.argmax(-1) == wanted).sum()))

    def _read_prefix(self, path: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return keys and values of the virtual tokens, a pair a layer; none if there is no such file."""
        if not path.is_file():
            return []
        tensors = load_file(path, device=str(self._model.device))
        return [(tensors[f"key.{layer}"], tensors[f"value.{layer}"]) for layer in range(len(tensors) // 2)]
