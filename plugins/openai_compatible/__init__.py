"""Hosts that speak OpenAI's wire format, many in one process.

::

    provider.py   the calls of one host: chat, completions, embeddings, streams
    host.py       its settings, key, state and model list
    upstream.py   the HTTP side: one connector, one session for each host, what each failure proves about "sent"
    answers.py    the body of a finished answer, the events of a stream
    relay.py      one stream, passed on
    sse.py        bytes to events (pure)
    usage.py      usage figures of an answer (pure)
    catalogue.py  model lists (pure)
    headers.py    rate-limit headers to observations (pure)
    hints.py      when to try again (pure)
    classify.py   an error status and its body to a typed failure (pure)
    text.py       upstream text made fit for messages and logs (pure)
"""
