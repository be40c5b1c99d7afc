"""How a worker's process comes to be: where room has to be made for its model it is started at once, and waits. An
interpreter with its imports takes longer to come than a worker to leave."""

from __future__ import annotations

import logging
import secrets
import signal

from hybridd.providers.spawn import Child, ProcessPlan, SpawnContext, SpawnFailed, environment, spawn

logger = logging.getLogger("hybridd.local")


class Starter:
    """Of one load. At most one process waits: it has not connected and knows nothing of its model."""

    def __init__(self) -> None:
        self._held: Child | None = None
        self._token = ""
        self._environment: dict[str, str] = {}

    @property
    def holding(self) -> bool:
        return self._held is not None

    async def ahead(self, context: SpawnContext, process: ProcessPlan) -> None:
        """Starts one that waits; of our own programs only, for others may not know how to. What goes wrong here goes
        wrong again, and is told, where it is needed."""
        if self.holding or not _is_ours(process):
            return
        token = secrets.token_urlsafe(32)
        try:
            self._held = await spawn(context, process, token, held=True)
        except SpawnFailed as error:
            logger.info("no process was started ahead: %s", error.message)
            return
        self._token, self._environment = token, environment(context, process, token)

    async def start(self, context: SpawnContext, process: ProcessPlan) -> tuple[Child, str]:
        """A process that connects, and its token: the one that waits, unless it was started for another GPU.

        Raises:
            SpawnFailed: the program does not exist or may not be executed.
        """
        child = self._held
        if child is None or child.exited.done() or environment(context, process, self._token) != self._environment:
            self.drop()
            token = secrets.token_urlsafe(32)
            return await spawn(context, process, token), token
        self._held = None
        child.go()
        return child, self._token

    def drop(self) -> None:
        """Nobody needs the one that waits."""
        child, self._held = self._held, None
        if child is not None:
            child.exited.add_done_callback(lambda _: child.close())
            child.kill(signal.SIGKILL)


def _is_ours(process: ProcessPlan) -> bool:
    return process.command[1:] == ("-m", f"plugins.{process.plugin}")
