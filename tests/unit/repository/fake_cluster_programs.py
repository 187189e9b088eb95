"""The programs kubectl, helm, docker and git of `fake_cluster`, by the name that it is copied to; the state is beside it.

A test starts it some forty times: it imports nothing that it does not need.
"""

import binascii
import json
import os
import sys
import time

folder, _, name = sys.argv[0].rpartition("/")
words = sys.argv[1:]
with open(f"{folder}/state.json") as file:  # noqa: PTH123
    state = json.load(file)
with open(f"{folder}/calls", "a") as calls:  # noqa: PTH123
    calls.write(" ".join([name, *words]) + "\n")

DENIED = "Error from server (Forbidden): pods is forbidden:"


def option(key: str, default: str = "") -> str:
    for number, word in enumerate(words):
        if word == f"--{key}" and number + 1 < len(words):
            return words[number + 1]
        if word.startswith(f"--{key}="):
            return word.partition("=")[2]
    return default


def read(pod: str) -> dict:  # type: ignore[type-arg]
    try:
        with open(f"{folder}/pods/{pod}.json") as file:  # noqa: PTH123
            return json.load(file)  # type: ignore[no-any-return]
    except FileNotFoundError:
        fail(f'Error from server (NotFound): pods "{pod}" not found')
    return {}


def write(pod: str, content: object) -> None:
    with open(f"{folder}/{pod}.new", "w") as file:  # noqa: PTH123
        json.dump(content, file)
    os.rename(f"{folder}/{pod}.new", f"{folder}/pods/{pod}.json")  # noqa: PTH104


def fail(message: str) -> None:
    print(message, file=sys.stderr)
    sys.exit(1)


namespace = option("namespace")
explicit = [word for word in words if word.startswith("--namespace=")]
namespace = explicit[-1].partition("=")[2] if explicit else namespace
if name == "git":
    print("git version 2.43.0" if "--version" in words else "0123")
elif name == "docker":
    fail("no docker here")
elif name == "helm":
    if words[0] == "version":
        print("v3.18.0")
    elif "list" in words:
        print("\n".join(state["releases"]))
    elif "history" in words:
        print(json.dumps(state["releases"][words[words.index("history") + 1]]))
    elif "values" in words:
        print(json.dumps(state["values"]))
    elif "manifest" in words:
        print(state["manifests"])
elif words[:1] == ["config"]:
    print("context")
elif "version" in words:
    if "--client" in words:
        print(json.dumps({"clientVersion": {"gitVersion": "v1.34.1"}}))
    else:
        if state["hang"]:
            time.sleep(state["hang"])
        if state["unreachable"]:
            fail("Unable to connect to the server: dial tcp 10.0.0.1:6443: i/o timeout")
        server = {"major": "1", "minor": state["server_minor"]}
        print(json.dumps({"clientVersion": {"major": "1", "minor": "34"}, "serverVersion": server}))
else:
    verb = next(word for word in words if word in ("get", "create", "delete", "exec", "logs"))
    rest = words[words.index(verb) + 1 :]
    target = rest[0] if rest and not rest[0].startswith("-") else ""
    if verb == "create":
        body = json.load(sys.stdin)
        if body["kind"] == "List":
            for item in body["items"]:
                spec = item["spec"]["resourceAttributes"]
                subresource = f"/{spec['subresource']}" if "subresource" in spec else ""
                request = f"{spec['verb']} {spec['resource']}{subresource}"
                print(json.dumps({"kind": item["kind"], "status": {"allowed": request not in state["forbidden"]}}))
            sys.exit()
        if "create pods" in state["forbidden"]:
            fail(f'{DENIED} User "me" cannot create resource "pods" in API group "" in the namespace "{namespace}"')
        if state["quota_exceeded"]:
            fail(f"{DENIED} exceeded quota: steps, requested: pods=1, used: pods=8, limited: pods=8")
        program = body["metadata"]["labels"]["app.kubernetes.io/name"]
        body["status"] = state["step_status"][program]
        body["metadata"]["creationTimestamp"] = "2026-01-15T09:00:00Z"
        write(body["metadata"]["name"], body)
    elif verb == "delete":
        os.unlink(f"{folder}/pods/{rest[1]}.json")  # noqa: PTH108
    elif verb == "logs":
        pod = read(target)
        print(state["step_log"][pod["metadata"]["labels"]["app.kubernetes.io/name"]])
    elif verb == "exec":
        if "create pods/exec" in state["forbidden"]:
            fail(f'Error from server (Forbidden): pods "{target}" is forbidden: User "me" cannot create resource "pods/exec"')
        if "-c" in rest:
            print(json.dumps(state["database"]))
            sys.exit()
        component = option("container")
        if "slack-scopes" in rest:
            print(json.dumps(state["slack"]))
            sys.exit()
        report = state["reports"][component]
        if isinstance(report, str):
            fail(report)
        import hashlib
        import hmac

        salt = option("salt")
        values = {**state["values_in_pods"], **state["values_by_pod"].get(target, {})}
        digests = {}
        for variable in option("variables").split(","):
            value = values.get(variable)
            digests[variable] = value and hmac.new(salt.encode(), value.encode(), hashlib.sha256).hexdigest()
        clock = time.time() + state["clock_skew"].get(component, 0)
        report = {"time": clock, "digests": digests, "pods": {}, "findings": [], **report}
        if "pods" not in rest:
            report["pods"] = {}
        print("a warning of a library")
        print(json.dumps(report))
    elif "--raw" in rest:
        fail("Error from server (Forbidden): nodes is forbidden")
    elif target == "pod":
        print(json.dumps(read(rest[1])))
    elif target == "secret":
        data = {
            key: binascii.b2a_base64(value.encode(), newline=False).decode()
            for key, value in state["secrets"][namespace][rest[1]].items()
        }
        print(json.dumps({"data": data}))
    elif target == "secrets":
        if "list secrets" in state["forbidden"]:
            fail('Error from server (Forbidden): secrets is forbidden: User "me" cannot list resource "secrets"')
        print(" ".join(state["secrets"][namespace]))
    else:
        items = state["objects"].get(namespace, {}).get(target, [])
        if option("selector") == "tier=airflow":
            items = [pod for pod in items if "tier" in pod["metadata"]["labels"]]
        if option("selector") == "market-daily/doctor":
            items = [read("doctor-left-behind")] if os.path.exists(f"{folder}/pods/doctor-left-behind.json") else []  # noqa: PTH110
        print(json.dumps({"items": items}))
