"""An AG-UI endpoint on Lapse's sessions (`pip install ag-ui-adk`).

    uvicorn --app-dir examples/ag_ui app:app

ag-ui-adk has a clean-up of its own, which deletes sessions that it has not seen for twenty
minutes, conversations included. It is switched off here: Lapse knows which may go.
"""

from collections.abc import AsyncIterator

from ag_ui.core import RunAgentInput
from ag_ui_adk import ADKAgent, add_adk_fastapi_endpoint
from fastapi import Depends, FastAPI

from lapse import LapseSessionService, SessionKey, mount, store_from_url
from lapse.demo.agents.concierge.agent import root_agent  # your own agent here

APP, USER = "shop", "guest"

service = LapseSessionService(store_from_url("sqlite:///chats.db"))
agent = ADKAgent(
    adk_agent=root_agent,
    app_name=APP,
    user_id=USER,
    session_service=service,
    use_thread_id_as_session_id=True,
    delete_session_on_cleanup=False,
    save_session_to_memory_on_cleanup=False,
)


async def revive(input_data: RunAgentInput) -> AsyncIterator[None]:
    """Bring the session of a run back, should it have expired, before it is looked for."""
    with service.reviving(SessionKey(APP, USER, input_data.thread_id)):
        yield


app = FastAPI()
mount(app, service, apps=[APP])
add_adk_fastapi_endpoint(app, agent, path="/ag-ui", dependencies=[Depends(revive)])
