"""A pickle read as data: nothing is imported or called but a short list of rebuild functions of our own.

PyTorch's `weights_only` reader refuses a file for one `argparse.Namespace`, takes no TorchScript archive, and can be
held up by a small pickle (the hash of tuples nested in themselves takes exponential time). This one replaces every
class that it does not know by an inert stand-in, and works within a budget of steps.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable
from itertools import islice
from typing import Any, ClassVar, Protocol

from adapters.rebuilding import KNOWN, dtype_of

# The largest training files (optimiser state of thousands of tensors) take under a million steps; a step costs ~1 us.
BUDGET = 4_000_000
# No rule of safety, for nothing is executed anyway: a file that asks for these is an attack, and its user should know.
_COMMANDS = re.compile(
    r"(?:os|posix|nt|subprocess|pty|runpy|commands|ctypes|socket|shutil|webbrowser)(?:\..*)?\.\w+|"
    r"(?:builtins|__builtin__)\.(?:eval|exec|execfile|compile|open|__import__|input)|importlib\.import_module"
)
_PLAIN = (str, int, float, bytes, type(None), bool, complex)


class Refused(pickle.UnpicklingError):
    """What a pickle asks for that no weight file needs."""


class Opaque:
    """Stands for an object, a class or a function of foreign code, and does nothing.

    ``state`` is what the pickle would have handed to it: the dictionary of attributes, or what stood in its place.
    """

    __slots__ = ("arguments", "entries", "items", "module", "name", "state")

    def __init__(self, module: str, name: str, arguments: Any = ()) -> None:
        self.module, self.name, self.arguments = module, name, arguments
        self.state: Any = None
        self.items: list[Any] = []
        self.entries: list[tuple[Any, Any]] = []

    def __repr__(self) -> str:
        return f"<stand-in for {self.module}.{self.name}>"


class _Function:
    """A function of ours under the name of the one that the pickle asks for."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call


class Source(Protocol):
    """Where the bytes of pickles come from: a file-like object that never returns more than there is."""

    def read(self, n: int = -1, /) -> bytes: ...
    def readline(self) -> bytes: ...


# The pure-Python class, for its opcodes can be counted, and its memo is a dictionary rather than an array as long as
# the largest index that the file names.
_Base: Any = vars(pickle)["_Unpickler"]


class Unpickler(_Base):
    """Reads one pickle from a source. ``replaced``: the full names of what became a stand-in, in order."""

    def __init__(self, source: Source, storage: Callable[[tuple[Any, ...]], Any] | None = None, size: int = 0) -> None:
        super().__init__(source, encoding="latin1")
        self.replaced: dict[str, None] = {}
        self.spent = 0
        self._copied = 0
        self._storage = storage
        self._size = size

    def spend(self, steps: int = 1) -> None:
        self.spent += steps
        if self.spent > BUDGET:
            raise Refused(f"its pickle takes more than {BUDGET:,} steps")

    def load(self) -> Any:
        # On the object, where the base class looks first: this reader alone counts.
        self.__dict__["dispatch"] = _Counting(self.dispatch, self)
        try:
            return super().load()
        finally:
            del self.__dict__["dispatch"]

    def find_class(self, module: str, name: str) -> Any:
        known = KNOWN.get((module, name))
        if known is not None:
            return _Function(known)
        value = dtype_of(module, name)
        if value is not None:
            return value
        # Names are the file's own words: bounded before they reach a terminal.
        full = f"{module}.{name}"[:120]
        if _COMMANDS.fullmatch(full):
            raise Refused(
                f"its pickle asks for {full}, which was not executed; take the weights from a source you trust"
            )
        if len(self.replaced) < 10_000:
            self.replaced[full] = None
        return Opaque(str(module)[:200], str(name)[:200])

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module":
            return pid[1]  # a class, beside its source as text
        if self._storage is None or not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise Refused("its pickle refers to something outside of it that is no tensor storage")
        return self._storage(pid)

    def get_extension(self, code: int) -> None:
        raise Refused("its pickle uses copyreg's extension codes")

    def call(self, function: Any, arguments: Any) -> Any:
        if isinstance(function, Opaque):
            return Opaque(function.module, function.name, arguments)
        if not isinstance(function, _Function):
            raise Refused(f"its pickle calls a {type(function).__name__}")
        if not isinstance(arguments, tuple):
            raise Refused("its pickle calls a function without a tuple of arguments")
        # What a function copies is charged like the steps that would write it.
        self.spend(sum(len(one) for one in arguments if isinstance(one, (list, tuple, dict, set))))
        self._copied += sum(len(one) for one in arguments if isinstance(one, (str, bytes)))
        if self._copied > 4 * self._size + (1 << 20):
            raise Refused("its pickle copies its bytes over and over")
        # A class by its name in the arguments (numpy's ndarray, a tensor class) is only ever a label.
        return function.call(*(one.call if isinstance(one, _Function) else one for one in arguments))

    dispatch: ClassVar[dict[int, Any]] = dict(_Base.dispatch)

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], arguments)

    def load_newobj(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], arguments)

    def load_newobj_ex(self) -> None:
        keywords = self.stack.pop()
        arguments = self.stack.pop()
        function = self.stack.pop()
        if not isinstance(function, Opaque) and keywords:
            raise Refused("its pickle calls a function with named arguments")
        self.stack.append(self.call(function, arguments))

    def _instantiate(self, klass: Any, args: list[Any]) -> None:
        self.append(self.call(klass, tuple(args)))

    def load_build(self) -> None:
        state = self.stack.pop()
        found = self.stack[-1]
        if isinstance(found, Opaque):
            found.state = state
        elif hasattr(found, "rebuild"):
            self.stack[-1] = built = found.rebuild(state)
            # The memo already names the object: later references must see the finished one.
            for key in islice(reversed(self.memo), 64):
                if self.memo[key] is found:
                    self.memo[key] = built
        # Attributes of a dictionary or a tensor (`_metadata`) are no weights.

    def _put(self, target: Any, key: Any, value: Any) -> None:
        if isinstance(target, Opaque):
            target.entries.append((key, value))
        elif isinstance(target, dict):
            target[_hashable(key)] = value
        else:
            raise Refused(f"its pickle sets an item of a {type(target).__name__}")

    def load_setitem(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        self._put(self.stack[-1], key, value)

    def load_setitems(self) -> None:
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._put(self.stack[-1], key, value)

    def load_dict(self) -> None:
        items = self.pop_mark()
        found: dict[Any, Any] = {}
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._put(found, key, value)
        self.append(found)

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Opaque):
            target.items.extend(items)
        elif isinstance(target, list):
            target.extend(items)
        elif isinstance(target, set):
            target.update(_hashable(one) for one in items)
        else:
            raise Refused(f"its pickle adds to a {type(target).__name__}")

    def load_append(self) -> None:
        value = self.stack.pop()
        self._extend([value])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    def load_frozenset(self) -> None:
        self.append(frozenset(_hashable(one) for one in self.pop_mark()))

    def load_bytearray8(self) -> None:
        length = int.from_bytes(self.read(8), "little")
        if length > self._size:
            raise EOFError("a byte array longer than its file")
        self.append(bytearray(self.read(length)))

    def load_refused(self) -> None:
        raise Refused("its pickle uses out-of-band buffers")

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.APPEND[0]] = load_append
    dispatch[pickle.APPENDS[0]] = load_appends
    dispatch[pickle.ADDITEMS[0]] = load_appends
    dispatch[pickle.FROZENSET[0]] = load_frozenset
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8
    dispatch[pickle.NEXT_BUFFER[0]] = load_refused
    dispatch[pickle.READONLY_BUFFER[0]] = load_refused


class _Counting(dict[int, Any]):
    """The table of opcodes, which the reader asks once for every opcode."""

    def __init__(self, table: dict[int, Any], owner: Unpickler) -> None:
        super().__init__(table)
        self._owner = owner

    def __getitem__(self, opcode: int) -> Any:
        self._owner.spend()
        found = self.get(opcode)
        if found is None:
            raise Refused(f"its pickle holds an unknown opcode {opcode}")
        return found


def _hashable(key: Any) -> Any:
    """A key whose hash takes no recursion: a plain value, a stand-in, or a flat tuple of them."""
    flat = key if type(key) is tuple and len(key) <= 64 else (key,)
    for one in flat:
        if type(one) not in _PLAIN and not isinstance(one, Opaque) and type(one).__module__ != "torch":
            raise Refused(f"its pickle uses a {type(one).__name__} as a key")
    return key


def loads(data: bytes, storage: Callable[[tuple[Any, ...]], Any] | None = None) -> tuple[Any, list[str]]:
    """One pickle's content and the names of what was replaced by stand-ins."""
    reader = Unpickler(io.BytesIO(data), storage, len(data))
    return reader.load(), list(reader.replaced)
