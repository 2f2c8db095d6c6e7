"""A dispatcher's link in a simulation: which connection is which worker's, messages to events, and back."""

from __future__ import annotations

from collections.abc import Iterable

from everfaas_core.dispatch import events as ev
from everfaas_core.model.ids import WorkerId
from everfaas_core.sim.network import Connection
from everfaas_core.sim.surroundings import Surroundings
from everfaas_core.sim.trace import keys
from everfaas_core.wire import messages as m


class Switchboard:
    """Does what the router of pull and push mode does."""

    def __init__(self, around: Surroundings, name: str) -> None:
        self._around = around
        self._name = name
        self._inbox: list[tuple[Connection, m.ToDispatcher]] = []
        self._undelivered: list[ev.LinkEvent] = []
        self._names: dict[int, WorkerId] = {}  # connection's number → worker
        self._connections: dict[WorkerId, Connection] = {}

    @property
    def waiting(self) -> bool:
        """Whether `receive` has something."""
        return bool(self._inbox or self._undelivered)

    def put(self, connection: Connection, message: m.ToDispatcher) -> None:
        """Take in a message."""
        self._inbox.append((connection, message))

    def receive(self) -> list[ev.LinkEvent]:
        """Return what has come in since the last call."""
        events, self._undelivered = self._undelivered, []
        inbox, self._inbox = self._inbox, []
        for connection, message in inbox:
            event = self._event(connection, message)
            if event is not None:
                events.append(event)
        return events

    def _event(self, connection: Connection, message: m.ToDispatcher) -> ev.LinkEvent | None:
        if isinstance(message, m.Hello):
            return self._joined(connection, message)
        worker_id = self._names.get(connection.number)
        if worker_id is None:
            self._post(connection, m.Stranger())
            return None
        match message:
            case m.Outcomes(items, granted, window):
                text = keys((one.task_id, one.attempt) for one in items)
                self._tell(worker_id, f"Outcomes {text}, granted {granted}")
                return ev.Ended(worker_id, items, granted, window)
            case m.Said():
                return ev.Told(worker_id, message)
            case m.Beat(granted, window):
                return ev.Beaten(worker_id, granted, window)
            case m.Missing(functions):
                return ev.CodeMissing(worker_id, tuple(sorted(functions)))
            case m.Draining():
                self._tell(worker_id, "Draining")
                return ev.Draining(worker_id)
            case m.Bye(returned):
                self._tell(worker_id, f"Bye, never began: {keys(returned) or 'nothing'}")
                self._forget(worker_id)
                return ev.Left(worker_id, returned)

    def _joined(self, connection: Connection, hello: m.Hello) -> ev.LinkEvent:
        held = keys(hello.held) or "nothing"
        self._tell(hello.worker_id, f"Hello {hello.epoch}, {hello.slots} slots, granted {hello.granted}, holds {held}")
        old = self._connections.get(hello.worker_id)
        if old is not None:
            self._names.pop(old.number, None)
        self._names[connection.number] = hello.worker_id
        self._connections[hello.worker_id] = connection
        return ev.Joined(
            worker_id=hello.worker_id,
            slots=hello.slots,
            granted=hello.granted,
            host=hello.host,
            pid=hello.pid,
            python=hello.python,
            dill=hello.dill,
            held=hello.held,
            epoch=hello.epoch,
        )

    def _forget(self, worker_id: WorkerId) -> None:
        connection = self._connections.pop(worker_id, None)
        if connection is not None:
            self._names.pop(connection.number, None)

    def send(self, worker_id: WorkerId, message: m.ToWorker) -> None:
        """Send; tasks for whom there is no connection come back as Undelivered."""
        connection = self._connections.get(worker_id)
        sent = connection is not None and self._post(connection, message, worker_id)
        if not sent and isinstance(message, m.Tasks) and message.items:
            items = tuple([(one.task_id, one.attempt) for one in message.items])
            self._undelivered.append(ev.Undelivered(worker_id, items))
        if isinstance(message, m.Refuse):
            self._forget(worker_id)

    def _post(self, connection: Connection, message: m.ToWorker, worker_id: str = "") -> bool:
        if not self._around.network.can_send_down(connection):
            return False
        if not isinstance(message, m.Pulse):
            text = _brief(message)
            self._around.trace.tell(self._around.clock.now, self._name, f"→ {worker_id or 'somebody'}: {text}")
        self._around.network.send_down(connection, message)
        return True

    def _tell(self, worker_id: str, text: str) -> None:
        self._around.trace.tell(self._around.clock.now, self._name, f"← {worker_id}: {text}")


def _brief(message: m.ToWorker) -> str:
    match message:
        case m.Tasks(items, functions):
            code = [f"code of {', '.join(one.function_id for one in functions)}"] if functions else []
            tasks = [f"Tasks {_keys(items)}"] if items else []
            return ", ".join(tasks + code)
        case m.Ack(items):
            return f"Ack {keys(items)}"
        case m.Kill(items):
            return f"Kill {keys(items)}"
        case m.Refuse(code):
            return f"Refuse {code}"
        case _:
            return type(message).__name__


def _keys(items: Iterable[m.TaskItem]) -> str:
    return keys((one.task_id, one.attempt) for one in items)
