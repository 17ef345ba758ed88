"""ONNX Runtime: greedy decoding of the model in `genai/`, of one conversation or of many together."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from .batch import Answering, Batch, Prompts, Scoring
from .decoder import Decoder
from .prompt import Answer, Likelihood, PromptFormat


class Engine:
    """One loaded model. Not to be called from two threads at once."""

    def __init__(self, directory: Path, threads: int = 0) -> None:
        """Load the model of a Triton version directory.

        Args:
            directory: holds servable.json, tokenizer.json and genai/.
            threads: threads of one operator; 0 takes every processor that this process may use.
        """
        self._format = PromptFormat(directory)
        self._decoder = Decoder(directory / "genai", threads)

    def generate(self, messages: list[dict[str, str]], max_new_tokens: int | None = None) -> Answer:
        """Answer one conversation.

        Raises:
            ValueError: the conversation does not fit the template or the context.
        """
        prompt, limit = self._format.encode(messages, max_new_tokens)
        answering = Answering(0, prompt, limit, self._format.stop_token_ids)
        cache = self._decoder.cache(1, len(prompt) + limit)
        answering.take(self._decoder.step([prompt], [0], cache)[0])
        while not answering.is_done:
            answering.take(self._decoder.step([[answering.next_token]], [answering.length], cache)[0])
        return self._answer(answering)

    def generate_many(
        self,
        conversations: Sequence[list[dict[str, str]]],
        references: Sequence[str] = (),
        max_new_tokens: int | None = None,
    ) -> Iterator[tuple[int, Answer, Likelihood | None]]:
        """Answer many conversations as `generate` answers each, and say how likely each reference is.

        Sequences of any lengths are decoded together, and one that ends makes room for the next. What a prompt has in
        common with the one before it is read once; they are sorted so that this is much. Of a reference for which the
        context has no room, the part that fits is scored.

        Args:
            conversations: what is asked.
            references: what should be answered, to each; or none.
            max_new_tokens: the longest answer; the model's own limit if there is none.

        Yields:
            A conversation's position, its answer, and the likelihood of its reference if there are references; in the
            order in which they are done.

        Raises:
            ValueError: a conversation does not fit the template or the context.
        """
        encoded = [self._format.encode(messages, max_new_tokens) for messages in conversations]
        scored = {
            position: self._format.encode_answer(messages, reference)
            for position, (messages, reference) in enumerate(zip(conversations, references, strict=False))
        }
        needs = [len(prompt) + max(limit, len(scored.get(place, ()))) for place, (prompt, limit) in enumerate(encoded)]
        room = min(max(needs), self._format.context_tokens)
        waiting = sorted(range(len(encoded)), key=lambda position: encoded[position][0], reverse=True)
        prompts = Prompts(self._decoder, room)
        batch = Batch(self._decoder, room, len(encoded) + len(scored))
        answers: dict[int, Answer] = {}
        likelihoods: dict[int, Likelihood] = {}
        while waiting or batch:
            while waiting and batch.has_room(2 if scored else 1):
                position = waiting.pop()
                prompt, limit = encoded[position]
                batch.add(Answering(position, prompt, limit, self._format.stop_token_ids), prompts)
                if position in scored:
                    batch.add(Scoring(position, prompt, scored[position][: room - len(prompt)]), prompts)
            for done in batch.step():
                if isinstance(done, Answering):
                    answers[done.position] = self._answer(done)
                elif isinstance(done, Scoring):
                    likelihoods[done.position] = done.likelihood
                if done.position in answers and (done.position in likelihoods) == (done.position in scored):
                    yield done.position, answers[done.position], likelihoods.get(done.position)

    def _answer(self, done: Answering) -> Answer:
        return self._format.answer(len(done.prompt), done.new_tokens, done.stopped)
