"""A client's script with functions of all kinds, and modules of its own; run by the tests of shipping."""

from __future__ import annotations

from typing import Final

MODULES: Final = {
    "shop/__init__.py": "",
    "shop/scale.py": "FACTOR = 10\ndef times(x): return x * FACTOR\n",
    "shop/geometry.py": '''
from __future__ import annotations
import abc, enum, functools, threading
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar
from . import scale

LOCK = threading.Lock()  # nobody uses it, so it does not matter that it does not travel
T = TypeVar("T")

class Color(enum.Enum):
    RED = 1
    BLUE = 2
    def shout(self): return self.name + "!"

class Size(enum.IntEnum):
    SMALL = 1

class Pair(NamedTuple):
    a: int
    b: int = 5
    def total(self): return self.a + self.b

@dataclass
class Point:
    x: int
    y: int = 0
    tags: list = field(default_factory=list)
    def moved(self, by): return Point(self.x + by, self.y + by, [*self.tags, "moved"])

@dataclass(frozen=True, order=True)
class Rank:
    n: int

class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...
    @functools.cached_property
    def twice(self): return self.area() * 2
    @property
    def name(self): return type(self).__name__
    @staticmethod
    def unit(): return "m2"

class Square(Shape, Generic[T]):
    __slots__ = ("side",)
    def __init__(self, side): self.side = side
    def area(self): return self.side ** 2

class Trouble(Exception):
    """An exception of the user's own."""
    def __init__(self, code):
        super().__init__(code)
        self.code = code

def scaled(p: Point) -> Point: return Point(p.x * scale.FACTOR, p.y * scale.FACTOR)
def fail(code): raise Trouble(code)
''',
    "shop/records.py": """
import dataclasses, enum, logging, threading
from dataclasses import KW_ONLY, InitVar, dataclass, field
from typing import ClassVar, Generic, Protocol, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)

def fresh(): return [7]

@dataclass(slots=True)
class Slots:
    a: int
    b: list = field(default_factory=fresh)

@dataclass
class Base:
    a: int = 1
    seen: ClassVar[int] = 5

@dataclass(kw_only=True)
class Derived(Base, Generic[T]):
    b: int
    start: InitVar[int] = 2
    c: int = field(init=False, repr=False, compare=False)
    def __post_init__(self, start): self.c = start * 10
    def __eq__(self, other): return (self.a, self.b, self.c) == (other.a, other.b, other.c)

@dataclass(frozen=True)
class Frozen:
    a: int
    _: KW_ONLY
    b: int = 3
    def __hash__(self): return 99

class Mode(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()

class Name(str, enum.Enum):
    ONE = "one"
    def __str__(self): return "the " + self.value

class HasArea(Protocol):
    def area(self): ...

class Counting(type):
    def __call__(cls, *args):
        made = super().__call__(*args)
        made.counted = True
        return made

class Counted(metaclass=Counting):
    def __init__(self, x): self.x = x

class Tree:
    def __init__(self): self.children = []
    def grow(self):
        child = type(self)()
        child.parent = self
        self.children.append(child)
        return self

def all_of_them():
    log.debug("a message")
    frozen = dataclasses.replace(Frozen(1, b=4), a=2)
    return [Slots(1), Derived(b=2), frozen, hash(frozen), Mode.READ | Mode.WRITE, Name.ONE, str(Name.ONE),
        Counted(1).counted, Counted(2), Base.seen, Tree().grow(), dataclasses.asdict(Slots(2))]
""",
    "lazily.py": "import os\nVALUE = 7\ndef value(): return VALUE\n",
    "needs_worker.py": "import module_of_the_workers\n",
}

CASES: Final = """
import contextlib, functools, math, sys, threading
import shop.records
from shop.records import Counted, Derived, Frozen, Mode, Name, Slots, Tree
import concurrent.futures
import shop, shop.geometry, shop.scale as scale
from shop.geometry import Color, Pair, Point, Rank, Shape, Size, Square, Trouble, fail, scaled

FACTOR = 3
LIMITS = {"low": 1}

def plain(x, y=2, *rest, z: int = 4, **more): return x, y, rest, z, more
def uses_globals(x): return x * FACTOR + LIMITS["low"] + math.sqrt(4)
def factorial(n): return 1 if n < 2 else n * factorial(n - 1)
def even(n): return True if n == 0 else odd(n - 1)
def odd(n): return False if n == 0 else even(n - 1)
def adder(n):
    def add(x): return [x + n + i for i in range(2)]
    return add
def counter():
    n = 0
    def count():
        nonlocal n
        n += 1
    def shown(): return n
    return count, shown
count, shown = counter()
def shares_a_cell():
    count(); count()
    return shown()
def decorated_by(f):
    @functools.wraps(f)
    def wrapper(*args): return "wrapped", f(*args)
    return wrapper
@decorated_by
def decorated(x): return x + FACTOR
@functools.lru_cache(maxsize=10)
def fibonacci(n): return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)
@contextlib.contextmanager
def opened(n): yield n + 1
def uses_context():
    with opened(3) as value: return value
@functools.singledispatch
def kind_of(x): return "object"
@kind_of.register
def _(x: int): return "int"
def dispatches(): return kind_of(1), kind_of("x")
class Multiplier:
    shared = 5
    def __init__(self, n): self.n = n
    def __call__(self, x): return x * self.n
    def method(self, x): return x * self.n + self.shared
    @classmethod
    def make(cls, n): return cls(n)
    @staticmethod
    def static(x): return x + 100
class Special(Multiplier):
    def __init__(self, n):
        super().__init__(n)
        self.__private = 2
    def method(self, x): return super().method(x) + self.__private
def takes_mine(m): return m.method(2), [Special(m.n + 1)]
def modules(): return scale.times(2), shop.scale.times(3), shop.geometry.Color.RED.shout()
def imports_inside():
    import lazily
    from lazily import value as v
    from shop import scale as s
    import shop.geometry as g
    return lazily.VALUE, v(), s.FACTOR, g.Color.BLUE.value
def enums(c): return c, c is Color.RED, Size.SMALL + 1
def records(): return Pair(1), Pair(1).total(), Rank(1) < Rank(2), Rank(3), hash(Rank(3)) == hash(Rank(3))
def shapes():
    s = Square(3)
    return s.twice, s.name, s.unit(), isinstance(s, Shape), s
def local_class():
    class Local:
        def who(self): return __class__.__name__
    return Local().who()
def yields(n):
    def numbers():
        for i in range(n): yield i
    return list(numbers())
def remembers(x, seen=[]):
    seen.append(x)
    return seen
def raises(): raise Trouble(7)
def raises_from():
    try: fail(1)
    except Trouble as error: raise ValueError("outer") from error
def annotated(p: Point) -> Point: return p.moved(1)
def whole_module(m=shop.scale): return getattr(m, "times")(4)
def returns_a_lambda(): return lambda x: x + 1
def threads():
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return list(pool.map(factorial, range(4)))
if sys.version_info >= (3, 12):
    exec("def newer[T](x: T) -> T: return x")
twins = (lambda x: x + 1), (lambda x: x + 2)

cases = {
    "plain": (plain, (1,), {"k": 5}, lambda v: v == (1, 2, (), 4, {"k": 5})),
    "globals": (uses_globals, (2,), {}, lambda v: v == 9.0),
    "recursion": (factorial, (5,), {}, lambda v: v == 120),
    "mutual recursion": (even, (10,), {}, lambda v: v is True),
    "closure": (adder(10), (1,), {}, lambda v: v == [11, 12]),
    "shared cell": (shares_a_cell, (), {}, lambda v: v == 2),
    "decorated": (decorated, (1,), {}, lambda v: v == ("wrapped", 4)),
    "cached": (fibonacci, (20,), {}, lambda v: v == 6765),
    "context manager": (uses_context, (), {}, lambda v: v == 4),
    "single dispatch": (dispatches, (), {}, lambda v: v == ("int", "object")),
    "callable instance": (Multiplier(3), (4,), {}, lambda v: v == 12),
    "bound method": (Special(3).method, (4,), {}, lambda v: v == 19),
    "class method": (Special.make, (4,), {}, lambda v: type(v) is Special and v.n == 4),
    "static method": (Multiplier.static, (4,), {}, lambda v: v == 104),
    "class": (Special, (4,), {}, lambda v: type(v) is Special),
    "partial": (functools.partial(adder(1), 5), (), {}, lambda v: v == [6, 7]),
    "lambda": (lambda f, x: f(x), (lambda y: y + FACTOR, 4), {}, lambda v: v == 7),
    "first of two lambdas on a line": (twins[0], (1,), {}, lambda v: v == 2),
    "second of two lambdas on a line": (twins[1], (1,), {}, lambda v: v == 3),
    "own class as argument": (takes_mine, (Special(1),), {},
        lambda v: v[0] == 9 and type(v[1][0]) is Special and v[1][0].n == 2),
    "modules": (modules, (), {}, lambda v: v == (20, 30, "RED!")),
    "imports inside": (imports_inside, (), {}, lambda v: v == (7, 7, 10, 2)),
    "module as a value": (whole_module, (), {}, lambda v: v == 40),
    "enums": (enums, (Color.RED,), {}, lambda v: v[0] is Color.RED and v[1:] == (True, 2)),
    "records": (records, (), {},
        lambda v: type(v[0]) is Pair and v[0] == Pair(1) and v[1:3] == (6, True) and v[3] == Rank(3) and v[4]),
    "shapes": (shapes, (), {}, lambda v: v[:4] == (18, "Square", "m2", True) and type(v[4]) is Square),
    "local class": (local_class, (), {}, lambda v: v == "Local"),
    "generator inside": (yields, (3,), {}, lambda v: v == [0, 1, 2]),
    "mutable default": (remembers, (1,), {}, lambda v: v == [1]),
    "function of an own module": (scaled, (Point(1, 2),), {}, lambda v: type(v) is Point and v == Point(10, 20)),
    "dataclass as argument": (annotated, (Point(1, 2),), {}, lambda v: v == Point(2, 3, ["moved"])),
    "list of own objects": (sorted, ([Rank(2), Rank(1)],), {}, lambda v: v == [Rank(1), Rank(2)]),
    "elaborate classes": (shop.records.all_of_them, (), {}, lambda v: v[:2] == [Slots(1, [7]), Derived(b=2)]
        and v[2:8] == [Frozen(2, b=4), 99, Mode.READ | Mode.WRITE, Name.ONE, "the one", True]
        and type(v[8]) is Counted and v[9] == 5
        and type(v[10]) is Tree and v[10].children[0].parent is v[10] and v[11] == {"a": 2, "b": [7]}),
    "submodule of an installed package": (threads, (), {}, lambda v: v == [1, 1, 2, 6]),
    "builtin": (pow, (2, 10), {}, lambda v: v == 1024),
    "own exception": (raises, (), {}, lambda v: type(v) is Trouble and v.code == 7),
    "own exception as cause": (raises_from, (), {}, lambda v: type(v.__cause__) is Trouble),
}
"""
