"""Your own FastAPI application on Lapse.

uvicorn --app-dir examples/own_app app:app

curl -X POST localhost:8000/chats
curl -X POST localhost:8000/chats/ID -H 'Content-Type: application/json' -d '"A table for 4"'
curl -N localhost:8000/apps/shop/users/guest/sessions/ID/lifecycle/events
"""

from typing import Annotated

from fastapi import Body, FastAPI
from google.adk.runners import Runner
from google.genai import types

from lapse import Lapse
from lapse.demo.agents.concierge.agent import root_agent  # your own agent here

APP, USER = "shop", "guest"

lapse = Lapse("sqlite:///chats.db")
service = lapse.sessions
runner = Runner(app_name=APP, agent=root_agent, session_service=service)
app = FastAPI()
lapse.mount(app, apps=[APP])


@app.post("/chats")
async def open_chat() -> str:
    """Create a session, as a page does when it opens, and return its id."""
    session = await service.create_session(app_name=APP, user_id=USER)
    return session.id


@app.post("/chats/{chat}")
async def say(chat: str, text: Annotated[str, Body()]) -> str:
    """Say something in a chat and return the answer. A chat that has expired comes back."""
    message = types.Content(role="user", parts=[types.Part(text=text)])
    answer = ""
    async for event in runner.run_async(user_id=USER, session_id=chat, new_message=message):
        if event.is_final_response() and event.content:
            answer = "".join(part.text or "" for part in event.content.parts or [])
    return answer
