"""One request on its way through a text engine: prompts in, sequences, chunks or a whole answer out."""

from __future__ import annotations

import asyncio
import time
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple

from hybridd.plugin import Request, Result, Stream, Usage
from hybridd.plugin.answers import identity
from plugins.llama_cpp import grammar, responses
from plugins.llama_cpp.asked import Asked
from plugins.llama_cpp.choice import Choice
from plugins.llama_cpp.responses import Writer
from plugins.llama_cpp.sequence import Channel, Sequence, seed_for

if TYPE_CHECKING:
    from plugins.llama_cpp.engine import Engine

# Beyond this many bytes a request is prepared in a thread of its own, so that the loop goes on meanwhile.
_LARGE = 32 * 1024


class _Prompt(NamedTuple):
    """``text``: for ``echo``. ``thinking``: it ends inside the model's thoughts. ``grammar`` "": none."""

    tokens: array[int]
    text: str
    thinking: bool
    grammar: str


class Answering:
    """``choices`` answers to each of the prompts, in one stream or one body."""

    def __init__(self, engine: Engine, request: Request, wanted: Asked) -> None:
        self._engine = engine
        self._request = request
        self._asked = wanted
        self._created = int(time.time())
        self._id = identity(request.endpoint, request.id, request.trace_id)
        self._sequences: list[Sequence] = []
        self._choices: list[Choice] = []
        self._prompts: list[_Prompt] = []

    async def run(self, stream: Stream) -> Result:
        """Raises CallFailure: nothing was computed (``sent="no"``), or the engine failed."""
        engine, asked = self._engine, self._asked
        assert engine.scheduler is not None
        large = len(self._request.raw) > _LARGE
        self._prompts = await asyncio.to_thread(self._prepare) if large else self._prepare()
        writer = self._writer() if self._request.stream else None
        channel = Channel(asyncio.get_running_loop(), len(self._prompts) * asked.choices)
        for prompt in self._prompts:
            self._add(prompt, channel, writer)
        engine.scheduler.submit(self._sequences)
        try:
            while chunks := await channel.take():
                await stream.send(*chunks)
        finally:
            engine.scheduler.cancel(self._sequences)
        if writer is not None and asked.include_usage:
            await stream.send(writer.usage(self._usage(), self._extra(self._first)))
        return self._result(writer is None)

    @property
    def _first(self) -> Sequence:
        return self._sequences[0]

    def _writer(self) -> Writer:
        return Writer(
            answer_id=self._id, model=self._request.model, created=self._created,
            chat=self._asked.messages is not None,
        )  # fmt: skip

    def _prepare(self) -> list[_Prompt]:
        engine, asked = self._engine, self._asked
        template = engine.template
        assert template is not None
        if asked.messages is not None:
            tools = asked.tools if asked.tool_choice != "none" else ()
            text = template.render(
                asked.messages, tools=tools, values=asked.template_values,
                add_generation_prompt=asked.add_generation_prompt,
            )  # fmt: skip
            thinking = template.thinking(text)
            rules = grammar.compile(asked, template.form, thinking=thinking) or ""
            made = [_Prompt(engine.chat_tokens(text), text, thinking, rules)]
        else:
            rules = grammar.compile(asked, template.form) or ""
            made = [self._plain(prompt, rules) for prompt in asked.prompts]
        where = "messages" if asked.messages is not None else "prompt"
        for prompt in made:
            engine.check_length(len(prompt.tokens), where, 1)
        return made

    def _plain(self, prompt: str | tuple[int, ...], rules: str) -> _Prompt:
        engine = self._engine
        if isinstance(prompt, str):
            return _Prompt(engine.text_tokens(prompt), prompt, False, rules)
        tokens = engine.given_tokens(prompt, "prompt")
        return _Prompt(tokens, engine.text_of(tokens) if self._asked.echo else "", False, rules)

    def _add(self, prompt: _Prompt, channel: Channel, writer: Writer | None) -> None:
        asked, template = self._asked, self._engine.template
        assert template is not None
        leader: Sequence | None = None
        room = self._engine.room - len(prompt.tokens)
        for number in range(asked.choices):
            choice = Choice(
                asked, len(self._choices), writer=writer, form=template.form, thinking=prompt.thinking,
                prompt=prompt.text,
            )  # fmt: skip
            sequence = Sequence(
                prompt.tokens, choice=choice, channel=channel, sampling=asked.sampling,
                seed=seed_for(asked.sampling, number), limit=min(room, asked.max_tokens or room),
                grammar=prompt.grammar, logprobs=asked.logprobs, cache=asked.cache_prompt,
                timed=asked.timings_per_token, leader=leader, closing=self._extra,
            )  # fmt: skip
            leader = leader or sequence
            self._choices.append(choice)
            self._sequences.append(sequence)

    def _extra(self, sequence: Sequence) -> dict[str, Any]:
        """What the end of each answer says of how it was made."""
        return {"timings": sequence.timings().body(), "local": self._engine.local.body(self._asked.ignored)}

    def _usage(self) -> dict[str, Any]:
        return responses.usage(
            sum(len(prompt.tokens) for prompt in self._prompts),
            sum(sequence.produced for sequence in self._sequences),
            sum(one.reused for one in self._sequences if one.leader is None),
            sum(choice.reasoning_tokens for choice in self._choices),
        )

    def _result(self, whole: bool) -> Result:
        usage, extra = self._usage(), self._extra(self._first)
        body = None
        if whole:
            body = responses.whole(
                [choice.body() for choice in self._choices], answer_id=self._id, model=self._request.model,
                created=self._created, chat=self._asked.messages is not None, usage=usage, extra=extra,
            )  # fmt: skip
        first = min((one.first_at for one in self._sequences if one.first_at), default=0.0)
        asked_at, ended_at = self._first.asked_at, max(one.ended_at for one in self._sequences)
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        return Result(
            body,
            usage=Usage(
                input_tokens=usage["prompt_tokens"], output_tokens=usage["completion_tokens"],
                cached_input_tokens=cached,
            ),
            upstream_ms=(ended_at - asked_at) * 1000,
            first_byte_ms=(first - asked_at) * 1000 if first else None,
            details={**extra, "max_tokens": self._first.limit},
        )  # fmt: skip
