"""A run against servers is the run that their model makes in process."""

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tests.conftest import Ran
from tests.fake_server import Event, FakeServer, Token, Wire, chunk_of, serving, usage_of

import treeward as library
from treeward.search.models import NANO, resolve_model
from treeward.search.policy import Ask, Mode, PolicySettings
from treeward.search.requests import Kind
from treeward.search.sampling import draw_tokens, uniforms
from treeward.search.steps import StepRule
from treeward.search.tokens import load_tokens
from treeward.search.transformers_policy import TransformersPolicy, TransformersSettings

FOLDER = resolve_model(NANO, Path("unused")).path
TOKENS = load_tokens(FOLDER)
PROBLEMS = "task:arithmetic?n=3&seed=5"
SMALL = ["--set", "search.simulations=3", "--set", "search.width=2", "--set", "search.rollouts=3"]
UNENDING = StepRule(delimiter="no text of nano's has this")


class NanoServer:
    """Serves nano as a server that knows nothing of steps; the engine in process draws.

    It hangs up on one call in twenty.
    """

    def __init__(self) -> None:
        settings = TransformersSettings(mode=Mode.DETERMINISTIC, slots=8)
        self.policy = TransformersPolicy(FOLDER, "f", settings)
        auto: Any = transformers.AutoModelForCausalLM
        self.model = auto.from_pretrained(FOLDER, dtype=torch.float32)
        self.rng = random.Random(0)

    async def reply(self, body: Event, wire: Wire) -> None:
        is_probe = "stop" not in body
        if not is_probe and self.rng.random() < 0.05:
            await wire.break_off()
            return
        ids = self._ids(body) if is_probe else await self._engine_ids(body)
        drawn, best = self._scored(body["prompt"], ids)
        await wire.begin()
        for place, (token, largest) in enumerate(zip(drawn, best, strict=True)):
            text = TOKENS.text_of(ids[: place + 1])
            ended = token[0] in body.get("stop_token_ids", [])
            stopped = ended or any(stop in text for stop in body.get("stop", []))
            reason = "stop" if stopped else "length" if place + 1 == body["max_tokens"] else None
            await wire.event(chunk_of(body, place, [token], reason, largest))
            if reason is not None:
                await wire.event({"choices": [], "usage": usage_of(body, place + 1)})
                break
        await wire.event("[DONE]")
        await wire.end()

    async def _engine_ids(self, body: Event) -> tuple[int, ...]:
        n = body["max_tokens"]
        ask = Ask(
            prompt_ids=tuple(body["prompt"]),
            prefix_ids=(),
            kind=Kind.ROLLOUT,
            seeds=(body["seed"],),
            settings=PolicySettings(
                temperature=body["temperature"],
                top_p=body["top_p"],
                max_step_tokens=n,
                max_rollout_tokens=n,
            ),
            rule=UNENDING,
            stick_to="",
        )
        (draw,) = await self.policy.draw(ask)
        return draw.token_ids

    @torch.inference_mode()
    def _ids(self, body: Event) -> tuple[int, ...]:
        """Draws past any end, as the probe asks for."""
        ids: list[int] = list(body["prompt"])
        for place in range(body["max_tokens"]):
            seed, at = np.array([body["seed"]], np.uint64), np.array([place], np.uint64)
            logits = self.model(torch.tensor([ids])).logits[:, -1]
            sampler = {name: body[name] for name in ("temperature", "top_p")}
            ids += draw_tokens(logits, uniforms(seed, at), **sampler)[0]
        return tuple(ids[len(body["prompt"]) :])

    @torch.inference_mode()
    def _scored(self, prompt: list[int], ids: tuple[int, ...]) -> tuple[list[Token], list[float]]:
        logits = self.model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
        logprobs = torch.log_softmax(logits, dim=-1)
        chosen = logprobs.gather(-1, torch.tensor(ids)[:, None])[:, 0]
        return list(zip(ids, chosen.tolist(), strict=True)), logprobs.amax(dim=-1).tolist()


NODES = """SELECT problem_id, node_id, parent_id, token_ids, n_samples, n_right, n_rollouts,
    n_unknown, value, verdict, verdict_reason, finish_reason, visits FROM nodes ORDER BY ALL"""
ROLLOUTS = """SELECT problem_id, node_id, rollout_id, token_ids, verdict, verdict_reason,
    evidence_from, rollouts.seed FROM rollouts JOIN trees USING (tree_id) ORDER BY ALL"""
LOGPROBS = """SELECT logprob FROM (
    SELECT problem_id, 'node' AS kind, node_id AS id, logprob FROM nodes UNION ALL
    SELECT problem_id, 'rollout', rollout_id, rollouts.logprob
    FROM rollouts JOIN trees USING (tree_id)) ORDER BY problem_id, kind, id"""


def rows(run: Path, statement: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = library.open_run(run).sql(statement).to_pylist()
    return found


@pytest.fixture
def nano() -> Iterator[NanoServer]:
    server = NanoServer()
    yield server
    asyncio.run(server.policy.close())


def test_a_run_against_servers_has_the_evidence_of_one_in_process(
    treeward: Callable[..., Ran],
    tmp_path: Path,
    nano: NanoServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One of the servers is not there."""
    card = {"id": str(FOLDER), "root": str(FOLDER), "max_model_len": 512}
    servers = [FakeServer(nano.reply, card, TOKENS.encode) for _ in range(3)]
    here, there = tmp_path / "here", tmp_path / "there"
    command = ["generate", PROBLEMS, *SMALL, "--out"]
    with serving(*servers):
        urls = [server.url for server in servers]
        asked = ["--policy", ",".join(["http://127.0.0.1:9/v1", *urls[:2]]), "--model", FOLDER]
        ran = treeward(*command, there, *asked)
        assert ran.code == 0, ran.err
        assert "http://127.0.0.1:9/v1: cannot be reached" in caplog.text
        # The same run on another server of the same model has nothing left to do.
        again = treeward(*command, there, "--policy", urls[2], "--json")
        assert again.code == 0, again.err
        assert '"grown": 0' in again.out
        servers[2].card = card | {"root": "/another"}
        assert treeward(*command, there, "--policy", urls[2]).code == 3
    assert treeward(*command, here, "--set", "backend.slots=8").code == 0
    assert rows(there, NODES) == rows(here, NODES)
    assert rows(there, ROLLOUTS) == rows(here, ROLLOUTS)
    got, want = ([row["logprob"] for row in rows(run, LOGPROBS)] for run in (there, here))
    assert got == pytest.approx(want, abs=1e-4)
    assert all(len(server.bodies) > 20 for server in servers[:2])


def test_an_evaluation_against_servers_is_the_one_in_process(
    treeward: Callable[..., Ran], nano: NanoServer
) -> None:
    card = {"id": str(FOLDER), "root": str(FOLDER), "max_model_len": 512}
    server = FakeServer(nano.reply, card, TOKENS.encode)
    asked = [PROBLEMS, "--samples", "3", "--json", "--backend"]
    with serving(server):
        there = treeward("eval", "policy", server.url, *asked, "http")
        cold = ["http", "--set", "policy.temperature=1e-6"]
        refused = treeward("eval", "policy", server.url, *asked, *cold)
    here = treeward("eval", "policy", "nano", *asked, "transformers", "--set", "backend.slots=8")
    assert there.code == here.code == 0, there.err + here.err
    assert json.loads(there.out)["problems"] == json.loads(here.out)["problems"]
    assert refused.code == 2
    assert "policy.temperature must be from 0.01 to 2.0 with vLLM, got 1e-06" in refused.err
