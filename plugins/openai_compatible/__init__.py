"""Hosts that speak OpenAI's wire format, many in one process.

::

    provider.py   the calls of one host: chat, completions, embeddings, streams
    host.py       its settings, key, state and model list
    upstream.py   the HTTP side of one host: addresses ready to be asked, what each failure proves about "sent"
    http1.py      one HTTP/1.1 connection: requests out, answers in
    response.py   one answer as its reader sees it; the ways in which an exchange fails
    pool.py       the connections kept for one route
    connect.py    opening one: names, addresses, proxies, TLS
    inflate.py    packed bodies, a piece at a time (pure)
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
