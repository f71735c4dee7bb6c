"""The command line: parses, calls, and turns errors into one line and an exit code. No logic of its own.

Exit codes: 0 done, 1 the command failed, 2 wrong usage or settings, or the gateway can't start.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from gateway import logs
from gateway.commands import endpoint, keys, registers
from gateway.commands.bearers import add_bearers
from gateway.commands.certificates import add_certificates
from gateway.commands.errors import CommandError
from gateway.commands.rules import add_rules
from gateway.commands.traces import add_trace, show_history
from gateway.settings.load import Problems, load
from gateway.settings.options import OPTIONS, default
from schemas.errors import SluicewayError, StartError
from schemas.policies import ACTIONS, EFFECTS
from schemas.settings import Address, Settings

if TYPE_CHECKING:
    from gateway.commands.mqtt import MqttOptions

Command: TypeAlias = Callable[[argparse.Namespace], int]
Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - argparse has no public name for it

MAX_COUNT: Final = 10**9


def version() -> str:
    """The installed version."""
    try:
        return importlib.metadata.version("sluiceway")
    except importlib.metadata.PackageNotFoundError:
        return "unknown (not installed)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    arguments = _parser().parse_args(argv)
    command: Command = arguments.command
    return answering(lambda: command(arguments))


def answering(run: Callable[[], int]) -> int:
    """What a part of the program comes to: its exit code, or that of the error that it prints."""
    try:
        return run()
    except StartError as error:
        return _fail(error, 2)
    except SluicewayError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it flushes at its end
        return 1


def _fail(error: Exception, code: int) -> int:
    print("sluiceway:", " ".join(str(error).split()), file=sys.stderr)
    return code


def _run(arguments: argparse.Namespace) -> int:
    settings = _load(arguments)
    logs.configure(settings.logging.level, settings.logging.format)
    if settings.node.workers > 1:
        from gateway.workers import supervise

        return supervise(settings)
    from gateway.app import run  # not before a broken setting had its say

    return run(settings)


def _rotate_seal(arguments: argparse.Namespace) -> int:
    settings = _load(arguments)
    from gateway.app import rotate

    count = rotate(settings)
    print(f"{count} secrets are sealed with a new key in {settings.seal_file}; the old key is of no use any more, but for backups")
    return 0


def _check_config(arguments: argparse.Namespace) -> int:
    try:
        _load(arguments)
    except Problems as found:
        for problem in found.problems:
            print("sluiceway:", problem, file=sys.stderr)
        return 2
    print("OK")
    return 0


def _load(arguments: argparse.Namespace) -> Settings:
    flags = {name: getattr(arguments, _destination(name)) for name, option in OPTIONS.items() if option.flag}
    return load(flags, os.environ, arguments.config)


def _pub(arguments: argparse.Namespace) -> int:
    from gateway.commands import mqtt

    payload = arguments.message.encode(errors="surrogateescape") if arguments.message is not None else sys.stdin.buffer.read()
    mqtt.publish(_endpoint(arguments), _mqtt_options(arguments), payload, retain=arguments.retain, count=arguments.count)
    return 0


def _sub(arguments: argparse.Namespace) -> int:
    from gateway.commands import mqtt

    mqtt.subscribe(_endpoint(arguments), _mqtt_options(arguments), count=arguments.count)
    return 0


def _mqtt_options(arguments: argparse.Namespace) -> MqttOptions:
    from gateway.commands.mqtt import MqttOptions

    return MqttOptions(arguments.topic, arguments.qos, arguments.protocol, arguments.client_id, arguments.ca_file)


def _endpoint(arguments: argparse.Namespace) -> endpoint.Endpoint:
    return endpoint.find(arguments.data, arguments.url, arguments.access_key, os.environ, arguments.ca_file)


def _status(arguments: argparse.Namespace) -> int:
    endpoint_, as_json = _endpoint(arguments), arguments.json
    if arguments.group and arguments.history:
        raise CommandError("--history is of one client: give its id instead of --group")
    if arguments.group:
        keys.show_group(endpoint_, arguments.group, as_json=as_json)
    elif arguments.history:
        show_history(endpoint_, arguments.client, as_json=as_json)
    else:
        keys.show_status(endpoint_, arguments.client, as_json=as_json)
    return 0


def _key_create(arguments: argparse.Namespace) -> int:
    keys.create_key(_endpoint(arguments), arguments.role, as_json=arguments.json)
    return 0


def _key_list(arguments: argparse.Namespace) -> int:
    keys.list_keys(_endpoint(arguments), as_json=arguments.json)
    return 0


def _key_revoke(arguments: argparse.Namespace) -> int:
    keys.revoke_key(_endpoint(arguments), arguments.key, as_json=arguments.json)
    return 0


def _key_rotate(arguments: argparse.Namespace) -> int:
    keys.rotate_key(_endpoint(arguments), arguments.key, arguments.valid, as_json=arguments.json)
    return 0


def _register(arguments: argparse.Namespace) -> int:
    """`group` and `topic`."""
    if arguments.verb == "list":
        registers.show(_endpoint(arguments), arguments.kind, as_json=arguments.json)
    else:
        act = registers.create if arguments.verb == "create" else registers.delete
        act(_endpoint(arguments), arguments.kind, arguments.name, as_json=arguments.json)
    return 0


def _policy(arguments: argparse.Namespace) -> int:
    if arguments.verb == "list":
        registers.show_policies(_endpoint(arguments), arguments.principal, as_json=arguments.json)
        return 0
    act = registers.put_policy if arguments.verb == "put" else registers.delete_policy
    rule = {name: getattr(arguments, name) for name in ("principal", "action", "filter", "effect")}
    act(_endpoint(arguments), rule, as_json=arguments.json)
    return 0


def _signature(arguments: argparse.Namespace) -> int:
    if arguments.check is not None:
        sent = sys.stdin.buffer.read().removesuffix(b"\n")
        named = (arguments.client, arguments.data, arguments.access_key, arguments.instance_id, os.environ)
        return 0 if keys.check_signature(*named, arguments.check, sent) else 1
    keys.show_signature(
        arguments.client, arguments.data, arguments.access_key, arguments.instance_id, os.environ, only=arguments.only, as_json=arguments.json
    )
    return 0


def _destination(name: str) -> str:
    return "option_" + name.replace(".", "_")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "sluiceway", description="An MQTT gateway that stores every publish in a log before it acknowledges it.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"sluiceway {version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands, "run", _run, "serve until SIGTERM or SIGINT")
    _add_run(commands, "check-config", _check_config, "say what is wrong with the settings, and start nothing")
    _add_run(commands, "rotate-seal", _rotate_seal, "seal all secrets with a new key; the gateway must not run")
    _add_mqtt(commands)
    _add_keys(commands)
    add_certificates(commands, _add_gateway, _endpoint)
    add_bearers(commands, _add_gateway, _endpoint)
    add_rules(commands, _add_gateway, _endpoint)
    add_trace(commands, _add_gateway, _endpoint)
    return parser


def _add(commands: Subparsers, name: str, command: Command, words: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=words, description=words, allow_abbrev=False)
    parser.set_defaults(command=command)
    return parser


def _add_run(commands: Subparsers, name: str, command: Command, words: str) -> None:
    """All flags of the table of options; whatever has none is set in the file or the environment."""
    parser = _add(commands, name, command, words)
    others = ", ".join(name for name, option in OPTIONS.items() if not option.flag)
    parser.epilog = f"Every option is also a key of the file and a variable: [offline] pace, SLUICEWAY_OFFLINE_PACE. Without a flag: {others}."
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings (SLUICEWAY_CONFIG)")
    for name, option in OPTIONS.items():
        if not option.flag:
            continue
        words = f"{option.help} (default {_shown(default(name))})"
        if option.kind.switch:
            parser.add_argument(option.flag, action=argparse.BooleanOptionalAction, default=None, dest=_destination(name), help=words)
        else:
            action = "append" if option.kind.many else "store"
            parser.add_argument(option.flag, action=action, default=None, dest=_destination(name), metavar=option.kind.metavar, help=words)


def _shown(value: object) -> str:
    """A default as the help tells it."""
    if value in (None, (), ""):
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, tuple) and not isinstance(value, Address) else str(value)


def _add_gateway(parser: argparse.ArgumentParser) -> None:
    """Which gateway a command talks to, and as whom."""
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="data folder of a gateway on this machine: finds it, and the administrator's credential"
    )
    parser.add_argument("--url", help="URL of the gateway's HTTP (SLUICEWAY_URL)")
    parser.add_argument("--ca-file", type=Path, metavar="FILE", help="certificates to trust, for a gateway with TLS (default: the system's)")
    parser.add_argument("--access-key", metavar="ID", help="access key to use (SLUICEWAY_ACCESS_KEY); its secret comes from SLUICEWAY_ACCESS_SECRET")


def _add_mqtt(commands: Subparsers) -> None:
    pub = _add(commands, "pub", _pub, "publish a message and wait until it is durable")
    sub = _add(commands, "sub", _sub, "print messages as they come, a line each: topic and payload")
    for parser, words in ((pub, "topic"), (sub, "topic filter")):
        _add_gateway(parser)
        parser.add_argument("-t", "--topic", required=True, help=words)
        parser.add_argument("-q", "--qos", type=int, choices=(0, 1, 2), default=1, help="quality of service (default 1)")
        parser.add_argument("-i", "--client-id", default="", metavar="ID", help="client id (default: a random one)")
        parser.add_argument("-V", "--protocol", type=int, choices=(4, 5), default=5, help="4 for MQTT 3.1.1, 5 for MQTT 5.0 (default)")
    pub.add_argument("-m", "--message", help="payload (default: standard input)")
    pub.add_argument("--retain", action="store_true", help="keep it as the topic's retained message")
    pub.add_argument("--count", type=_count, default=1, metavar="N", help="publish it N times")
    sub.add_argument("--count", type=_count, default=None, metavar="N", help="end after N messages")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_COUNT):
        raise argparse.ArgumentTypeError(f"it must be a number from 1 to {MAX_COUNT}")
    return int(text)


def _add_keys(commands: Subparsers) -> None:
    status = _add(commands, "status", _status, "whether a client is online")
    which = status.add_mutually_exclusive_group(required=True)
    which.add_argument("client", nargs="?", default="", metavar="CLIENT_ID")
    which.add_argument("--group", default="", metavar="ID", help="of all clients of a group id that were ever seen")
    status.add_argument("--history", action="store_true", help="connects and closes of the client, newest first")
    signature = _add(commands, "signature", _signature, "user name and password with which a client id logs in")
    signature.add_argument("client", metavar="CLIENT_ID")
    signature.add_argument("--instance-id", metavar="ID", help="instance id (default: that of the data folder)")
    signature.add_argument("--check", metavar="USER_NAME", help="say what is wrong with this user name and the password on standard input")
    signature.add_argument("--only", choices=("userName", "password"), help="print this alone")
    key = commands.add_parser("key", help="make, list and revoke access keys", allow_abbrev=False).add_subparsers(required=True, metavar="COMMAND")
    create = _add(key, "create", _key_create, "make an access key")
    create.add_argument("--role", choices=("device", "manager"), default="device", help="manager: may also manage the instance over HTTP")
    listed = _add(key, "list", _key_list, "list access keys")
    revoke = _add(key, "revoke", _key_revoke, "revoke an access key and close its connections")
    revoke.add_argument("key", metavar="ACCESS_KEY_ID")
    rotate = _add(key, "rotate", _key_rotate, "give an access key a new secret; the old one stays valid for a while")
    rotate.add_argument("key", metavar="ACCESS_KEY_ID")
    rotate.add_argument("--valid", type=_count, default=86_400, metavar="SECONDS", help="how long the old secret stays valid (default a day)")
    for parser in (status, signature, create, listed, revoke, rotate, *_add_registers(commands)):
        _add_gateway(parser)
        parser.add_argument("--json", action="store_true", help="print JSON")


def _add_registers(commands: Subparsers) -> list[argparse.ArgumentParser]:
    """`group`, `topic` and `policy`; the parsers that talk to a gateway."""
    made = []
    for kind, words in (("group", "group ids, which client ids begin with"), ("topic", "parent topics, the first level of topics")):
        verbs = commands.add_parser(kind, help=words, allow_abbrev=False).add_subparsers(required=True, metavar="COMMAND")
        for verb in ("create", "list", "delete"):
            parser = _add(verbs, verb, _register, f"{verb} {kind}s" if verb == "list" else f"{verb} a {kind}")
            parser.set_defaults(kind=kind, verb=verb)
            if verb != "list":
                parser.add_argument("name", metavar="NAME")
            made.append(parser)
    verbs = commands.add_parser("policy", help="stored access rules", allow_abbrev=False).add_subparsers(required=True, metavar="COMMAND")
    for verb, words in (("put", "put a rule in force"), ("list", "list rules"), ("delete", "remove a rule")):
        parser = _add(verbs, verb, _policy, words)
        parser.set_defaults(verb=verb)
        if verb == "list":
            parser.add_argument("principal", nargs="?", default="", help="of this principal only")
        else:
            parser.add_argument("principal", help="an access key's id, user:NAME, anonymous, * and the like")
            parser.add_argument("action", choices=ACTIONS)
            parser.add_argument("filter", help="topic filter; ${client}, ${group}, ${device}, ${user} stand for a level")
            parser.add_argument("effect", nargs="?", choices=EFFECTS, default="allow")
        made.append(parser)
    return made


if __name__ == "__main__":
    sys.exit(main())
