"""Who may call which route of the running application: one row for each of its routes.

A row is a method, a path, who may call it, and what its owner is answered. A route without a row
fails `test_every_route_has_a_row_in_the_matrix`, and so does a row without a route.

open        anybody, known or not
admission   the operators' pages: operators only, and to all others there is nothing, known or not
principals  whoever is known
owner       the user in the path, the body or the query, and services and operators for them
services    services and operators
operators   operators
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

_TABLE: Final = """
GET    /livez                                     open        200
GET    /readyz                                    open        200
GET    /health                                    open        200
GET    /lapse/client.js                           open        200
GET    /                                          principals  200
GET    /list-apps                                 principals  200
GET    /version                                   principals  200
GET    /openapi.json                              principals  200
GET    /docs                                      principals  200
GET    /docs/oauth2-redirect                      principals  200
GET    /redoc                                     principals  200
GET    /lapse/demo/{name}                         principals  200

GET    /lapse/                                    admission   200
GET    /lapse/live                                admission   200
GET    /lapse/sessions                            admission   200
GET    /lapse/session                             admission   200
GET    /lapse/session/{action}                    admission   200
POST   /lapse/session/{action}                    admission   403
POST   /lapse/bulk                                admission   403
GET    /lapse/help                                admission   200
GET    /lapse/{path}                              admission   404
GET    /lapse/sweep                               admission   200
POST   /lapse/sweep                               admission   403
GET    /lapse/brake                               admission   200
POST   /lapse/brake                               admission   403
GET    /lapse/retention                           admission   200
GET    /lapse/retention/confirm                   admission   200
POST   /lapse/retention/confirm                   admission   403
GET    /lapse/hold                                admission   200
POST   /lapse/hold                                admission   403
GET    /lapse/hold/release                        admission   400
POST   /lapse/hold/release                        admission   403
GET    /lapse/acts                                admission   200
GET    /lapse/acts.json                           admission   200
GET    /lapse/acts.csv                            admission   200
GET    /lapse/login                               admission   404
POST   /lapse/login                               admission   404
POST   /lapse/logout                              admission   403
GET    /lapse/static/{release}/{name}             admission   200
GET    /lapse/api/stats                           admission   200
GET    /lapse/api/sessions                        admission   200
GET    /lapse/api/session                         admission   200
POST   /lapse/api/session/{action}                admission   200
GET    /lapse/api/sweep                           admission   200
POST   /lapse/api/sweep                           admission   200
POST   /lapse/api/sweep/confirm                   admission   200
GET    /lapse/api/acts                            admission   200
GET    /lapse/api/export                          admission   200
GET    /lapse/api/retention                       admission   200
POST   /lapse/api/retention/confirm               admission   422
GET    /lapse/api/holds                           admission   200
POST   /lapse/api/holds                           admission   422
POST   /lapse/api/holds/release                   admission   422

GET    {sessions}                                 owner       200
POST   {sessions}                                 owner       200
GET    {session}                                  owner       200
POST   {session}                                  owner       409
PATCH  {session}                                  owner       200
DELETE {session}                                  owner       200
GET    {session}/lifecycle                        owner       200
PATCH  {session}/lifecycle                        owner       200
POST   {session}/lifecycle/extend                 owner       200
POST   {session}/lifecycle/resurrect              owner       200
GET    {session}/lifecycle/events                 owner       200
PUT    {session}/pin                              owner       409
DELETE {session}/pin                              owner       200
POST   {session}/run                              owner       200
GET    {session}/run                              owner       404
GET    {session}/run/{run_id}                     owner       404
DELETE {session}/run/{run_id}                     owner       404
GET    {session}/artifacts                        owner       200
POST   {session}/artifacts                        owner       200
GET    {session}/artifacts/{artifact_name:path}   owner       404
DELETE {session}/artifacts/{artifact_name:path}   owner       200
GET    {session}/artifacts/{artifact_name:path}/versions                        owner 200
GET    {session}/artifacts/{artifact_name:path}/versions/metadata               owner 200
GET    {session}/artifacts/{artifact_name:path}/versions/{version_id}           owner 404
GET    {session}/artifacts/{artifact_name:path}/versions/{version_id}/metadata  owner 404
PATCH  /apps/{app_name}/users/{user_id}/memory    owner       200
GET    /apps/{app_name}/users/{user_id}/erasure   owner       200
POST   /apps/{app_name}/users/{user_id}/erasure   owner       422
POST   /run                                       owner       200
POST   /run_sse                                   owner       200
POST   /agent-identity/finalize                   owner       500
WS     /run_live                                  owner       101

GET    /metrics                                   operators
GET    /apps/{app_name}/app-info                  operators
GET    /dev-ui                                    operators
MOUNT  /dev-ui                                    operators
GET    /dev-ui/config                             operators
GET    /dev-ui/assets/config/runtime-config.json  operators
GET    /config/telemetry                          operators
POST   /config/telemetry                          operators
GET    {dev}/builder                              operators
POST   {dev}/builder/save                         operators
POST   {dev}/builder/cancel                       operators
GET    {dev}/debug/trace/{event_id}               operators
GET    {dev}/debug/trace/session/{session_id}     operators
GET    {dev}/build_graph                          operators
GET    {dev}/build_graph_image                    operators
GET    {dev}/graph                                operators
GET    {dev}/tests                                operators
POST   {dev}/tests/rebuild                        operators
POST   {dev}/tests/run                            operators
GET    {dev}/tests/{test_name}                    operators
PUT    {dev}/tests/{test_name}                    operators
DELETE {dev}/tests/{test_name}                    operators
GET    {dev}/eval-sets                            operators
POST   {dev}/eval-sets                            operators
GET    {dev}/eval_sets                            operators
POST   {dev}/eval_sets/{eval_set_id}              operators
POST   {dev}/eval-sets/{eval_set_id}/run          operators
POST   {dev}/eval_sets/{eval_set_id}/run_eval     operators
POST   {dev}/eval-sets/{eval_set_id}/add-session  operators
POST   {dev}/eval_sets/{eval_set_id}/add_session  operators
GET    {dev}/eval_sets/{eval_set_id}/evals        operators
GET    {dev}/eval_sets/{eval_set_id}/evals/{eval_case_id}       operators
PUT    {dev}/eval_sets/{eval_set_id}/evals/{eval_case_id}       operators
DELETE {dev}/eval_sets/{eval_set_id}/evals/{eval_case_id}       operators
GET    {dev}/eval-sets/{eval_set_id}/eval-cases/{eval_case_id}  operators
PUT    {dev}/eval-sets/{eval_set_id}/eval-cases/{eval_case_id}  operators
DELETE {dev}/eval-sets/{eval_set_id}/eval-cases/{eval_case_id}  operators
GET    {dev}/eval-results                         operators
GET    {dev}/eval_results                         operators
GET    {dev}/eval-results/{eval_result_id}        operators
GET    {dev}/eval_results/{eval_result_id}        operators
GET    {dev}/metrics-info                         operators
GET    {dev}/users/{user_id}/sessions/{session_id}/events/{event_id}/graph      operators
GET    {dev}/deploy/defaults                      operators
POST   {dev}/deploy/agent_engine                  operators
POST   {dev}/deploy/cloud_run                     operators
POST   {dev}/deploy/gke                           operators
"""

_SHORT: Final = {
    "{sessions}": "/apps/{app_name}/users/{user_id}/sessions",
    "{session}": "/apps/{app_name}/users/{user_id}/sessions/{session_id}",
    "{dev}": "/dev/apps/{app_name}",
}


SERVED: Final = "parrot"
"""The app that is served."""


@dataclass(frozen=True)
class Row:
    """One route: who may call it, and with what."""

    method: str
    path: str
    reach: str
    owner_status: int | None

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def names_an_app(self) -> bool:
        """Return whether the request names an app in its path, body or query."""
        return "{app_name}" in self.path or self.path in {"/run", "/run_sse", "/run_live"}

    def url(self, app: str, user: str, session_id: str) -> str:
        """Return the path to ask for."""
        path = self.path.replace("{artifact_name:path}", "notes.txt")
        if self.method == "MOUNT":
            path += "/index.html"
        for name, value in {
            # An app that is not served, so that no operator runs its tests or deploys it here.
            "app_name": "ghost" if path.startswith("/dev/") and app == SERVED else app,
            "user_id": user,
            "session_id": session_id,
            "version_id": "0",
            "action": "extend",
            "release": "any",
            "name": "chat.js" if path.startswith("/lapse/demo/") else "operators.css",
        }.items():
            path = path.replace(f"{{{name}}}", value)
        while "{" in path:
            path = path[: path.index("{")] + "some" + path[path.index("}") + 1 :]
        if self.reach == "admission" and ("/session" in path or path.endswith("/export")):
            path += f"?app={app}&user={user}&id={session_id}"
        return path

    def body(self, app: str, user: str, session_id: str) -> dict[str, Any] | None:
        """Return what is sent as JSON."""
        if self.method not in {"POST", "PATCH", "PUT"} or self.reach != "owner":
            return None
        message = {"role": "user", "parts": [{"text": "hello"}]}
        run = {"appName": app, "userId": user, "sessionId": session_id, "newMessage": message}
        finalize = ("connectorName", "userIdValidationState", "consentNonce")
        bodies: dict[str, dict[str, Any]] = {
            "POST /run": run,
            "POST /run_sse": run,
            "POST /agent-identity/finalize": dict.fromkeys(finalize, "x") | {"userId": user},
            "PATCH /apps/{app_name}/users/{user_id}/memory": {"sessionId": session_id},
        }
        match self.name.rpartition("/")[2]:
            case "{session_id}":
                return {"stateDelta": {"seen": 1}} if self.method == "PATCH" else {}
            case "lifecycle":
                return {"metadata": {"seen": 1}}
            case "artifacts":
                return {"filename": "a.txt", "artifact": {"text": "words"}}
            case "run" if self.name not in bodies:
                return {"message": "hello"}
        return bodies.get(self.name, {})


def _rows() -> list[Row]:
    found = []
    for line in filter(None, _TABLE.splitlines()):
        method, path, reach, *status = line.split()
        for short, full in _SHORT.items():
            path = path.replace(short, full)
        found.append(Row(method, path, reach, int(status[0]) if status else None))
    return found


ROWS: Final = _rows()
