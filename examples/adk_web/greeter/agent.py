"""An agent, as ADK finds it."""

from lapse.demo.agents.concierge.agent import root_agent  # your own agent here

__all__ = ["root_agent"]
