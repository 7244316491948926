"""Who asks for a session: a function that is about to run an agent on it, or another one."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Final

LOOKS_BEFORE_A_RUN: Final = frozenset(
    {
        "google.adk.runners._get_or_create_session",
        "google.adk.runners.run_debug",
        "google.adk.cli.api_server.run_agent_sse",
        "google.adk.cli.trigger_routes._run_agent",
        "google.adk.cli.cli.run_once_cli",
        "google.adk.a2a.executor.a2a_agent_executor._prepare_session",
        "google.adk.a2a.executor.a2a_agent_executor_impl._resolve_session",
        "google.adk.integrations.livekit._livekit_runner._ensure_session",
        "google.adk.evaluation.evaluation_generator._get_or_create_eval_session",
        # Before 2.12 the route reads, and not only its runner; before 2.0 the module is another.
        "google.adk.cli.api_server.run_agent_live",
        "google.adk.cli.adk_web_server.run_agent_live",
        "google.adk.cli.adk_web_server.run_agent_sse",
    }
)
"""The functions of ADK, by module and name, that read a session to run an agent on it at once.

Where they find none they create one or refuse the run.
"""


def is_look_before_a_run() -> bool:
    """Return whether a function of ADK that is about to run an agent waits for the caller.

    ADK tells a session service what it asks for, and not why. So this looks for the innermost
    function of ADK on the stack, past a service that somebody has put around ours. What an agent or
    a tool reads during its run is asked by other functions of ADK. If the caller runs in a task of
    its own, the stack ends there, and the answer is False.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - there is no other way to the stack
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module.startswith("google.adk."):
            return f"{module}.{frame.f_code.co_name}" in LOOKS_BEFORE_A_RUN
        frame = frame.f_back
    return False
