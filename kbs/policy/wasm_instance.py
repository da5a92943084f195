"""One policy that OPA compiled to WebAssembly, and one running copy of it (OPA's Wasm ABI 1.2 and later).

The compiled module comes from OPA's compiler, run by us; attackers control JSON only. Never load an uploaded module.

wasmtime's `Func.__call__` looks types up on each call (100 µs). `_Export` calls the same C functions, whose signatures
are stable, with addresses that were taken once. That is the one place that reaches into `wasmtime._ffi`.
"""

from __future__ import annotations

import ctypes
import json
import resource
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

import wasmtime
import wasmtime._func
from wasmtime import _ffi as ffi

from kbs.errors import PolicyEngineUnavailable
from kbs.policy import builtins
from kbs.policy.outcome import broken

PAGE: Final = 65536
MEMORY_LIMIT: Final = 1000 * PAGE  # 62.5 MiB per instance, of which a decision needs about 1
FUEL: Final = 50_000_000  # about 20 times what a TDX event log of 60 entries needs
_FUEL_PER_OCTET: Final = 400  # of input: reading it and writing as much out again
_RESULT_CHUNK: Final = 8192
_NOTHING: Final = memoryview(b"")
_BUILTIN_IMPORTS: Final = {f"opa_builtin{arity}": arity for arity in range(5)}
_EXPORTS: Final = {"opa_eval": 7, "opa_value_dump": 1, "opa_value_parse": 2, "opa_malloc": 1}


def new_engine(*, interpreter: bool = False) -> wasmtime.Engine:
    """Make an engine whose modules survive fork and cannot run away.

    interpreter: run on Pulley, 10 times slower, where the system refuses writable and executable pages
        (`MemoryDenyWriteExecute`).
    """
    config = wasmtime.Config()
    config.consume_fuel = True
    # Its thread pool would be dead in a forked child, where the next compilation would wait for ever.
    config.parallel_compilation = False
    # Where all that 32 bits can name is reserved (addresses, not memory) no access needs a comparison: a sixth of the
    # instructions.
    rationed = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    config.memory_reservation = MEMORY_LIMIT if rationed else 1 << 32
    config.memory_reservation_for_growth = 0
    config.memory_may_move = False  # so that one view of it stays good for as long as the instance lives
    config.wasm_threads = False
    config.wasm_memory64 = False
    config.wasm_relaxed_simd_deterministic = True
    config.wasm_relaxed_simd = False
    if interpreter:
        config.target = "pulley64"
    return wasmtime.Engine(config)


class WasmModule:
    """A compiled policy, without state; shared by threads and inherited over fork."""

    __slots__ = ("engine", "first_pages", "imports", "module")

    def __init__(self, engine: wasmtime.Engine, wasm: bytes) -> None:
        """Compile (0.1 to 0.3 s).

        Raises:
            PolicyBroken: no module of OPA's, or one that imports what nobody offers.
            PolicyEngineUnavailable: this system refuses to make code executable.
        """
        self.engine = engine
        try:
            self.module = wasmtime.Module(engine, wasm)
        except wasmtime.WasmtimeError as err:
            if "mprotect" in str(err) or "executable" in str(err):
                raise PolicyEngineUnavailable(
                    "the policy engine cannot run here",
                    operator_detail="the system refuses executable pages; set the policy engine to its interpreter",
                ) from err
            raise broken(f"the compiled policy is not a WebAssembly module: {str(err)[:200]}") from err
        # OPA's compiler states 2 pages also for a module whose constants need more than that.
        self.first_pages = len(wasm) // PAGE + 1
        self.imports: tuple[tuple[str, str | None, Any], ...] = tuple(
            (i.module, i.name, i.type) for i in self.module.imports
        )
        for origin, name, _ in self.imports:
            if origin != "env" or (name not in _BUILTIN_IMPORTS and name not in ("memory", "opa_abort")):
                raise broken(f"the compiled policy imports {origin}.{name}, which is not part of OPA's ABI")


def _c_function(name: str, result: Any, *arguments: Any, brief: bool = True) -> Any:
    """A function of wasmtime's C API that takes plain addresses: ctypes makes and checks an object for each pointer.

    brief: other threads of this interpreter wait as long as it runs.
    """
    return (ctypes.PYFUNCTYPE if brief else ctypes.CFUNCTYPE)(result, *arguments)((name, ffi.dll))


_ADDRESS: Final = ctypes.c_void_p
_SIZE: Final = ctypes.c_size_t
_CALL: Final = _c_function("wasmtime_func_call", *[_ADDRESS] * 4, _SIZE, _ADDRESS, _SIZE, _ADDRESS, brief=False)
_SET_FUEL: Final = _c_function("wasmtime_context_set_fuel", _ADDRESS, _ADDRESS, ctypes.c_uint64)
_MEMORY_DATA: Final = _c_function("wasmtime_memory_data", _ADDRESS, _ADDRESS, _ADDRESS)
_MEMORY_SIZE: Final = _c_function("wasmtime_memory_data_size", _SIZE, _ADDRESS, _ADDRESS)


def _address(pointer: Any) -> int:
    return ctypes.addressof(pointer.contents)


class _Export:
    """One exported function of one instance. Belongs to whoever holds the instance; not for two threads."""

    __slots__ = ("_answer", "_fixed", "_kept", "_slots", "_trap")

    def __init__(self, func: wasmtime.Func, count: int) -> None:
        arguments, result = (ffi.wasmtime_val_t * count)(), (ffi.wasmtime_val_t * 1)()
        self._kept = (func, arguments, result)
        self._slots = [argument.of for argument in arguments]
        self._answer = result[0].of
        self._trap = ctypes.POINTER(ffi.wasm_trap_t)()
        self._fixed = (
            ctypes.addressof(func._func),
            ctypes.addressof(arguments),
            count,
            ctypes.addressof(result),
            1,
            ctypes.addressof(self._trap),
        )

    def __call__(self, context: int, *values: int) -> int:
        """Call with i32 values, get the i32 result. Raises `Trap` or `WasmtimeError`: then it is not called again."""
        for slot, value in zip(self._slots, values, strict=True):
            slot.i32 = value
        error = _CALL(context, *self._fixed)
        if error is not None:
            raise wasmtime.WasmtimeError._from_ptr(ctypes.cast(error, ctypes.POINTER(ffi.wasmtime_error_t)))
        if self._trap:  # type: ignore[truthy-bool]
            raise wasmtime.Trap._from_ptr(self._trap)
        return int(self._answer.i32)


class _Aborted(Exception):
    """The guest called `opa_abort`, or a host function refused to go on."""


class WasmInstance:
    """A running copy with its data loaded. One thread at a time: two in one instance abort the process.

    After any exception the instance is closed and must be dropped.
    """

    def __init__(self, module: WasmModule, data_json: bytes, *, fuel: int = FUEL) -> None:
        """Start and load `data_json` (a JSON object: everything below `data`).

        Raises:
            PolicyBroken: it does not start, the data does not load, or it needs a function that is not offered.
        """
        self._fuel = fuel
        self._store = wasmtime.Store(module.engine)
        self._store.set_limits(memory_size=MEMORY_LIMIT, instances=1, memories=1, tables=1)
        self._functions: Mapping[int, builtins.HostFunction] = {}
        self._call = builtins.Call(None)
        self._view = _NOTHING
        try:
            self._start(module, data_json)
        except Exception as err:  # noqa: BLE001 - the wall around the guest
            self._fail(err, "the compiled policy does not start")

    def _start(self, module: WasmModule, data_json: bytes) -> None:
        store = self._store
        # Loading is not evaluating: its cost is the operator's data, which the memory limit bounds.
        store.set_fuel(max(self._fuel, 2_000_000_000))
        imports: list[Any] = []
        for _, name, kind in module.imports:
            if name == "memory":
                self._memory = wasmtime.Memory(
                    store,
                    wasmtime.MemoryType(wasmtime.Limits(kind.limits.min + module.first_pages, MEMORY_LIMIT // PAGE)),
                )
                imports.append(self._memory)
            else:
                host: Callable[..., int | None] = self._abort if name == "opa_abort" else self._builtin
                imports.append(wasmtime.Func(store, kind, host, access_caller=True))
        exports: Any = wasmtime.Instance(store, module.module, imports).exports(store)
        self._context = _address(store._context())
        self._memory_address = ctypes.addressof(self._memory._memory)
        self._eval, self._dump, self._parse, self._malloc = (
            _Export(exports[name], count) for name, count in _EXPORTS.items()
        )
        json_dump = exports["opa_json_dump"]
        self.entrypoints: dict[str, int] = json.loads(
            self._read(self._context, json_dump(store, exports["entrypoints"](store)))
        )
        wanted: dict[str, int] = json.loads(self._read(self._context, json_dump(store, exports["builtins"](store))))
        missing = sorted(wanted.keys() - builtins.HOST_FUNCTIONS.keys())
        if missing:
            raise _Aborted("functions that this engine does not offer: " + ", ".join(missing)[:500])
        self._functions = {number: builtins.HOST_FUNCTIONS[name] for name, number in wanted.items()}
        at = self._malloc(self._context, len(data_json))
        self._write(self._context, at, data_json)
        self._data = exports["opa_json_parse"](store, at, len(data_json))
        if self._data == 0:
            raise _Aborted("the data document does not parse")
        # The parsed data keeps no pointer into its text, but the heap only grows: what follows is scratch.
        self._heap = (exports["opa_heap_ptr_get"](store) + 15) & ~7

    def evaluate(self, entrypoint: str, input_json: bytes, now_ns: Callable[[], int] | None = None) -> bytes:
        """Run one entry point over one input and return OPA's JSON result set.

        input_json: one JSON object from our own strict encoder. OPA takes bytes that do not parse for an undefined
            input; the wrappers then answer nothing.
        now_ns: what `time.now_ns` answers, asked at most once per evaluation.

        Raises:
            PolicyBroken: trap, abort, out of fuel or memory. The instance is closed.
        """
        try:
            size = len(input_json)
            context = self._context
            _SET_FUEL(context, self._fuel + size * _FUEL_PER_OCTET)
            self._call = builtins.Call(now_ns)
            self._write(context, self._heap, input_json)
            scratch = (self._heap + size + 15) & ~7
            address = self._eval(context, 0, self.entrypoints[entrypoint], self._data, self._heap, size, scratch, 0)
            return self._read(context, address)
        except Exception as err:  # noqa: BLE001 - the wall around the guest
            self._fail(err, "the policy was stopped")

    def close(self) -> None:
        """Free the guest's memory now; host callbacks form a cycle that would otherwise wait for the collector."""
        self._view = _NOTHING
        self._store.close()

    def _fail(self, err: Exception, what: str) -> NoReturn:
        self.close()
        # wasmtime keeps the last exception of a host function for ever, and with it this instance.
        wasmtime._func.LAST_EXCEPTION = None
        # A trap's text begins with a backtrace; the cause stands in its last line.
        why = self._call.aborted or (str(err).strip().splitlines() or [type(err).__name__])[-1].strip()
        raise broken(f"{what}: {why[:500]}") from err

    def _write(self, context: int, address: int, data: bytes) -> None:
        end = address + len(data)
        view = self._reach(context, end)
        if end > len(view):
            self._memory.grow(self._store, (end - len(view) + PAGE - 1) // PAGE)
            view = self._reach(context, end)
        view[address:end] = data

    def _read(self, context: int, address: int) -> bytes:
        """The NUL-terminated text at `address`, never reading past the guest's memory."""
        length = _RESULT_CHUNK
        while address > 0:
            text = bytes(self._reach(context, address + length)[address : address + length])
            end = text.find(b"\0")
            if end >= 0:
                return text[:end]
            if len(text) < length:
                break
            length *= 8
        raise _Aborted("an address outside the guest's memory")

    def _reach(self, context: int, end: int) -> memoryview:
        """The guest's memory, which never moves or shrinks; measured again where `end` is beyond what it had."""
        if end > len(self._view):
            size = _MEMORY_SIZE(context, self._memory_address)
            base = _MEMORY_DATA(context, self._memory_address)
            self._view = memoryview((ctypes.c_ubyte * size).from_address(base)).cast("B")
        return self._view

    def _abort(self, caller: wasmtime.Caller, address: int) -> None:
        self._call.aborted = self._read(_address(caller._context()), address).decode("utf-8", "replace")[:500]
        raise _Aborted(self._call.aborted)

    def _builtin(self, caller: wasmtime.Caller, number: int, _reserved: int, *addresses: int) -> int:
        """Answer a function that OPA's runtime lacks. 0 is undefined, which is what OPA makes of a failed one."""
        context = _address(caller._context())
        try:
            self._call.count()
            arguments = [
                builtins.decode(self._read(context, self._dump(context, address)), self._call) for address in addresses
            ]
            answer = builtins.encode(self._functions[number](self._call, *arguments), self._call)
        except builtins.Undefined:
            return 0
        except builtins.LimitPassed as err:
            self._call.aborted = str(err)
            raise
        at = self._malloc(context, len(answer))
        self._write(context, at, answer)
        return self._parse(context, at, len(answer))
