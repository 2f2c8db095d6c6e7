"""What a world is like: its fleet, its tasks, its weather, and how often what goes wrong. All of them, by name."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from everfaas_core.dispatch.fleet import CreditRule
from everfaas_core.sim.network import Weather
from everfaas_core.sim.store_line import StoreWeather
from everfaas_core.sim.surroundings import Timing


class Fault(Struct, frozen=True):
    """Something that goes wrong `per_s` times a second in the whole world, each for `short_s` … `long_s`."""

    kind: str
    per_s: float
    short_s: float = 0.0
    long_s: float = 0.0


class Act(Struct, frozen=True):
    """One fault of a script: at an instant, to a target, for so long."""

    at_s: float
    kind: str
    target: str
    for_s: float = 0.0


class Mix(Struct, frozen=True, kw_only=True):
    """Shares of the tasks that do something else than return."""

    raises: float = 0.02
    exits: float = 0.002  # kills its slot each time: ends as a dead letter
    hangs: float = 0.002  # has a timeout, and needs it
    timeout_s: float = 2.0
    cancelled: float = 0.01
    delayed: float = 0.02


CALM: Final = Mix(raises=0.0, exits=0.0, hangs=0.0, cancelled=0.0, delayed=0.0)


class Scenario(Struct, frozen=True, kw_only=True):
    """See the module. Durations in virtual seconds."""

    name: str
    summary: str
    workers: int = 6
    slots: int = 3
    dispatchers: int = 1
    tasks: int = 1500
    functions: int = 8
    rule: CreditRule = "granted"
    task_s: float = 0.2  # mean of the time that a function takes
    load: float = 0.7  # of the fleet's capacity, while tasks are submitted
    mix: Mix = Mix()
    weather: Weather = Weather()
    store: StoreWeather = StoreWeather()
    timing: Timing = Timing()
    one_machine: bool = False  # the dispatchers see each other's processes: a death is known before the lease runs out
    drift: float = 0.0  # workers' clocks go faster or slower by up to this share
    faults: tuple[Fault, ...] = ()
    script: tuple[Act, ...] = ()


WORKER_KILLED: Final = "worker killed"
WORKER_STOPPED: Final = "worker stopped"
WORKER_LEAVES: Final = "worker leaves"
SLOT_KILLED: Final = "slot killed"
CONNECTION_BROKEN: Final = "connection broken"
PARTITION: Final = "partition"
DISPATCHER_KILLED: Final = "dispatcher killed"
DISPATCHER_STOPPED: Final = "dispatcher stopped"
DISPATCHER_LEAVES: Final = "dispatcher leaves"
STORE_REFUSES: Final = "store refuses"
STORE_SILENT: Final = "store silent"
STORE_CUT_OFF: Final = "store cut off from one dispatcher"

_EVERYDAY: Final = (
    Fault(WORKER_KILLED, 0.2, 0.5, 4.0),
    Fault(WORKER_STOPPED, 0.1, 0.5, 6.0),
    Fault(WORKER_LEAVES, 0.1, 0.2, 2.0),
    Fault(SLOT_KILLED, 0.5),
    Fault(CONNECTION_BROKEN, 0.5),
    Fault(PARTITION, 0.1, 0.2, 1.2),
)

_EVERYTHING: Final = (
    *_EVERYDAY,
    Fault(PARTITION, 0.1, 1.0, 8.0),
    Fault(DISPATCHER_KILLED, 0.15, 0.1, 5.0),
    Fault(DISPATCHER_STOPPED, 0.05, 0.5, 8.0),
    Fault(DISPATCHER_LEAVES, 0.05, 0.1, 3.0),
    Fault(STORE_REFUSES, 0.05, 0.2, 4.0),
    Fault(STORE_CUT_OFF, 0.05, 0.5, 8.0),
)
_BAD_WEATHER: Final = Weather(delay_s=0.002, spike_share=0.02, spike_s=0.2, echo_share=0.03)
_BAD_STORE: Final = StoreWeather(request_lost=0.003, reply_lost=0.005)

_ALL: Final = (
    Scenario(name="calm", summary="nothing goes wrong", mix=CALM),
    Scenario(
        name="slow-network",
        summary="messages take 30 ms, some ten times that, and some reports are heard twice",
        weather=Weather(delay_s=0.03, spike_share=0.05, spike_s=0.3, echo_share=0.1),
        store=StoreWeather(latency_s=0.02),
        faults=(Fault(CONNECTION_BROKEN, 1.0),),
    ),
    Scenario(
        name="flapping-workers",
        summary="workers and slots are killed, stopped and drained all the time, connections break",
        faults=_EVERYDAY,
        weather=Weather(echo_share=0.02),
    ),
    Scenario(
        name="capacity",
        summary="as flapping-workers, with the credit rule of push mode",
        rule="capacity",
        faults=_EVERYDAY,
        weather=Weather(echo_share=0.02),
    ),
    Scenario(
        name="slots-crash",
        summary="slots are killed five times a second, reports are heard twice",
        weather=Weather(delay_s=0.005, echo_share=0.2),
        faults=(Fault(SLOT_KILLED, 5.0), Fault(CONNECTION_BROKEN, 0.3)),
    ),
    Scenario(
        name="dispatcher-murders",
        summary="the dispatcher is killed every two seconds; its workers outlive it",
        tasks=600,
        task_s=0.8,
        faults=(Fault(DISPATCHER_KILLED, 0.5, 0.1, 4.0), Fault(CONNECTION_BROKEN, 0.2)),
    ),
    Scenario(
        name="dispatcher-relay",
        summary="three dispatchers on one store, killed and drained: they take over from each other",
        tasks=600,
        task_s=0.8,
        dispatchers=3,
        faults=(
            Fault(DISPATCHER_KILLED, 0.4, 0.1, 4.0),
            Fault(DISPATCHER_LEAVES, 0.2, 0.1, 2.0),
            Fault(SLOT_KILLED, 0.2),
        ),
    ),
    Scenario(
        name="store-outages",
        summary="the store refuses or is silent for seconds; exchanges fail before and after they are applied",
        tasks=600,
        task_s=0.8,
        dispatchers=2,
        store=StoreWeather(request_lost=0.01, reply_lost=0.02),
        faults=(Fault(STORE_REFUSES, 0.1, 0.2, 5.0), Fault(STORE_SILENT, 0.05, 0.2, 5.0)),
    ),
    Scenario(
        name="split-brain",
        summary="workers are cut off from dispatchers, dispatchers from the store, dispatchers stop and return",
        tasks=250,
        task_s=5.0,
        dispatchers=2,
        faults=(
            Fault(PARTITION, 0.4, 0.5, 12.0),
            Fault(STORE_CUT_OFF, 0.1, 0.5, 4.0),
            Fault(DISPATCHER_STOPPED, 0.1, 1.0, 10.0),
        ),
    ),
    Scenario(
        name="hang-and-return",
        summary="workers are stopped for about as long as it takes to be given up, and go on",
        tasks=400,
        task_s=2.0,
        weather=Weather(delay_s=0.02),
        faults=(Fault(WORKER_STOPPED, 1.0, 0.5, 5.0),),
    ),
    Scenario(
        name="stopped-dispatcher",
        summary="the one dispatcher is stopped for seconds, and goes on",
        tasks=600,
        task_s=1.0,
        faults=(Fault(DISPATCHER_STOPPED, 0.2, 0.5, 8.0),),
    ),
    Scenario(
        name="clock-skew",
        summary="workers are stopped and return, and their clocks are up to 5 % wrong",
        tasks=600,
        task_s=1.0,
        drift=0.05,
        faults=(Fault(WORKER_STOPPED, 1.0, 0.5, 4.0), Fault(CONNECTION_BROKEN, 0.3)),
    ),
    Scenario(
        name="long-tasks",
        summary="tasks longer than every timeout, while dispatchers and the ways to them come and go",
        dispatchers=3,
        tasks=150,
        task_s=10.0,
        faults=(
            Fault(PARTITION, 0.2, 0.5, 12.0),
            Fault(STORE_CUT_OFF, 0.05, 1.0, 12.0),
            Fault(DISPATCHER_KILLED, 0.2, 0.1, 6.0),
            Fault(DISPATCHER_STOPPED, 0.05, 1.0, 10.0),
            Fault(DISPATCHER_LEAVES, 0.1, 0.1, 2.0),
            Fault(WORKER_STOPPED, 0.05, 0.5, 6.0),
        ),
    ),
    Scenario(
        name="one-machine",
        summary="three dispatchers on one machine, which take over from each other at once",
        dispatchers=3,
        one_machine=True,
        tasks=300,
        task_s=4.0,
        faults=(
            Fault(DISPATCHER_KILLED, 0.5, 0.1, 4.0),
            Fault(DISPATCHER_STOPPED, 0.05, 0.5, 4.0),
            Fault(CONNECTION_BROKEN, 0.3),
        ),
    ),
    Scenario(
        name="everything",
        summary="all of it at once, on three dispatchers",
        tasks=1500,
        task_s=0.8,
        dispatchers=3,
        workers=12,
        drift=0.01,
        weather=_BAD_WEATHER,
        store=_BAD_STORE,
        faults=_EVERYTHING,
    ),
    Scenario(
        name="everything-long",
        summary="all of it at once, with tasks longer than every timeout, on one machine",
        tasks=150,
        task_s=10.0,
        dispatchers=3,
        workers=12,
        one_machine=True,
        drift=0.01,
        weather=_BAD_WEATHER,
        store=_BAD_STORE,
        faults=_EVERYTHING,
    ),
    Scenario(
        name="big-fleet",
        summary="a thousand workers, a million tasks, several faults a second",
        workers=1000,
        slots=4,
        dispatchers=2,
        tasks=1_000_000,
        task_s=0.25,
        weather=Weather(echo_share=0.001),
        store=StoreWeather(request_lost=0.0005, reply_lost=0.0005),
        faults=(
            Fault(WORKER_KILLED, 2.0, 0.5, 4.0),
            Fault(WORKER_STOPPED, 1.0, 0.5, 6.0),
            Fault(WORKER_LEAVES, 1.0, 0.2, 2.0),
            Fault(SLOT_KILLED, 5.0),
            Fault(CONNECTION_BROKEN, 5.0),
            Fault(PARTITION, 1.0, 0.2, 1.2),
            Fault(DISPATCHER_KILLED, 0.05, 0.1, 2.0),
            Fault(STORE_REFUSES, 0.03, 0.2, 2.0),
        ),
    ),
)

SCENARIOS: Final[dict[str, Scenario]] = {scenario.name: scenario for scenario in _ALL}
