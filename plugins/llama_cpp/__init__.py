"""The provider ``local``: GGUF models in llama.cpp.

::

    provider.py   the provider: models, the queue, streaming, cancelling
    engine.py     one loaded model behind a small interface; the only module that imports llama_cpp
    asked.py      a request's parameters, checked (pure)
    pieces.py     token bytes to text that may be shown: whole characters, stop strings (pure)
    header.py     the few facts of a GGUF header that are needed before loading
    files.py      which files are models
"""
