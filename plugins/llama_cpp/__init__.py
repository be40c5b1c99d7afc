"""The provider ``local``: one GGUF model in llama.cpp, many callers at once.

::

    provider.py    what the daemon talks to: load, register, generate, embed, probe, stop
    answering.py   one request: prompts in, sequences, chunks or a whole answer out
    engine.py      a loaded model with its facts
    scheduler.py   continuous batching: the one thread that computes
      composing.py   the next batch
      batching.py    how a step is shared between prompts (pure)
      admission.py   who gets a slot and cells, who gives them up
      prefix.py      which slot's cells a prompt can go on from (pure)
      sequence.py    one answer on its way, and the channel back to its request
      figures.py     heartbeat, speed, where the time goes
    embeddings.py  the same for models that make vectors
    bindings.py, native.py, context.py, sampling.py
                   llama.cpp itself: library, model, batch and memory, sampler chains; with ``calibrate``, ``dry_run``
                   and ``measure`` the only ones that import llama_cpp or read its log

    asked.py       a request's parameters, checked        (with asked_messages, sampling_params, refuse; pure, as all
    forms.py       how a model writes calls and thoughts   that follow)
    template.py    messages to a prompt, in a sandbox      (with shaping)
    grammar.py     what the answer must look like: GBNF    (with gbnf, gbnf_text, schema, tools)
    choice.py      tokens to content, thoughts, calls      (with pieces, splitter, calls, values, logprobs)
    responses.py   OpenAI's answers and chunks
"""
