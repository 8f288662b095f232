"""The wire as an AsyncAPI 3 document, made from `polcad.wire`: what crosses the broker, and who says it to whom.

``docs/asyncapi.json`` is this document, compared in a test. Its schemas are those that the codec checks by.
"""

from __future__ import annotations

import json
from typing import Any

from polcad.signing import FIELD
from polcad.wire import KINDS, MAX_PAYLOAD_BYTES, OF_POOLS, ROOT, Kind, schemas

_LEVELS = {  # the names in each pattern of topics, by how many there are above the kind
    4: ("site", "row", "rack", "node"),
    2: ("site", "row"),
    1: ("site",),
}
_ROLES: dict[str, dict[str, tuple[str, ...]]] = {
    "agent": {"send": ("telemetry", "state"), "receive": ("plan", "placement")},
    "daemon": {
        "send": ("plan", "daemon", "event", "placement", "hint"),
        "receive": ("telemetry", "state", "placement", "hold", "load", "hint", "budgets"),
    },
    "site": {"send": ("budgets", "site", "site_event"), "receive": ("daemon", "site")},
    "operator": {
        "send": ("hold",),
        "receive": ("daemon", "event", "state", "plan", "load", "hint", "budgets", "site", "site_event"),
    },
    "instance": {"send": ("load",), "receive": ()},
    "orchestrator": {"send": (), "receive": ("hint",)},
    "scheduler": {"send": ("placement",), "receive": ()},
}
_PARAMETERS = {
    "site": "One broker may serve several sites.",
    "row": "The domain that one daemon keeps under its budget.",
    "rack": "The node's rack.",
    "node": "One GPU server; its credentials may write below this name alone.",
    "hold": "The operator's name for the hold; an empty retained message releases it.",
    "pool": "Instances that serve the same kinds of requests; an empty retained message ends its hint.",
    "instance": "One copy of a model behind a serving engine; its credentials may write loads of this name alone.",
}
_SIGNATURE = {
    "description": "Where its sender signs: the last member, Ed25519 in Base64 over the topic, a line feed, and the "
    "payload as it is without this member and the comma before it.",
    "type": "string",
    "minLength": 88,
    "maxLength": 88,
}
_DESCRIPTION = (
    "Telemetry of GPU nodes to a row's daemon, and its plans back; loads of serving pools, and hints to shape them; "
    "the budgets of a site's rows. "
    f"Every number is bounded: a message out of bounds, larger than {MAX_PAYLOAD_BYTES} bytes, or in another's name is "
    "dropped and counted. Unknown fields pass, and so do words that an enumeration lacks, for newer versions may add "
    "some: they are taken for `unknown`, `low`, `mixed`, `average`, `none` or `failed`."
)


def asyncapi(version: str) -> dict[str, Any]:
    """The document; `version` is the product's, the wire's own major version is in every topic."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "polcad",
            "version": version,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {name: _channel(name, kind) for name, kind in KINDS.items()},
        "operations": dict(
            _operation(role, action, name)
            for role, actions in _ROLES.items()
            for action, names in actions.items()
            for name in names
        ),
        "components": {
            "messages": {name: _message(name, kind) for name, kind in KINDS.items()},
            "parameters": {name: {"description": text} for name, text in _PARAMETERS.items()},
            "schemas": _schemas(),
        },
    }


def render(version: str) -> str:
    """The document as text, the same each time."""
    return json.dumps(asyncapi(version), indent=2) + "\n"


def _channel(name: str, kind: Kind) -> dict[str, Any]:
    levels = _levels(kind)
    return {
        "address": _address(kind, levels),
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "parameters": {level: {"$ref": f"#/components/parameters/{level}"} for level in levels},
    }


def _levels(kind: Kind) -> tuple[str, ...]:
    parts = kind.pattern.split("/")
    if parts[1] in OF_POOLS:
        return ("site", "pool", "instance")[: parts.count("+")]
    head, _, last = kind.pattern.rpartition("/")
    return (*_LEVELS[head.count("+")], "hold") if last == "+" else _LEVELS[head.count("+")]


def _address(kind: Kind, levels: tuple[str, ...]) -> str:
    names = iter(levels)
    return "/".join([ROOT, *("{" + next(names) + "}" if part == "+" else part for part in kind.pattern.split("/"))])


def _operation(role: str, action: str, name: str) -> tuple[str, dict[str, Any]]:
    kind = KINDS[name]
    binding = {"qos": kind.qos, "bindingVersion": "0.2.0"} | ({"retain": kind.retain} if action == "send" else {})
    return f"{role}_{action}_{name}", {
        "action": action,
        "channel": {"$ref": f"#/channels/{name}"},
        "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}],
        "tags": [{"name": role}],
        "bindings": {"mqtt": binding},
    }


def _message(name: str, kind: Kind) -> dict[str, Any]:
    return {
        "name": name,
        "title": kind.noun.__name__,
        "summary": (kind.noun.__doc__ or "").split("\n", 1)[0],
        "payload": {"$ref": f"#/components/schemas/{kind.noun.__name__}"},
    }


def _schemas() -> dict[str, Any]:
    """The schemas of all nouns under their names; each noun stands once."""
    found: dict[str, Any] = {}
    for schema in schemas().values():
        found |= schema["$defs"]
    for signed in ("Plan", "Budgets"):
        found[signed]["properties"][FIELD] = _SIGNATURE
    text = json.dumps(found, sort_keys=True).replace('"#/$defs/', '"#/components/schemas/')
    return json.loads(text)  # type: ignore[no-any-return]  # an object, as it was
