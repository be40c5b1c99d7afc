"""Choosing who answers, and carrying it out.

``request`` parses, ``candidates`` and ``feasible`` decide (pure, over plain values), ``cooldown`` remembers who failed,
``execute`` reserves, dispatches, falls back and settles, ``router`` is the face the API sees.
"""
