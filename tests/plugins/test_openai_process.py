"""``python -m plugins.openai_compatible`` as the supervisor starts it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.fakes.upstream import SENTENCE, FakeUpstream, InProcessUpstream, rule
from tests.plugins.support import chat, plugin_process, text_of

MODULE = "plugins.openai_compatible"
KEY = "canary-7f3a9c1e5b"


def host(fake: Any, **more: Any) -> dict[str, Any]:
    return {"base_url": fake.base_url, "models": {"m1": {"context": 8192}}, **more}


async def test_many_hosts_in_one_process(tmp_path: Path) -> None:
    """One process serves several hosts: each is registered, called, streamed and probed under its own name."""
    async with InProcessUpstream() as one, InProcessUpstream() as two:
        two.script([rule({"content": "from the other"})])
        async with plugin_process(MODULE, {"one": host(one), "two": host(two)}, tmp_path) as daemon:
            assert {name: told.get("state", "ready") for name, told in daemon.registered.items()} == {
                "one": "ready", "two": "ready",
            }  # fmt: skip
            assert daemon.registered["one"]["models"][0]["context"] == 8192
            answers = await asyncio.gather(
                *(daemon.ask("generate", name, chat()) for name in ("one", "two") for _ in range(20))
            )
            said = [answer["result"]["body"]["choices"][0]["message"]["content"] for answer in answers]
            assert said == [SENTENCE] * 20 + ["from the other"] * 20
            assert all(answer["result"]["usage"]["inputTokens"] == 2 for answer in answers)
            number, future = daemon.start("generate", "two", chat(stream=True), stream=True)
            result = (await asyncio.wait_for(future, 10))["result"]
            assert text_of(daemon.events[number]) == "from the other"
            assert "body" not in result
            assert (await daemon.ask("probe", "one"))["result"].get("ok", True)
        assert daemon.process.returncode == 0
        assert daemon.stderr == b""


async def test_keys_never_leave_the_plugin(tmp_path: Path) -> None:
    """A host that echoes the key in errors of every form finds no way to our messages, logs or standard error."""
    echo = {"error": {"message": f"bad key {KEY}", "code": KEY, "type": KEY, "param": KEY}}
    behaviours: list[dict[str, Any]] = [
        {"status": 401, "body": echo},
        {"status": 500, "body": f"<title>{KEY}</title>", "headers": {"content-type": "text/html"}},
        {"status": 200, "body": echo},
        {"status": 403, "body": "", "headers": {"sunset": KEY}},
        {"status": 302, "redirect": f"http://127.0.0.1:1/{KEY}"},
        {"body": f"{KEY} is no JSON"},
        {"sse_error_midstream": echo["error"]},
    ]
    async with InProcessUpstream() as fake:
        settings = host(fake, api_key={"env": "LAB_KEY"}, options={"list_models": True})
        fake.script([rule({"status": 401, "body": echo}, path="/v1/models")])
        async with plugin_process(MODULE, {"lab": settings}, tmp_path, env={"LAB_KEY": KEY}) as daemon:
            answers: list[Any] = []
            for behaviour in behaviours:
                fake.script([rule(behaviour)])
                for streaming in (False, True):
                    answers.append(await daemon.ask("generate", "lab", chat(stream=streaming), stream=streaming))
            answers.append(await daemon.ask("probe", "lab"))
            assert fake.log()[0].authorization is not None
        said = json.dumps([answers, daemon.notes, daemon.events, daemon.registered]) + daemon.stderr.decode()
        assert KEY not in said
        assert sum("error" in answer for answer in answers) >= 12


async def test_cancel_reaches_the_upstream(tmp_path: Path) -> None:
    """The daemon's cancel ends the upstream connection and is answered once, as cancelled."""
    async with InProcessUpstream() as fake:
        fake.script([rule({"hang": True})])
        async with plugin_process(MODULE, {"lab": host(fake)}, tmp_path) as daemon:
            number, future = daemon.start("generate", "lab", chat())
            await fake.wait_async(arrivals=1)
            await daemon.cancel(number)
            answer = await asyncio.wait_for(future, 5)
            assert answer["error"]["data"]["kind"] == "cancelled"
            await fake.wait_async(arrivals=1, finished=1)


async def test_unconfigured_beside_configured(tmp_path: Path) -> None:
    """A host without its key is registered as such and does not stop its neighbours; a dead host is degraded."""
    gone = FakeUpstream()
    gone.start()
    dead = gone.base_url
    gone.stop()
    async with InProcessUpstream() as fake:
        providers = {
            "keyless": host(fake, api_key={"env": "NO_SUCH_KEY_HERE"}),
            "dead": {"base_url": dead},
            "lab": host(fake),
        }
        async with plugin_process(MODULE, providers, tmp_path) as daemon:
            assert daemon.registered["keyless"]["state"] == "not_configured"
            assert "NO_SUCH_KEY_HERE" in daemon.registered["keyless"]["reason"]
            assert daemon.registered["dead"]["state"] == "degraded"
            assert "result" in await daemon.ask("generate", "lab", chat())
