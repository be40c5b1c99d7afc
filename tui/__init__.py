"""The dashboard: a Textual application, a client of the daemon's socket and of nothing else.

One subscription to ``/v1/events`` (:mod:`tui.feed`) fills the view-models of :mod:`tui.house`; every screen draws from
them. ``hybridd tui`` and ``python -m tui`` run it.
"""
