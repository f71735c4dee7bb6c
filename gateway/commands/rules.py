"""`rule …`: each command is one call of the API, or a few, and its answer printed. The fields of a rule are one table here."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import quote

from gateway.commands.client import call
from gateway.commands.endpoint import Endpoint
from gateway.commands.errors import CommandError

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - argparse has no public name for it
Find = Callable[[argparse.Namespace], Endpoint]
AddGateway = Callable[[argparse.ArgumentParser], None]
Command = Callable[[Endpoint, argparse.Namespace], Any]

ROUTE: Final = "/api/v1/rules"
MAX_FILE: Final = 64 * 1024
LETTERS: Final = 100


class _Flag(NamedTuple):
    flag: str
    field: str
    kinds: tuple[str, ...]
    read: Callable[[str], Any] | None
    words: str


def _start(text: str) -> str | int:
    """now, earliest, ms, or a time such as 2026-01-31T08:00:00Z."""
    if text in ("now", "earliest"):
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("it must be now, earliest, milliseconds since 1970, or a time such as 2026-01-31T08:00:00Z") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _file(text: str) -> str:
    try:
        with Path(text).open("rb") as opened:
            content = opened.read(MAX_FILE + 1)
        if len(content) > MAX_FILE:
            raise argparse.ArgumentTypeError(f"{text} has more than {MAX_FILE} bytes")
        return content.decode()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise argparse.ArgumentTypeError(f"{text} is not UTF-8 text") from None


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


_OUT, _IN, _ALL = ("outflow",), ("inflow",), ("outflow", "inflow", "status")
_CHECKED = ("outflow", "inflow")

FLAGS: Final = (
    _Flag("--description", "description", _ALL, str, "what it is for"),
    _Flag("--filter", "filter", _ALL, str, "JMESPath over topic, clientId, qos, properties and body; what it is false for is left out"),
    _Flag("--projection", "projection", _CHECKED, str, "JMESPath whose result, as JSON, is sent in the body's place"),
    _Flag("--json-schema", "jsonSchema", _CHECKED, _file, "file with a JSON Schema that bodies must fit"),
    _Flag("--rate", "rate", _ALL, float, "most messages a second; 0 for no limit"),
    _Flag("--on-poison", "onPoison", _ALL, str, "skip (to the dead letters) or stop"),
    _Flag("--start", "start", _ALL, _start, "now (default), earliest, or a time"),
    _Flag("--position", "position", _ALL, str, "where to start, as QUEUE:OFFSET,… ; of the log as 0:RECORD"),
    _Flag("--create", "create", _ALL, None, "make the backend topic where it is missing"),
    _Flag("--ordered", "ordered", _OUT, None, "keep each client's messages in order, in one queue or partition"),
    _Flag("--key", "key", _OUT, str, "Kafka key: client (default), topic or none"),
    _Flag("--tag", "tag", _OUT, str, "RocketMQ tag; {2} stands for the second topic level"),
    _Flag("--sources", "sources", _OUT, _list, "whose messages, of device, will, api, inflow, system (default device,will)"),
    _Flag("--tags", "tags", _IN, str, "only messages with these RocketMQ tags, such as 'a || b'"),
    _Flag("--sql", "sql", _IN, str, "only messages that fit an SQL92 condition (RocketMQ, where the broker has it on)"),
    _Flag("--undelivered", "undelivered", _IN, str, "topic of the connection that is told of commands nobody got"),
)


def add_rules(commands: Subparsers, add_gateway: AddGateway, find: Find) -> None:
    """The `rule` commands."""
    parsers = commands.add_parser("rule", help="carry messages to and from Kafka and RocketMQ", allow_abbrev=False)
    rule = parsers.add_subparsers(required=True, metavar="COMMAND")

    def add(parent: Subparsers, name: str, command: Command, words: str, *, takes_id: bool = True) -> argparse.ArgumentParser:
        parser = parent.add_parser(name, help=words, description=words, allow_abbrev=False)
        if takes_id:
            parser.add_argument("rule", metavar="RULE_ID")
        add_gateway(parser)
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.set_defaults(command=lambda arguments: _run(command, find, arguments))
        return parser

    create = rule.add_parser("create", help="make a rule", allow_abbrev=False).add_subparsers(required=True, metavar="KIND")
    _add_kind(add(create, "outflow", _create("outflow"), "from an MQTT parent topic to a backend topic"), "outflow")
    _add_kind(add(create, "inflow", _create("inflow"), "from a backend topic to an MQTT parent topic"), "inflow")
    _add_kind(add(create, "status", _create("status"), "connect and disconnect events of a group id to a backend topic"), "status")
    update = add(rule, "update", _update, "change a rule; what is not given stays")
    update.add_argument("--to", "--from", dest="backend", metavar="CONNECTION/TOPIC", help="another target")
    update.add_argument("--topic", metavar="PARENT", help="another parent topic")
    _add_flags(update, None)
    add(rule, "list", _list_rules, "all rules, a line each", takes_id=False)
    add(rule, "show", _show, "a rule with its state, lag and counts")
    add(rule, "enable", _post("enable"), "let a rule go on where it stands")
    add(rule, "disable", _post("disable"), "stop a rule; its position is kept")
    add(rule, "delete", _delete, "delete a rule with its position and dead letters")
    reset = add(rule, "reset", _reset, "let a rule go on from elsewhere")
    reset.add_argument("--start", type=_start, help="now, earliest, or a time")
    reset.add_argument("--position", help="QUEUE:OFFSET,…")
    dry = add(rule, "dry-run", _dry_run, "show what the newest records would come to, without sending")
    dry.add_argument("--records", type=int, default=100, metavar="N", help="how many records to look at (default 100)")
    letters = add(rule, "dead-letters", _letters, "what could not be carried, and why")
    letters.add_argument("--after", type=int, default=0, metavar="NUMBER", help="only those behind this one")
    resend = add(rule, "resend", _resend, "send dead letters again")
    resend.add_argument("--number", type=int, metavar="NUMBER", help="this one only")
    drop = add(rule, "drop-dead-letters", _drop, "forget dead letters")
    drop.add_argument("--number", type=int, metavar="NUMBER", help="this one only")


def _run(command: Command, find: Find, arguments: argparse.Namespace) -> int:
    answer = command(find(arguments), arguments)
    if arguments.json:
        print(json.dumps(answer))
    return 0


def _add_kind(parser: argparse.ArgumentParser, kind: str) -> None:
    if kind == "status":
        parser.add_argument("--group", required=True, metavar="GID", help="group id, or * for all clients")
    else:
        parser.add_argument("--topic", required=True, metavar="PARENT", help="MQTT parent topic")
    parser.add_argument("--from" if kind == "inflow" else "--to", dest="backend", required=True, metavar="CONNECTION/TOPIC", help="backend topic")
    parser.add_argument("--disabled", action="store_true", help="don't start it yet")
    _add_flags(parser, kind)


def _add_flags(parser: argparse.ArgumentParser, kind: str | None) -> None:
    for flag in FLAGS:
        if kind is not None and kind not in flag.kinds:
            continue
        if flag.read is None:
            action = "store_true" if kind is not None else argparse.BooleanOptionalAction
            parser.add_argument(flag.flag, action=action, default=None, dest="field_" + flag.field, help=flag.words)
        else:
            parser.add_argument(flag.flag, type=flag.read, dest="field_" + flag.field, help=flag.words)


def _fields(arguments: argparse.Namespace) -> dict[str, Any]:
    given = {flag.field: getattr(arguments, "field_" + flag.field, None) for flag in FLAGS}
    fields = {name: value for name, value in given.items() if value is not None}
    backend = arguments.backend
    if backend is not None:
        connection, slash, topic = backend.partition("/")
        if not slash or not connection or not topic:
            raise CommandError(f"{backend!r} is not CONNECTION/TOPIC: the name of a [connections.NAME] section and a topic, such as main/orders")
        fields |= {"connection": connection, "backendTopic": topic}
    return fields


def _create(kind: str) -> Command:
    def create(endpoint: Endpoint, arguments: argparse.Namespace) -> Any:
        body = {"id": arguments.rule, "kind": kind, "enabled": not arguments.disabled, **_fields(arguments)}
        body |= {"group": arguments.group} if kind == "status" else {"topic": arguments.topic}
        return _told(call(endpoint, "POST", ROUTE, body), arguments, "is created")

    return create


def _update(endpoint: Endpoint, arguments: argparse.Namespace) -> Any:
    fields = _fields(arguments) | ({"topic": arguments.topic} if arguments.topic is not None else {})
    if not fields:
        raise CommandError("nothing to change: give the fields that shall be other")
    return _told(call(endpoint, "PATCH", _route(arguments), fields), arguments, "is changed")


def _post(action: str) -> Command:
    def post(endpoint: Endpoint, arguments: argparse.Namespace) -> Any:
        return _told(call(endpoint, "POST", f"{_route(arguments)}/{action}", {}), arguments, f"is {action}d")

    return post


def _reset(endpoint: Endpoint, arguments: argparse.Namespace) -> Any:
    body = {name: getattr(arguments, name) for name in ("start", "position") if getattr(arguments, name) is not None}
    return _told(call(endpoint, "POST", f"{_route(arguments)}/reset", body), arguments, "is reset")


def _delete(endpoint: Endpoint, arguments: argparse.Namespace) -> Any:
    answer = call(endpoint, "DELETE", _route(arguments))
    if not arguments.json:
        print(f"rule {arguments.rule} is deleted")
    return answer


def _list_rules(endpoint: Endpoint, arguments: argparse.Namespace) -> Any:
    answer = call(endpoint, "GET", ROUTE)
    if not arguments.json:
        for rule in answer["rules"]:
            print(_line(rule))
    return answer


def _show(endpoint: Endpoint, arguments: argparse.Namespace) -> Any:
    answer = call(endpoint, "GET", _route(arguments))
    if not arguments.json:
        status = answer.pop("status")
        for name, value in answer.items():
            if value not in ("", 0, False, None) or name == "enabled":
                print(f"{name:<15} {_word(value)}")
        counts = status.pop("counts")
        for name, value in {**status, **counts}.items():
            print(f"{name:<15} {_word(value)}")
        answer["status"] = {**status, "counts": counts}
    return answer


def _dry_run(endpoint: Endpoint, arguments: argparse.Namespace) -> Any:
    answer = call(endpoint, "POST", f"{_route(arguments)}/dry-run", {"records": arguments.records})
    if not arguments.json:
        print(f"looked at {answer['records']}, would send {answer['sent']}, filtered {answer['filtered']}, dead letters {len(answer['deadLetters'])}")
        for message in answer["messages"]:
            print(f"{message.get('topic', message['backendTopic'])}  {message['bytes']} bytes  {_word(dict(message['properties']))}")
        for letter in answer["deadLetters"]:
            print(f"dead letter: {letter['reason']}")
    return answer


def _letters(endpoint: Endpoint, arguments: argparse.Namespace) -> Any:
    answer = call(endpoint, "GET", f"{_route(arguments)}/dead-letters?after={arguments.after}&limit={LETTERS}")
    if not arguments.json:
        for letter in answer["deadLetters"]:
            where = letter.get("topic") or f"{letter['backendTopic']} {letter['queue']}:{letter['offset']}"
            print(f"{letter['number']}  {where}  {letter['bytes']} bytes  {letter['reason']}")
    return answer


def _resend(endpoint: Endpoint, arguments: argparse.Namespace) -> Any:
    answer = call(endpoint, "POST", f"{_route(arguments)}/dead-letters/resend", {} if arguments.number is None else {"number": arguments.number})
    if not arguments.json:
        print(f"sent {answer['sent']}, still refused {len(answer['failed'])}")
        for failed in answer["failed"]:
            print(f"{failed['number']}  {failed['reason']}")
    return answer


def _drop(endpoint: Endpoint, arguments: argparse.Namespace) -> Any:
    answer = call(endpoint, "DELETE", f"{_route(arguments)}/dead-letters" + ("" if arguments.number is None else f"/{arguments.number}"))
    if not arguments.json:
        print("dropped")
    return answer


def _route(arguments: argparse.Namespace) -> str:
    return f"{ROUTE}/{quote(arguments.rule, safe='')}"


def _told(answer: Mapping[str, Any], arguments: argparse.Namespace, words: str) -> Any:
    if not arguments.json:
        print(f"rule {answer['id']} {words}: {_line(answer)}")
    return answer


def _line(rule: Mapping[str, Any]) -> str:
    status = rule["status"]
    mqtt = rule.get("topic") or rule.get("group")
    backend = f"{rule['connection']}/{rule['backendTopic']}"
    way = f"{backend} -> {mqtt}" if rule["kind"] == "inflow" else f"{mqtt} -> {backend}"
    why = f" ({status['reason']})" if status["reason"] else ""
    return f"{rule['id']}  {rule['kind']}  {way}  {status['state']}{why}  lag {status['lagRecords']}  sent {status['counts']['sent']}"


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
