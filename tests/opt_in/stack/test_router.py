"""The real LiteLLM, with the configuration that llmops renders, in front of engines as local processes."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest
from llmops_sandbox.engine.process import EngineProcess
from llmops_sandbox.programs.litellm import LiteLlm
from llmops_sandbox.standins.weights import make_model

from llmops.config.catalog.spec import SecretKey
from llmops.config.tenants import Tenant
from llmops.manifests.router.llmops_tracks import SLACK, TOLERANCE
from llmops.manifests.router.plan import Serving
from tests.opt_in.stack.proxy import MASTER, Proxy, bearer, release, running, spec

pytestmark = pytest.mark.timeout(900)

ENGINE_KEY, PROVIDER_KEY = "engine-secret", "provider-secret"
ENGINES = {"alpha": "", "alpha-canary": "", "beta": ENGINE_KEY, "provider": PROVIDER_KEY, "doomed": ""}


class Engines:
    """One engine for each served name."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        model = make_model(
            folder / "model", size_bytes=1 << 16, suites_dir=None, ttft_ms=5, ttft_jitter_ms=0, tokens_per_second=200
        )
        self.processes: dict[str, EngineProcess] = {}
        for name, key in ENGINES.items():
            flags = ["--served-model-name", name.removesuffix("-canary"), "--max-model-len", "1024"]
            engine = EngineProcess(
                model, flags, log=folder / name, env={"VLLM_API_KEY": key} if key else {}, ready_seconds=60
            )
            self.processes[name] = stack.enter_context(engine)
        self.addresses = {name: f"127.0.0.1:{engine.port}" for name, engine in self.processes.items()}

    def requests(self, name: str) -> int:
        """The number of completions that it has answered."""
        text = httpx2.get(f"{self.processes[name].url}/metrics").text
        lines = (line for line in text.splitlines() if line.startswith("vllm:request_success_total"))
        return round(sum(float(line.rpartition(" ")[2]) for line in lines))


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Generator[Engines]:
    with ExitStack() as stack:
        yield Engines(tmp_path_factory.mktemp("engines"), stack)


def tenant(name: str, *models: str, **limits: int) -> Tenant:
    return Tenant.model_validate(
        {"name": name, "models": models, "key": SecretKey(name=f"tenant-{name}", key="key"), **limits}
    )


TENANTS = {
    declared.name: declared
    for declared in (
        tenant("wide", "alpha", "beta", "tail", "doomed", "lonely"),
        tenant("narrow", "alpha", "doomed"),
        tenant("few", "alpha", requests_per_minute=3),
        tenant("terse", "alpha", tokens_per_minute=40),
        tenant("single", "alpha", parallel_requests=1),
        tenant("changing", "alpha"),
        tenant("twin", "alpha"),
        tenant("keyless", "alpha"),
    )
}
KEYS = {name: f"sk-{name}-0123456789" for name in TENANTS} | {"twin": "sk-changing-0123456789"}
SECRETS = {(f"tenant-{name}", "key"): key for name, key in KEYS.items() if name != "keyless"} | {
    ("engine", "key"): ENGINE_KEY,
    ("provider", "key"): PROVIDER_KEY,
}


@contextmanager
def router(lite_llm: LiteLlm, engines: Engines, folder: Path, *, canary_percent: int = 0) -> Generator[Proxy]:
    provider = {
        "model": "hosted_vllm/provider",
        "api_base": f"{engines.processes['provider'].url}/v1",
        "api_key": {"name": "provider", "key": "key"},
    }
    catalog = {
        declared.name: declared
        for declared in (
            spec("alpha", routing={"aliases": ["gpt-4o", "acme/alpha"]}),
            spec("beta"),
            # The tests kill the engine behind its Service.
            spec("doomed", routing={"aliases": ["dying"], "fallbacks": ["beta"], "managed": [provider]}),
            # Its Service leads nowhere.
            spec("lonely", routing={"managed": [provider]}),
            spec("unborn"),
        )
    }
    serving = {
        "alpha": Serving(release("alpha"), release("alpha"), canary_percent),
        "beta": Serving(release("beta", api_key=SecretKey(name="engine", key="key"))),
        "doomed": Serving(release("doomed")),
        "lonely": Serving(release("lonely")),
    }
    with running(
        lite_llm,
        folder,
        catalog,
        serving,
        addresses=engines.addresses | {"lonely": "127.0.0.1:1"},
        tenants=TENANTS,
        secret_values=SECRETS,
        managed={"tail": provider},
        cooldown_seconds=10,
    ) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def proxy(lite_llm: LiteLlm, engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> Generator[Proxy]:
    with router(lite_llm, engines, tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


def served_by(answer: httpx2.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.headers["x-litellm-model-id"]


def burst(proxy: Proxy, count: int) -> Counter[str]:
    """The engines that answer this many requests of eight users."""
    with ThreadPoolExecutor(8) as pool:
        return Counter(map(served_by, pool.map(proxy.ask, ["alpha"] * count)))


def has_text(line: str) -> bool:
    """Whether a line of a stream has a part of the answer."""
    return line.startswith("data: {") and bool(json.loads(line[6:])["choices"][0]["delta"].get("content"))


def message(answer: httpx2.Response) -> str:
    return answer.json()["error"]["message"]


def test_a_model_is_found_by_its_name_and_by_each_alias(proxy: Proxy) -> None:
    assert [served_by(proxy.ask(name)) for name in ("alpha", "gpt-4o", "acme/alpha")] == ["alpha.stable"] * 3
    # Its engine needs a key, which the router reads from a Secret.
    assert served_by(proxy.ask("beta")) == "beta.stable"
    assert served_by(proxy.ask("beta", path="/v1/completions")) == "beta.stable"


def test_the_tail_is_asked_of_a_provider_with_the_providers_key(proxy: Proxy, engines: Engines) -> None:
    before = engines.requests("provider")
    assert served_by(proxy.ask("tail", KEYS["wide"])) == "tail"
    assert engines.requests("provider") == before + 1


def test_a_model_that_never_was_promoted_is_not_there(proxy: Proxy) -> None:
    answer = proxy.ask("unborn")
    assert answer.status_code in (400, 404), answer.text


def test_the_list_of_models_is_what_a_key_may_ask_for(proxy: Proxy) -> None:
    def listed(key: str) -> set[str]:
        return {entry["id"] for entry in proxy.get("/v1/models", key).json()["data"]}

    assert listed(KEYS["few"]) == {"alpha", "gpt-4o", "acme/alpha"}
    assert {"alpha", "gpt-4o", "beta", "doomed", "tail"} <= listed(MASTER)
    assert "unborn" not in listed(MASTER)


def test_nobody_without_a_key_is_answered(proxy: Proxy) -> None:
    for key in ("sk-unknown", "Bearer", "sk-wide", "tenant-wide", "operator"):
        answer = proxy.ask("alpha", key)
        assert answer.status_code == 401, answer.text
    assert httpx2.get(proxy.url + "/v1/models").status_code == 401
    # Its Secret is missing: only its tenant is refused.
    assert proxy.ask("alpha", KEYS["keyless"]).status_code == 401
    assert "Tenant keyless has no key" in proxy.log.read_text()


def test_a_tenant_asks_for_its_own_models_alone(proxy: Proxy, engines: Engines) -> None:
    before = engines.requests("beta")
    answers = [proxy.ask(name, KEYS["narrow"]) for name in ("beta", "beta.stable", "alpha.stable")]
    assert [answer.status_code for answer in answers] == [403] * 3
    # The gate takes away what is no field of the API: a fallback of the request's own.
    assert served_by(proxy.ask("alpha", KEYS["narrow"], fallbacks=["beta"])) == "alpha.stable"
    assert engines.requests("beta") == before


def test_nobody_has_the_router_ask_elsewhere(proxy: Proxy, engines: Engines) -> None:
    before = engines.requests("provider")
    answer = proxy.ask("alpha", KEYS["wide"], api_base=f"{engines.processes['provider'].url}/v1", num_retries=20)
    assert served_by(answer) == "alpha.stable"
    assert engines.requests("provider") == before


def test_requests_per_minute_are_limited(proxy: Proxy) -> None:
    answers = [proxy.ask(name, KEYS["few"]) for name in ("alpha", "gpt-4o", "alpha", "alpha", "gpt-4o")]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert "retry-after" in answers[-1].headers
    assert proxy.ask("alpha", KEYS["wide"]).status_code == 200


def test_tokens_per_minute_are_limited(proxy: Proxy) -> None:
    answers = [proxy.ask("alpha", KEYS["terse"], max_tokens=20, ignore_eos=True) for _ in range(6)]
    codes = [answer.status_code for answer in answers]
    assert codes[0] == 200
    assert codes[-1] == 429
    used = sum(answer.json()["usage"]["total_tokens"] for answer in answers if answer.status_code == 200)
    # The request that crosses the limit is answered; later ones are not.
    assert used < 40 + answers[0].json()["usage"]["total_tokens"]


def test_requests_at_once_are_limited(proxy: Proxy) -> None:
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(proxy.ask, "alpha", KEYS["single"], max_tokens=200, ignore_eos=True) for _ in range(3)]
        codes = sorted(future.result().status_code for future in futures)
    assert codes == [200, 429, 429]
    assert proxy.ask("alpha", KEYS["single"]).status_code == 200


def test_a_key_that_two_tenants_have_is_nobodys_and_a_new_one_holds_at_once(proxy: Proxy) -> None:
    assert proxy.ask("alpha", KEYS["changing"]).status_code == 401
    assert "One key is that of changing, twin alike" in proxy.log.read_text()
    proxy.write_keys(SECRETS | {("tenant-changing", "key"): "sk-old-key\nsk-new-key\n"})
    assert [proxy.ask("alpha", key).status_code for key in ("sk-old-key", "sk-new-key")] == [200, 200]
    assert proxy.ask("alpha", KEYS["twin"]).status_code == 200
    proxy.write_keys(SECRETS | {("tenant-changing", "key"): "sk-new-key"})
    assert [proxy.ask("alpha", key).status_code for key in ("sk-old-key", "sk-new-key")] == [401, 200]


@pytest.mark.parametrize(
    "path", ["/health", "/v1/model/info", "/model/info", "/key/generate", "/metrics", "/ui/", "/openapi.json", "/"]
)
def test_administration_and_what_tells_of_engines_is_not_there(proxy: Proxy, path: str) -> None:
    assert proxy.get(path).status_code == 404
    assert httpx2.post(proxy.url + path, headers=bearer(MASTER), json={}).status_code == 404


def test_a_stream_passes_as_it_is_made(proxy: Proxy) -> None:
    body = {
        "model": "alpha",
        "stream": True,
        "max_tokens": 100,
        "ignore_eos": True,
        "messages": [{"role": "user", "content": "hello"}],
    }
    with httpx2.stream(
        "POST", proxy.url + "/v1/chat/completions", json=body, headers=bearer(KEYS["wide"]), timeout=30
    ) as answer:
        times = [time.monotonic() for line in answer.iter_lines() if has_text(line)]
    # LiteLLM leaves out parts without text.
    assert len(times) > 90
    # The engine takes half a second for them: a buffering proxy would send them all at the end.
    assert times[-1] - times[0] > 0.3


def test_a_request_that_is_wrong_is_not_tried_elsewhere(proxy: Proxy, engines: Engines) -> None:
    before = engines.requests("beta")
    answer = proxy.ask("doomed", max_tokens=5000)
    assert answer.status_code == 400, answer.text
    assert "max_model_len" in message(answer)
    assert engines.requests("beta") == before


def test_another_model_answers_while_one_is_down_and_then_its_provider(proxy: Proxy, engines: Engines) -> None:
    assert served_by(proxy.ask("doomed", KEYS["wide"])) == "doomed.stable"
    engines.processes["doomed"].kill()
    assert served_by(proxy.ask("doomed", KEYS["wide"])) == "beta.stable"
    assert served_by(proxy.ask("dying", KEYS["wide"])) == "beta.stable"
    # A tenant that may not use the fallback gets `doomed` at its provider.
    assert served_by(proxy.ask("doomed", KEYS["narrow"])) == "doomed@managed-0"
    assert served_by(proxy.ask("lonely", KEYS["wide"])) == "lonely@managed-0"
    # The others still work.
    assert served_by(proxy.ask("alpha", KEYS["wide"])) == "alpha.stable"


def conversation(proxy: Proxy, begin: str) -> set[str]:
    """The engines that answer the turns of a conversation."""
    chat, tracks = [{"role": "user", "content": begin}], set[str]()
    for _ in range(3):
        answer = proxy.ask("alpha", messages=chat)
        tracks.add(served_by(answer))
        text = answer.json()["choices"][0]["message"]["content"]
        chat += [{"role": "assistant", "content": text}, {"role": "user", "content": "and then?"}]
    return tracks


def test_without_a_share_the_canary_gets_nobody(proxy: Proxy, engines: Engines) -> None:
    before = engines.requests("alpha-canary")
    assert burst(proxy, 200).keys() == {"alpha.stable"}
    assert engines.requests("alpha-canary") == before


def test_a_canary_gets_its_share(lite_llm: LiteLlm, engines: Engines, tmp_path: Path) -> None:
    count, share = 800, 0.25
    with router(lite_llm, engines, tmp_path, canary_percent=25) as proxy:
        conversations = [conversation(proxy, f"question {number}") for number in range(40)]
        named = [{served_by(proxy.ask("alpha", user=f"user-{number}")) for _ in range(4)} for number in range(10)]
        completions = Counter(served_by(proxy.ask("alpha", path="/v1/completions")) for _ in range(100))
        before = engines.requests("alpha-canary")
        answers = burst(proxy, count)
        assert engines.requests("alpha-canary") - before == answers["alpha.canary"]
    assert answers.keys() == {"alpha.stable", "alpha.canary"}
    # All of them ask the same, after 260 requests that do not.
    assert abs(answers["alpha.canary"] - count * share) <= 4 * SLACK + TOLERANCE * count * share
    assert [len(tracks) for tracks in conversations] == [1] * 40
    assert set().union(*conversations) == {"alpha.stable", "alpha.canary"}
    assert sum(len(tracks) == 1 for tracks in named) >= 9
    assert completions.keys() == {"alpha.stable", "alpha.canary"}


def test_a_canary_with_all_of_it_gets_everybody(lite_llm: LiteLlm, engines: Engines, tmp_path: Path) -> None:
    with router(lite_llm, engines, tmp_path, canary_percent=100) as proxy:
        assert burst(proxy, 100).keys() == {"alpha.canary"}


def test_an_answer_in_flight_ends_whole_before_the_proxy_does(
    lite_llm: LiteLlm, engines: Engines, tmp_path: Path
) -> None:
    with running(
        lite_llm,
        tmp_path,
        {"alpha": spec("alpha")},
        {"alpha": Serving(release("alpha"))},
        addresses=engines.addresses,
        unroute_seconds=1,
        drain_seconds=20,
    ) as proxy, ThreadPoolExecutor(2) as pool:  # fmt: skip
        kept = httpx2.Client(headers=bearer(MASTER), timeout=20)
        assert kept.get(proxy.url + "/v1/models").headers.get("connection") != "close"
        future = pool.submit(proxy.ask, "alpha", max_tokens=600, ignore_eos=True)
        time.sleep(0.5)
        hook = pool.submit(proxy.hook)
        time.sleep(0.3)
        # The proxy closes kept connections, so that their clients go elsewhere.
        assert kept.get(proxy.url + "/v1/models").headers["connection"] == "close"
        assert hook.result().text == "0 requests in flight\n"
        # The client may read the proxy's last bytes a moment later.
        assert future.result(10).json()["usage"]["completion_tokens"] == 600
        proxy.terminate()
        proxy.ended(60)
