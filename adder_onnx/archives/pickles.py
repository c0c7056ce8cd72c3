"""Whether a pickle can be read without harm to memory, time or the stack.

`pickle.Unpickler` takes what a pickle says at its word: a place in the memo, a length, a number.
This reads the instructions alone, without making any object, and refuses what no pickle of arrays
and their names has:

1. lengths that go beyond the end of the data, lines and numbers longer than names and numbers are;
2. places in the memo far beyond how many instructions there were;
3. values nested deeper than `_DEPTH`, whose hashing or freeing would leave no stack;
4. more instructions than `_MOST`, or values that would take more memory than there may be;
5. more than `_ODD` integers of 64 bits and frozen sets, which can be chosen to have one hash, so
   that a dictionary of them takes forever;
6. buffers outside the pickle, and classes by their number in a registry.

What the pickle would call is for its reader to decide, by names.
"""

from __future__ import annotations

import array
import mmap
import pickle

from adder_onnx import memory

__all__ = ["check_pickle"]

_MOST = 10_000_000
_DEPTH = 500
_ODD = 4096
_LONGEST_LINE = 1 << 16
_LONGEST_NUMBER = 1024
_SPARE_MEMO = 1024
_VALUE_BYTES = 100
"""About what the value of an instruction takes, with its place in what holds it."""

_NO_END = "it has no end"

# Instructions by what they do, and the bytes of what follows them.
_PUSHED = {
    **dict.fromkeys(b"N\x88\x89)]}\x8f", 0),
    **{ord("K"): 1, ord("M"): 2, ord("J"): 4, ord("G"): 8},
}
_COUNTED = {0x8C: 1, ord("U"): 1, ord("C"): 1, ord("X"): 4, ord("B"): 4, ord("T"): 4}
_COUNTED |= dict.fromkeys((0x8D, 0x8E, 0x96), 8)
_LINES = frozenset(b"SVP")
_NUMBERS = frozenset(b"IFL")
_LONGS = {0x8A: 1, 0x8B: 4}
_GETS = {ord("h"): 1, ord("j"): 4}
_PUTS = {ord("q"): 1, ord("r"): 4}
_TUPLES = {0x85: 1, 0x86: 2, 0x87: 3}
_TO_MARK = frozenset(b"tld\x91")
_INTO_MARKED = frozenset(b"eu\x90")
_INTO = {ord("a"): 1, ord("s"): 2, ord("b"): 1}
_CALLS = {ord("R"): 1, 0x81: 1, 0x92: 2, 0x93: 1, ord("Q"): 0}


def check_pickle(data: bytes | mmap.mmap, start: int = 0, what: str = "a pickle") -> int:
    """Checks the pickle that begins at ``start``.

    Args:
        data: bytes, with the pickle among them.
        start: where it begins.
        what: what it is in, for messages about memory.

    Returns:
        Where it ends.

    Raises:
        pickle.UnpicklingError: it is cut off, damaged, or breaks one of the rules.
        AdderError: its values would take more memory than may be taken.
    """
    try:
        reader = _Reader(data, start)
        end = reader.read()
    except (IndexError, ValueError) as error:  # nothing on the stack, no such place
        raise pickle.UnpicklingError(f"it is damaged: {error}") from error
    memory.require(reader.count * _VALUE_BYTES, f"{what}: what is pickled")
    return end


class _Reader:
    """Follows the instructions with the depth of each value in its place."""

    def __init__(self, data: bytes | mmap.mmap, start: int) -> None:
        self._data = data
        self._at = start
        self._stack: list[int] = []
        self._marks: list[int] = []
        self._memo = array.array("H")  # 0 where nothing was put
        self._used = 0
        self.count = 0
        self._odd = 0

    def read(self) -> int:
        data, stack, marks = self._data, self._stack, self._marks
        size = len(data)
        while True:
            self.count += 1
            if self.count > _MOST:
                raise pickle.UnpicklingError(f"it has more than {_MOST} instructions")
            if self._at >= size:
                raise pickle.UnpicklingError(_NO_END)
            op = data[self._at]
            self._at += 1
            if op in _GETS:
                stack.append(self._get(self._int(_GETS[op])))
            elif op in _PUTS:
                self._put(self._int(_PUTS[op]))
            elif op in _PUSHED:
                self._skip(_PUSHED[op])
                stack.append(1)
            elif op in _COUNTED:
                self._skip(self._int(_COUNTED[op]))
                stack.append(1)
            elif op == 0x94:  # MEMOIZE
                self._put(self._used)
            elif op == 0x28:  # MARK
                marks.append(len(stack))
            elif op in _TUPLES:
                self._collect(len(stack) - _TUPLES[op])
            elif op in _TO_MARK:
                if op == 0x91:
                    self._count_odd()
                self._collect(marks.pop())
            elif op in _CALLS:
                self._collect(len(stack) - 1 - _CALLS[op])
            elif op in _INTO:
                self._put_into(len(stack) - _INTO[op])
            elif op in _INTO_MARKED:
                self._put_into(marks.pop())
            elif op == 0x2E:  # STOP
                stack.pop()
                return self._at
            else:
                self._rarer(op)

    def _rarer(self, op: int) -> None:
        stack = self._stack
        if op == 0x80:  # PROTO
            self._skip(1)
        elif op == 0x95:  # FRAME
            if self._int(8) > len(self._data) - self._at:
                raise pickle.UnpicklingError(_NO_END)
        elif op in _LINES:
            self._line(len(self._data))
            stack.append(1)
        elif op in _NUMBERS:
            if len(self._line(_LONGEST_NUMBER)) > len("-9223372036854775808"):
                self._count_odd()
            stack.append(1)
        elif op in _LONGS:
            length = self._int(_LONGS[op])
            if length > _LONGEST_NUMBER:
                raise pickle.UnpicklingError(f"it has an integer of {length} bytes")
            if length >= 8:
                self._count_odd()
            self._skip(length)
            stack.append(1)
        elif op in b"ci":  # GLOBAL, INST
            self._line(_LONGEST_LINE)
            self._line(_LONGEST_LINE)
            self._collect(self._marks.pop() if op == 0x69 else len(stack))
        elif op == 0x6F:  # OBJ
            self._collect(self._marks.pop())
        elif op == 0x67:  # GET
            stack.append(self._get(int(self._line(_LONGEST_NUMBER))))
        elif op == 0x70:  # PUT
            self._put(int(self._line(_LONGEST_NUMBER)))
        elif op == 0x32:  # DUP
            stack.append(stack[-1])
        elif op == 0x30:  # POP
            if self._marks and self._marks[-1] == len(stack):
                self._marks.pop()
            else:
                stack.pop()
        elif op == 0x31:  # POP_MARK
            del stack[self._marks.pop() :]
        else:
            raise pickle.UnpicklingError(f"it has the instruction {op:#04x}")

    def _int(self, size: int) -> int:
        self._skip(size)
        return int.from_bytes(self._data[self._at - size : self._at], "little")

    def _skip(self, size: int) -> None:
        self._at += size
        if self._at > len(self._data):
            raise pickle.UnpicklingError(_NO_END)

    def _line(self, longest: int) -> bytes:
        end = self._data.find(b"\n", self._at, self._at + longest + 1)
        if end < 0:
            raise pickle.UnpicklingError("it has a line that does not end")
        line = self._data[self._at : end]
        self._at = end + 1
        return line

    def _put(self, place: int) -> None:
        if not 0 <= place <= self.count + _SPARE_MEMO:
            raise pickle.UnpicklingError(f"it uses the place {place} of its memo")
        self._memo.extend([0] * (place + 1 - len(self._memo)))
        self._used += not self._memo[place]
        self._memo[place] = self._stack[-1]

    def _get(self, place: int) -> int:
        depth = self._memo[place] if 0 <= place < len(self._memo) else 0
        if not depth:
            raise IndexError(f"nothing at the place {place} of its memo")
        return depth

    def _collect(self, start: int) -> None:
        """Makes one value of those on the stack from a place on."""
        if start < 0:
            raise IndexError("nothing on the stack")
        depth = 1 + max(self._stack[start:], default=0)
        self._check(depth)
        self._stack[start:] = [depth]

    def _put_into(self, start: int) -> None:
        """Puts the values on the stack from a place on into the one before them."""
        if start < 1:
            raise IndexError("nothing on the stack")
        depth = max(self._stack[start - 1], 1 + max(self._stack[start:], default=0))
        self._check(depth)
        self._stack[start - 1 :] = [depth]

    def _check(self, depth: int) -> None:
        if depth > _DEPTH:
            raise pickle.UnpicklingError(f"its values are nested deeper than {_DEPTH}")

    def _count_odd(self) -> None:
        self._odd += 1
        if self._odd > _ODD:
            raise pickle.UnpicklingError(f"it has more than {_ODD} large integers and sets")
