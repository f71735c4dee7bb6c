"""One call of an action: who calls, with which parameters, and the running gateway that answers. What actions check alike is here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.openapi.faults import Fault
from gateway.openapi.parameters import Parameters
from schemas.identities import Principal
from schemas.resources import client_id_problem, split_client_id

if TYPE_CHECKING:
    from gateway.node import Node
    from gateway.services import Services

Fields = Mapping[str, Any]


class Call(msgspec.Struct, frozen=True):
    """``now`` in ms of the wall clock."""

    node: Node
    services: Services
    principal: Principal
    parameters: Parameters
    now: int

    @property
    def instance(self) -> str:
        return self.node.registers.keyring.instance_id

    def check_instance(self, name: str = "InstanceId", code: str = "InstancePermissionCheckFailed") -> None:
        """The one instance that there is must be meant."""
        if self.parameters.text(name) != self.instance:
            raise Fault(code)

    def client(self, *, of_group: bool = False) -> str:
        """The parameter ClientId; ``of_group``: of the form `<group id>@@@<device id>`, with a group that exists where groups must."""
        client = self.parameters.text("ClientId")
        if of_group:
            if problem := client_id_problem(client):
                raise self.parameters.fault("ClientId", problem)
            parts, resources = split_client_id(client), self.node.registers.resources
            if resources.mandatory and (parts is None or resources.group(parts.group) is None):
                raise Fault("PermissionCheckFailed")
        return client


class Action(msgspec.Struct, frozen=True):
    """``bad``: the code for parameters that are missing or wrong. ``manages``: for keys of the role manager and the administrator only."""

    run: Callable[[Call], Awaitable[Fields]]
    bad: str
    manages: bool = False
    versions: tuple[str, ...] = ("2020-04-20", "2019-12-11")
